"""Hidden learning along the runs: curves over the relative training loss, and how good the features of a run ever are.

Features are judged by the test loss after the output layer has been refitted to them. The best save of a run is found with the
test set, so that it says what the features hold and not what a user would have found.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from intervals import Interval, number, ratio
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pages import markdown_table, over_seeds
from scipy.special import logit

from gnflow.plots import DrawnFigure
from gnflow.plots._style import legend_on_top, new_figure, style_of, styled

FLOWS = {
    "gradient_flow": "gradient flow",
    "spectral_half": "spectral flow, s = 1/2",
    "gauss_newton_flow": "Gauss-Newton flow",
    "steps_0p1": "steps of 0.1",
    "steps_1": "steps of 1",
    "steps_10": "steps of 10",
    "steps_100": "steps of 100",
}
# Relative training losses at which curves are read, dense where almost all of the loss is left.
LEVELS = np.array(
    [0.999, 0.997, 0.99, 0.98, 0.96, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2, 0.1]
    + [10.0**-decade * digit for decade in range(2, 6) for digit in (3.0, 1.0)]
    + [3e-6, 1.1e-6]  # runs end at 1e-6, some by a rounding error above it
)
SUB_OPTIMAL = 0.9  # the level at which features are compared without a look at the test set
_FIRST = 1 - 1e-4  # stands for the start, whose relative loss is 1, on a logit axis
MEASURED = ("train_loss", "test_loss", "refit_test_loss", "kernel_distance", "direction_distance_to_teacher")
_DRAWN = (0.01, 0.1, 1.0)


class Ends(NamedTuple):
    """Of one run: where its features are best, where the loss first is below 0.9 of the first, and its end.

    Each is a row of the run's curves; None where the run has no such save.
    """

    best: pd.Series
    early: pd.Series | None
    end: pd.Series


def run_table(curves: xr.Dataset, **where: float | str | int) -> pd.DataFrame:
    """The saves of one run: `relative_loss`, `test_loss`, `refit_test_loss`, `flow_time` and what else was measured."""
    table = curves.sel(where)[[name for name in (*MEASURED, "flow_time") if name in curves]].to_dataframe()
    table = table[np.isfinite(table["train_loss"])].reset_index(drop=True)
    table.insert(0, "relative_loss", table["train_loss"] / table["train_loss"].get(0, np.nan))
    return table


def ends_of(run: pd.DataFrame) -> Ends:
    """The rows that tables are made of."""
    below = run[run["relative_loss"] <= SUB_OPTIMAL]
    return Ends(run.loc[run["refit_test_loss"].idxmin()], below.iloc[0] if len(below) else None, run.iloc[-1])


def at_levels(run: pd.DataFrame, name: str) -> np.ndarray:
    """`name` at LEVELS, between the saves at which the loss was lower than ever before; nan beyond the last."""
    relative = run["relative_loss"].to_numpy().clip(max=_FIRST)
    lowest = np.flatnonzero(np.r_[True, relative[1:] < np.minimum.accumulate(relative)[:-1]])
    places, values = -logit(relative[lowest]), np.log(run[name].to_numpy()[lowest])
    return np.exp(np.interp(-logit(LEVELS), places, values, right=np.nan))


def runs_of(curves: xr.Dataset) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The finished runs with their place in the grid."""
    for tau0, flow, seed in itertools.product(*(curves[name].to_numpy().tolist() for name in ("tau0", "flow", "seed"))):
        run = run_table(curves, tau0=tau0, flow=flow, seed=seed)
        if len(run):
            yield {"tau0": tau0, "flow": flow, "seed": seed}, run


def summary(curves: xr.Dataset) -> pd.DataFrame:
    """A row for each run: losses at its best features, at 0.9 of the first loss, and at its end."""
    rows = []
    for row, run in runs_of(curves):
        for words, part in zip(Ends._fields, ends_of(run), strict=True):
            names = ("relative_loss", "flow_time", "test_loss", "refit_test_loss")
            row |= {f"{words}_{name}": np.nan if part is None else part[name] for name in names}
        rows.append(row)
    return pd.DataFrame(rows)


def level_table(curves: xr.Dataset) -> pd.DataFrame:
    """The curves of every run at LEVELS, a row for each run and level."""
    frames = []
    for row, run in runs_of(curves):
        values = {name: at_levels(run, name) for name in ("refit_test_loss", "test_loss")}
        frames.append(pd.DataFrame({**row, "relative_loss": LEVELS, **values}))
    return pd.concat(frames, ignore_index=True).dropna()


@styled
def figure(levels: pd.DataFrame) -> DrawnFigure:
    """Refitted test loss and gain over the relative training loss, medians over seeds, a column for each scale."""
    scales = levels[levels["flow"] == "gauss_newton_flow"]["tau0"].unique()
    if len(scales) > len(_DRAWN):
        scales = np.array(_DRAWN)
    drawing, axes = new_figure(len(scales), 2, 1.75 * len(scales), sharex=True)
    levels = levels.assign(gain=levels["test_loss"] / levels["refit_test_loss"])
    levels = levels.assign(seeds=levels.groupby(["tau0", "flow"])["seed"].transform("nunique"))
    groups = levels.groupby(["tau0", "flow", "relative_loss"])
    # A median over some of the seeds would jump where a run ends.
    medians = groups[["refit_test_loss", "gain"]].median()[groups["seed"].nunique() == groups["seeds"].first()]
    for row, tau0 in enumerate(scales):
        for column, name in enumerate(("refit_test_loss", "gain")):
            axis = axes[2 * row + column]
            for index, flow in enumerate(FLOWS):
                if (tau0, flow) not in medians.index.droplevel(2):
                    continue
                line = medians.loc[(tau0, flow)][name].sort_index(ascending=False)
                style = style_of(index)
                axis.plot(line.index, line, color=style.color, marker=style.marker, markevery=3, markersize=3)
            axis.set_xscale("logit")
            axis.set_xlim(0.9995, 0.7e-6)
            axis.set_xticks(
                [0.99, 0.9, 0.5, 0.1, 1e-3, 1e-6], ["0.99", "0.9", "0.5", "0.1", "1e-3", "1e-6"], rotation=90
            )
            axis.minorticks_off()
            axis.set_yscale("log")
            if row == 0:
                axis.set_title("refitted test loss" if column == 0 else "test loss / refitted")
            if column == 0:
                axis.set_ylabel(f"tau0 = {tau0:g}")
    for axis in axes[-2:]:
        axis.set_xlabel("relative training loss")
    handles = [
        Line2D([], [], color=style_of(index).color, marker=style_of(index).marker, label=label)
        for index, label in enumerate(FLOWS.values())
    ]
    legend_on_top(drawing, handles, columns=2)
    assert isinstance(drawing, Figure)
    return DrawnFigure(drawing, {"": medians.to_xarray()})


_HEADS = (
    "method",
    "seeds",
    "test loss at the end",
    "best refitted test loss",
    "at a relative training loss of",
    "test loss there / refitted",
    "best refitted / gradient flow's end",
    "refitted at 0.9 / gradient flow's end",
)


def tables(rows: pd.DataFrame, scales: Iterable[float]) -> list[str]:
    """Best features, and those at 0.9 of the loss, against gradient flow's end. What is missing was not run."""
    lines = []
    for tau0 in scales:
        of_scale = rows[rows["tau0"] == tau0]
        of_flow = {flow: of_scale[of_scale["flow"] == flow].set_index("seed") for flow in FLOWS}
        reference = of_flow["gradient_flow"]["end_test_loss"]
        cells = [
            [FLOWS[flow], f"{len(own)}", *(_cells(own, reference) if len(own) else ["not run"] * (len(_HEADS) - 2))]
            for flow, own in of_flow.items()
        ]
        title = f"tau0 = {tau0:g}"
        lines += markdown_table(_HEADS, cells, title) if len(of_scale) else [f"**{title}**: not run.", ""]
    return lines


def _cells(own: pd.DataFrame, reference: pd.Series) -> list[str]:
    gains = own["best_test_loss"] / own["best_refit_test_loss"]
    early = own["early_refit_test_loss"]
    seeds = own.index.intersection(reference.index)
    return [
        over_seeds(own["end_test_loss"], range_digits=2),
        over_seeds(own["best_refit_test_loss"], range_digits=2),
        over_seeds(own["best_relative_loss"], range_digits=2),
        over_seeds(gains, range_digits=2),
        str(ratio(own["best_refit_test_loss"][seeds], reference[seeds])),
        str(ratio(early[seeds], reference[seeds])) if early[seeds].notna().all() else "none",
    ]


def ratios(rows: pd.DataFrame, tau0: float, flow: str, which: str) -> Mapping[str, Interval]:
    """Geometric means over seeds of the refitted test loss at `which` ("best", "early") over test losses at ends.

    **Returns:** over the run's own end ("own"), over gradient flow's end ("gradient flow"), and of the test loss at that save
    over the refitted one ("gain").
    """
    own, reference = (
        rows[(rows["tau0"] == tau0) & (rows["flow"] == name)].set_index("seed") for name in (flow, "gradient_flow")
    )
    refitted = own[f"{which}_refit_test_loss"]
    return {
        "own": ratio(refitted, own["end_test_loss"]),
        "gradient flow": ratio(refitted, reference["end_test_loss"][own.index]),
        "gain": ratio(own[f"{which}_test_loss"], refitted),
    }


def at_best(rows: pd.DataFrame, tau0: float, flow: str) -> str:
    """The range of relative training losses at which the features of the runs are best."""
    chosen = rows[(rows["tau0"] == tau0) & (rows["flow"] == flow)]["best_relative_loss"]
    return f"{number(chosen.min())} to {number(chosen.max())}"
