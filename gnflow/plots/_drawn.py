"""A figure with the numbers that it shows."""

import dataclasses
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from .._core import ConfigError, as_path
from ._style import save


@dataclasses.dataclass(frozen=True)
class DrawnFigure:
    """A figure and the numbers that it shows.

    **Attributes:**

    - `figure`: the Matplotlib figure.
    - `tables`: data sets by name, "" for the main one. Their variables are drawn without further changes.
    """

    figure: Figure
    tables: dict[str, xr.Dataset]

    def save(self, path: str | Path) -> list[Path]:
        """Write the figure as PNG and each table as CSV (PATH.csv, PATH-NAME.csv), with a row for each cell.

        **Returns:** the files.
        """
        path = as_path(path, "path", ConfigError)
        return [save(self.figure, path), *save_tables(self.tables, path)]


def save_tables(tables: dict[str, xr.Dataset], path: Path) -> list[Path]:
    """Write data sets as CSV beside a figure, in full precision. Dimensions and coordinates are the first columns.

    **Returns:** the files.
    """
    written = []
    for name, table in tables.items():
        target = path.with_name(path.stem + (f"-{name}" if name else "") + ".csv")
        target.parent.mkdir(parents=True, exist_ok=True)
        # repr of a float is the shortest text that reads back as the same number.
        frame = table.to_dataframe().reset_index()
        frame.to_csv(target, index=False, na_rep="nan", lineterminator="\n")
        written.append(target)
    return written
