"""Losses of stored curves at equal time: what one method has reached when another ends."""

import numpy as np
import pandas as pd

_UNTRAINED = np.log(10)  # of ten classes that are all the same


def chosen(table: pd.DataFrame, name: str, direction: str) -> pd.DataFrame:
    """The lines of an optimiser on a direction."""
    return table[(table.optimiser == name) & (table.direction == direction)]


def digits_seconds(runs: pd.DataFrame, name: str, direction: str) -> float:
    """Seconds of a run on digits: the least among those with the chosen gamma that began to fit (where numbers overflow solves
    end early).

    What a shared machine adds to a time varies from run to run by factors; the least is nearest to the run itself. But for the
    line search, whose trials cost, optimisers take no time beside the direction, and share their runs.
    """
    searches = runs.optimiser == "line search"
    here = runs[
        (searches if name == "line search" else ~searches) & (runs.direction == direction) & (runs.role != "gamma")
    ]
    return float(here[here.train_loss < _UNTRAINED].wall_seconds.min())


def convolutional_seconds(runs: pd.DataFrame, name: str, direction: str) -> float:
    """Seconds of a run of the convolutional network: the least of those that began to fit, on either problem."""
    here = chosen(runs[runs.role == "report"], name, direction)
    return float(here[here.train_loss < _UNTRAINED].seconds.min())


def at_time(curves: pd.DataFrame, unit: str, column: str, end: float, time: float) -> pd.Series:
    """A column of curves at the last save before a time, by seed.

    **Arguments:** `unit`: the column that counts the saves; `end`: seconds of the whole run; `time`: seconds.
    """
    last = curves[unit].max()
    allowed = curves[curves[unit] * end <= time * last * (1 + 1e-9)]
    return allowed.sort_values(unit).groupby("seed")[column].last()
