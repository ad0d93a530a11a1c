"""Rows of a paper's claims: how a ratio over seeds is judged, and where stored results are."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import page
import pandas as pd
from intervals import Interval, ratio, verdict

EXPERIMENTS = Path(__file__).parents[1]
_ALIKE = 1.1  # as large as, for ratios on both sides


def stored(folder: str, name: str) -> pd.DataFrame | None:
    """A stored table; None if it is not there."""
    path = EXPERIMENTS / folder / "results" / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else None


class Rows:
    """The rows as they are found."""

    def __init__(self):
        self.rows: list[dict[str, str]] = []

    def add(
        self,
        claim: str,
        version: str,
        size: str,
        measured: str,
        command: str,
        value: Interval | None,
        judge: Callable[[Interval], str],
        seeds: int = 0,
    ) -> None:
        """A row; `value` is None for what was not run."""
        numbers = "" if value is None else str(value)
        size = f"{size}, {seeds} seeds" if seeds else size
        cells = (claim, version, size, measured, numbers, "not run" if value is None else judge(value), f"`{command}`")
        self.rows.append(dict(zip(page.COLUMNS, cells, strict=True)))


def above(bound: float) -> Callable[[Interval], str]:
    """The claim that a value is above the bound."""
    return lambda value: verdict(value, bound, below=False)


def below(bound: float) -> Callable[[Interval], str]:
    """The claim that a value is below the bound."""
    return lambda value: verdict(value, bound, below=True)


def alike(value: Interval) -> str:
    """The claim that two are as large: the interval within a tenth of 1 on both sides."""
    if not np.isfinite(value.low):
        return "open"
    if value.low > 1 / _ALIKE and value.high < _ALIKE:
        return "**seen**"
    return "not seen" if value.low > _ALIKE or value.high < 1 / _ALIKE else "open"


def chosen(table: pd.DataFrame, **where: float | str) -> pd.DataFrame:
    """The rows of a table by seed, failed runs left out."""
    for name, value in where.items():
        table = table[table[name] == value]
    if "failed" in table:
        table = table[~table["failed"].astype(bool)]
    return table.set_index("seed").sort_index()


def paired(over: pd.Series, under: pd.Series) -> tuple[Interval | None, int]:
    """The ratio over the seeds that both have, and how many these are."""
    seeds = over.dropna().index.intersection(under.dropna().index)
    return (ratio(over[seeds], under[seeds]), len(seeds)) if len(seeds) else (None, 0)
