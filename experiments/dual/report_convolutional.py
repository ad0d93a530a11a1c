"""Tables of docs/dual_study.md and its figure of the convolutional network, from results/convolutional_*.csv.

python experiments/dual/report_convolutional.py
"""

import itertools
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import convolutional  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
import pages  # noqa: E402
import pandas as pd  # noqa: E402
from equal_time import chosen, convolutional_seconds  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from gnflow import plots  # noqa: E402
from gnflow.plots._style import legend_on_top, new_figure, style_of, styled  # noqa: E402

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
NAMES = {"mnist_5k": "mnist_5k", "fashion_mnist": "Fashion-MNIST"}


def method_table(problem: str, runs: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """What was reached by each method, and the time that it took to a training loss."""
    rows = []
    here, lines = runs[(runs.problem == problem) & (runs.role == "report")], curves[curves.problem == problem]
    for name, direction in itertools.product(convolutional.RATES, convolutional.COSTS):
        own, of = chosen(here, name, direction), chosen(lines, name, direction)
        if own.empty:
            continue
        total, steps = convolutional_seconds(runs, name, direction), int(own.steps.iloc[0])
        last = of[of.save == of.save.max()]
        rows.append(
            [
                name,
                direction,
                "" if direction == "gradient" else f"{own.gamma.iloc[0]:g}",
                f"{own.learning_rate.iloc[0]:g}",
                f"{len(own)}",
                f"{steps}",
                pages.over_seeds(last.train_loss),
                pages.over_seeds(last.test_loss),
                pages.over_seeds(100 * last.test_accuracy),
                f"{1e3 * total / steps:.2g}",
                f"{total:.2g}",
            ]
        )
    heads = ["optimiser", "direction", "gamma", "rate", "seeds", "steps", "training loss", "test loss"]
    heads += ["test accuracy [%]", "ms a step", "seconds"]
    return (
        pages.markdown_table(heads, rows, f"{NAMES[problem]}: at the end of runs of equal nominal cost") if rows else []
    )


def gamma_table(runs: pd.DataFrame) -> list[str]:
    """The training loss by gamma and batch size, at the best of the rates."""
    tried = runs[runs.role == "batch"]
    if tried.empty:
        return []
    rows = []
    for gamma in convolutional.GAMMAS:
        cells = [f"{gamma:g}"]
        for batch in convolutional.BATCHES:
            here = tried[(tried.gamma == gamma) & (tried.batch == batch)]
            best = here.loc[here.train_loss.idxmin()] if len(here) else None
            cells.append("not run" if best is None else f"{best.train_loss:.3g} (rate {best.learning_rate:g})")
        rows.append(cells)
    heads = ["gamma", *(f"B = {batch}, {steps} steps" for batch, steps in convolutional.BATCHES.items())]
    title = (
        "Training loss at the end by gamma and batch size: SGD, 16 iterations, mnist_5k, the tuning seed, the best rate"
    )
    return pages.markdown_table(heads, rows, title)


@styled
def end_figure(runs: pd.DataFrame) -> Figure:
    """The training loss at the end of every run of each method, a panel for each problem."""
    reported = runs[runs.role == "report"]
    problems = [problem for problem in NAMES if (reported.problem == problem).any()]
    pairs = [
        pair
        for pair in itertools.product(convolutional.RATES, convolutional.COSTS)
        if not chosen(reported, *pair).empty
    ]
    figure, axes = new_figure(1, len(problems), 3.4, sharex=True, sharey=True)
    for axis, problem in zip(np.ravel(axes), problems, strict=True):
        for place, pair in enumerate(pairs):
            losses = chosen(reported[reported.problem == problem], *pair).train_loss.to_numpy()
            style = style_of(list(convolutional.RATES).index(pair[0]))
            axis.plot(losses, np.full(len(losses), -place), color=style.color, marker=style.marker, linestyle="none")
            if len(losses):
                axis.plot([np.median(losses)], [-place], color="black", marker="|", markersize=11, linestyle="none")
        axis.set(title=NAMES[problem], xlabel="training loss at the end", xscale="log")
        axis.set_yticks([-place for place in range(len(pairs))], [f"{name}, {direction}" for name, direction in pairs])
    return figure


@styled
def time_figure(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Training loss against seconds: medians over the seeds in their range, a panel for each problem."""
    problems = [problem for problem in NAMES if (curves.problem == problem).any()]
    figure, axes = new_figure(1, len(problems), 2.6 if len(problems) > 1 else 3.2, sharex=True, sharey=True)
    for axis, problem in zip(np.ravel(axes), problems, strict=True):
        for index, pair in enumerate(convolutional.SHOWN):
            own = chosen(curves[curves.problem == problem], *pair)
            if own.empty:
                continue
            one = own.pivot(index="save", columns="seed", values="train_loss")[1:]
            x = one.index.to_numpy() * convolutional_seconds(runs, *pair) / own.save.max()
            style = style_of(index)
            axis.plot(x, one.median(axis=1), color=style.color, marker=style.marker)
            axis.fill_between(x, one.min(axis=1), one.max(axis=1), color=style.color, alpha=0.18, linewidth=0)
        axis.set(title=NAMES[problem], xlabel="time [s]", yscale="log", xscale="log")
    np.ravel(axes)[0].set_ylabel("training loss")
    handles = [
        Line2D([], [], color=style_of(index).color, marker=style_of(index).marker, label=f"{name}, {direction}")
        for index, (name, direction) in enumerate(convolutional.SHOWN)
    ]
    legend_on_top(figure, handles)
    return figure


def main() -> None:
    results = HERE / "results"
    runs, curves = (pd.read_csv(results / f"convolutional_{kind}.csv") for kind in ("runs", "curves"))
    plots.save(end_figure(runs), DOCS / "images" / "dual_convolutional.png")
    if (results / "convolutional_path_curves.csv").is_file():
        paths = pd.read_csv(results / "convolutional_path_curves.csv")
        plots.save(time_figure(runs, paths), DOCS / "images" / "dual_convolutional_time.png")
    tables = {
        "convolutional": [line for problem in NAMES for line in method_table(problem, runs, curves)],
        "batches": gamma_table(runs),
    }
    for name, lines in tables.items():
        pages.insert(DOCS / "dual_study.md", name, lines or ["not run yet"])
        print("\n".join(lines))


if __name__ == "__main__":
    main()
