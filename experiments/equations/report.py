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
    """One row for each equation and method."""
    rows = []
    for name in stored():
        for seed, runs in read(name)["runs"].items():
            for label, run in runs.items():
                is_flow = "time" in run
                seconds = run["seconds"] if is_flow else run["seconds"][-1]
                rows.append(
                    [
                        name if label == "gradient flow" else "",
                        label,
                        f"{run['relative_l2'][-1]:.1e}",
                        f"{run['train_loss'][0]:.1e}",
                        f"{run['train_loss'][-1]:.1e}",
                        f"{run['time'][-1]:.3g}" if is_flow else "",
                        str(run["num_steps"]),
                        f"{seconds:.0f}",
                        run["result"].replace("_", " ") if is_flow else "time was up",
                    ]
                )
            assert seed == "0"
    return markdown_table(
        ["equation", "method", "relative L2", "first L", "last L", "flow time", "steps", "s", "ended"], rows
    )


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
    """The relative error over seconds for optimisers, over the share of the run for flows."""
    names = stored()
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.4 * len(names), 3.2), sharey=True, layout="constrained", squeeze=False
    )
    for name, axis in zip(names, axes.flat, strict=True):
        for label, run in read(name)["runs"]["0"].items():
            if "time" in run:
                x = np.maximum(np.asarray(run["time"][1:]), 1e-3)
                axis.loglog(x, run["relative_l2"][1:], color=COLOURS[label], label=label)
            else:
                axis.axhline(run["relative_l2"][-1], color=COLOURS[label], ls=":", label=f"{label}, equal time")
        axis.set_title(name)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("relative L2 error")
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
        image = axis.imshow(errors, origin="lower", cmap="viridis", vmin=-7, vmax=0, aspect="auto")
        for (i, j), value in np.ndenumerate(errors):
            axis.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="w" if value < -2.5 else "k")
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
