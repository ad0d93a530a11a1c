"""What the studies share on their way to a page of docs: tables, the marks they stand between, figures with their numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from gnflow import plots


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> list[str]:
    """The lines of a table, under its title if there is one, and an empty one behind it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return [*([f"**{title}**", ""] if title else []), *lines, ""]


def over_seeds(values: Sequence[float] | np.ndarray | pd.Series, range_digits: int = 3) -> str:
    """Median (smallest to largest) over seeds; how many of them have no value."""
    numbers = np.asarray(values, dtype=float).ravel()
    kept = numbers[~np.isnan(numbers)]
    if not kept.size:
        return "none"
    missing = f", {numbers.size - kept.size} without" if kept.size < numbers.size else ""
    least, most = (f"{end:.{range_digits}g}" for end in (kept.min(), kept.max()))
    return f"{np.median(kept):.3g} ({least} to {most}{missing})"


def insert(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put tables between the marks <!-- tables: NAME --> and <!-- end of NAME --> of a page."""
    begin, end = f"<!-- tables: {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no marks {begin.strip()} and {end}.")
    text = "\n".join(lines).strip()
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


def save_figure(figure: plots.DrawnFigure, image: Path, results: Path) -> None:
    """The figure into the docs, the numbers that it shows into `results`."""
    for path in figure.save(image):
        if path.suffix == ".csv":
            path.replace(results / path.name)


def explicit_steps(data: xr.Dataset, curves: xr.Dataset, rate: xr.DataArray) -> xr.DataArray:
    """The steps of size 1/rho that each run of one flow would take, int rho dt with rho its fastest rate.

    A clock that flows with different units of time share; explicit Euler is stable up to twice that step.

    **Arguments:** `data`: of `gnflow.load`; `curves`: of `load_curves`; `rate`: rho over the curves' saves.
    """
    rate, times = xr.broadcast(rate, curves["flow_time"])
    steps = 0.5 * (rate + rate.shift(save=1)) * (times - times.shift(save=1))
    found = steps.sum("save", min_count=1).where(~data["failed"])
    found.attrs = {"long_name": "explicit steps to the end", "units": "steps"}
    return found
