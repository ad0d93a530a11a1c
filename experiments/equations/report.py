"""Tables and figures of docs/residuals_study.md from the stored results.

    python experiments/equations/report.py

Writes docs/images/equations_*.png, and the tables into the page.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from pages import insert, markdown_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "residuals_study.md"
EQUATIONS = ("poisson", "heat", "burgers", "allen_cahn", "helmholtz")
# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {
    "Gauss-Newton": "#0072B2",
    "gradient flow": "#D55E00",
    "spectral 1/2": "#009E73",
    "dual, gamma = 1e4": "#CC79A7",
    "Adam": "#E69F00",
    "L-BFGS": "#56B4E9",
}


def stored() -> list[str]:
    """The equations that have results."""
    return [name for name in EQUATIONS if (HERE / "results" / f"{name}.json").is_file()]


def read(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def equations() -> list[str]:
    """One row for each equation and method: medians over the seeds, with the range of the errors if there are several."""
    rows = []
    for name in stored():
        by_seed = list(read(name)["runs"].values())
        for label in COLOURS:
            if label not in by_seed[0]:
                continue
            of_seeds = [runs for runs in by_seed if label in runs]
            runs = [runs[label] for runs in of_seeds]
            equal = [_equal_time(of_seed[label], of_seed["Gauss-Newton"]["seconds"]) for of_seed in of_seeds]
            rows.append(
                [
                    name if label == "Gauss-Newton" else "",
                    f"{label}, limited" if any(run.get("limits") for run in runs) else label,
                    _spread([run["relative_l2"][-1] for run in runs]),
                    _spread([error for error in equal if error is not None]),
                    f"{np.median([run['train_loss'][-1] for run in runs]):.1e}",
                    f"{np.median([run['time'][-1] for run in runs]):.3g}" if "time" in runs[0] else "",
                    f"{np.median([run['num_steps'] for run in runs]):.0f}",
                    f"{np.median([_seconds(run) for run in runs]):.0f}",
                    f"{np.median([run['ntk_at_end']['condition_number'] for run in runs]):.0e}"
                    if "time" in runs[0]
                    else "",
                    ", ".join(sorted({run.get("result", "time_was_up").replace("_", " ") for run in runs})),
                ]
            )
    header = [
        "equation",
        "method",
        "relative L2",
        "in the time of Gauss-Newton",
        "last L",
        "flow time",
        "steps",
        "s",
        "condition number",
        "ended",
    ]
    return markdown_table(header, rows)


def _seconds(run: dict[str, Any]) -> float:
    return run["seconds"] if "time" in run else run["seconds"][-1]


def _equal_time(run: dict[str, Any], seconds: float) -> float | None:
    """The error of an optimiser after so many seconds; None for a flow."""
    if "time" in run:
        return None
    return run["relative_l2"][int(np.searchsorted(run["seconds"], seconds, side="right")) - 1]


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    several = f" ({min(values):.1e} to {max(values):.1e})" if len(values) > 1 else ""
    return f"{np.median(values):.1e}{several}"


def engd() -> list[str]:
    rows = []
    for seed, runs in read("engd")["runs"].items():
        descent, flow = runs["ENGD"], runs["Gauss-Newton"]
        for label, at in (("ENGD, 51 steps", 51), ("ENGD, 100 steps", -1)):
            rows.append([seed, label, f"{descent['relative_l2'][at]:.1e}", f"{descent['seconds'][at]:.1f}"])
        rows.append(
            [
                seed,
                f"Gauss-Newton flow, {flow['num_steps']} steps",
                f"{flow['relative_l2'][-1]:.1e}",
                f"{flow['seconds']:.1f}",
            ]
        )
    return markdown_table(["seed", "method", "relative L2", "s"], rows)


def cost() -> list[str]:
    record = read("cost")
    rows = [[name, f"{1e3 * seconds:.2f}"] for name, seconds in record["seconds"].items()]
    return markdown_table([f"{record['rows']} residuals, {record['weights']} weights", "ms"], rows)


def draw_equations() -> None:
    """The relative error over flow time, and where optimisers end."""
    names = stored()
    rows = -(-len(names) // 3)
    figure, axes = plt.subplots(
        rows, 3, figsize=(7.2, 0.8 + 2.2 * rows), sharey=True, layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for name, axis in zip(names, axes.flat, strict=False):
        for label, run in read(name)["runs"]["0"].items():
            if "time" in run:
                x = np.maximum(np.asarray(run["time"][1:]), 1e-3)
                axis.loglog(x, run["relative_l2"][1:], color=COLOURS[label], label=label)
            else:
                axis.axhline(run["relative_l2"][-1], color=COLOURS[label], ls=":", label=label)
        axis.set_title(name)
        axis.grid(alpha=0.3)
    figure.supylabel("relative L2 error", fontsize="medium")
    figure.supxlabel("flow time, in each flow's own units", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside upper center", ncols=3)
    figure.savefig(ROOT / "docs" / "images" / "equations_error.png", dpi=150)
    plt.close(figure)


def draw_phase() -> None:
    record = read("phase")
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.0), sharey=True, layout="constrained")
    for axis, label in zip(axes, ("gradient flow", "Gauss-Newton"), strict=True):
        errors = np.log10(np.asarray(record[label]))
        image = axis.imshow(errors, origin="lower", cmap="viridis", vmin=-8, vmax=0, aspect="auto")
        for (i, j), value in np.ndenumerate(errors):
            axis.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="w" if value < -3 else "k")
        axis.set_xticks(range(errors.shape[1]), [f"{scale:g}" for scale in record["init_scale"]])
        axis.set_yticks(range(errors.shape[0]), [f"{weight:g}" for weight in record["boundary_weight"]])
        axis.set_title(label)
        axis.set_xlabel("scale of the first weights")
    axes[0].set_ylabel("boundary weight")
    figure.colorbar(image, ax=axes, label="log10 of relative L2 error")
    figure.savefig(ROOT / "docs" / "images" / "equations_phase.png", dpi=150)
    plt.close(figure)


def main() -> None:
    for name, make in (("equations", equations), ("engd", engd), ("cost", cost)):
        insert(PAGE, name, make())
    draw_equations()
    if (HERE / "results" / "phase.json").is_file():
        draw_phase()


if __name__ == "__main__":
    main()
