"""Draw the figures of docs/devdocs/solvers.md from the stored results: `python experiments/benchmarks/figures.py`."""

import json
from pathlib import Path

import numpy as np
from _record import RESULTS
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gnflow.plots import save
from gnflow.plots._style import style_of, styled

IMAGES = Path(__file__).parents[2] / "docs" / "images"
METHODS = {
    "exponential": "exponential",
    "kvaerno5": "Kvaerno5",
    "tsit5": "Tsit5",
    "dopri8": "Dopri8",
    "iteration": "Euler steps (GD, GN)",
}
TIERS = {
    "exponential": "exponential",
    "stabilised": "stabilised",
    "tsit5": "Tsit5",
    "dopri8": "Dopri8",
    "auto": "auto",
}
FLOWS = {"gradient": "gradient flow", "gauss_newton": "Gauss-Newton flow"}


def main() -> None:
    figures = {"work_precision": work_precision, "scaling": scaling, "three_tiers": three_tiers}
    for name, figure in ((name, draw()) for name, draw in figures.items()):
        save(figure, IMAGES / f"{name}.png")
        print(IMAGES / f"{name}.png")


@styled
def work_precision() -> Figure:
    rows = json.loads((RESULTS / "work_precision.json").read_text())["rows"]
    scales = sorted({row["init_scale"] for row in rows}, reverse=True)
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.subplots(len(FLOWS), len(scales), sharex=True, sharey=True)
    for row_axes, (flow, flow_label) in zip(axes, FLOWS.items(), strict=True):
        for axis, scale in zip(row_axes, scales, strict=True):
            for index, (method, label) in enumerate(METHODS.items()):
                own = [r for r in rows if (r["flow"], r["init_scale"], r["method"]) == (flow, scale, method)]
                done = [r for r in own if r.get("error") is not None]
                axis.loglog(
                    [r["seconds"] for r in done], [r["error"] for r in done], label=label, **style_of(index)._asdict()
                )
            axis.set_title(rf"{flow_label}, $\tau_0$ = {scale:g}")
    for axis in axes[-1]:
        axis.set_xlabel("wall time [s]")
    for axis in axes[:, 0]:
        axis.set_ylabel("relative error of\nthe test outputs")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS))
    return figure


@styled
def scaling() -> Figure:
    record = json.loads((RESULTS / "scaling.json").read_text())
    figure = Figure(figsize=(7.0, 2.7), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = (
        (axes[0], record["by_samples"], "n_train", "number of samples N", f"M = {record['by_samples']['width']}"),
        (axes[1], record["by_width"], "width", "width M", f"N = {record['by_width']['n_train']}"),
    )
    for axis, series, key, label, fixed in panels:
        sizes, seconds = np.array(series[key]), np.array(series["seconds"])
        axis.loglog(sizes, seconds, marker="o", label=f"one step, {fixed}")
        expected = 2 if key == "n_train" else 1
        axis.loglog(
            sizes,
            seconds[-1] * (sizes / sizes[-1]) ** expected,
            linestyle="--",
            color="0.5",
            label=f"exponent {expected}",
        )
        axis.set_xlabel(label)
        axis.legend(title=f"fitted, upper half: {series['exponent_upper']:.2f}")
    axes[0].set_ylabel("wall time of one step [s]")
    return figure


@styled
def three_tiers() -> Figure:
    """Work and precision of each tier on two problems, and the time of all over the best on the whole matrix."""
    figure = Figure(figsize=(7.0, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.0, 1.35))
    rows = json.loads((RESULTS / "tiers.json").read_text())["rows"]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for axis, case in zip(above.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        for index, (method, label) in enumerate(TIERS.items()):
            own = [row for row in rows if (row["case"], row["solver"]) == (case, method)]
            axis.loglog(
                [r["seconds"] for r in own], [r["error"] for r in own], label=label, **style_of(index)._asdict()
            )
        axis.xaxis.set_minor_formatter(NullFormatter())  # whose numbers overlap
        axis.set(title=own[0]["title"], xlabel="wall time [s]", ylabel="relative error of\nthe test outputs")
    axis = below.subplots()
    matrix = json.loads((RESULTS / "solver_choice.json").read_text())["rows"]
    for index, (method, label) in enumerate(TIERS.items()):
        points = [(i, over_best(row, method)) for i, row in enumerate(matrix)]
        kept = [(i, ratio) for i, ratio in points if ratio is not None]
        style = style_of(index)._asdict() | {"linestyle": "none"}
        axis.semilogy([i for i, _ in kept], [ratio for _, ratio in kept], label=label, **style)
    axis.axhline(1.3, linestyle="--", color="0.5")
    labels = [f"{row['case']} {row['target']:.0e}".replace("_", " ") for row in matrix]
    axis.set_xticks(range(len(matrix)), labels, rotation=90, fontsize=6)
    axis.set_ylabel("time over that of the\nbest solver by name")
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(TIERS))
    return figure


def over_best(row: dict, solver: str) -> float | None:
    """The time of a solver over that of the best named one, None where it was not run or did not finish."""
    runs = row["runs"]
    best = min(run["seconds"] for name, run in runs.items() if name != "auto" and run["finished"])
    return runs[solver]["seconds"] / best if solver in runs and runs[solver]["finished"] else None


if __name__ == "__main__":
    main()
