"""Cut a data set into the panels of a figure."""

import math
import textwrap
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._core import ConfigError, look_up
from ..regimes import axis_scale
from ._placing import value_title
from ._style import COLUMN_WIDTH, new_figure

_SEED = "seed"
_LEFT_OF_PANELS = 0.55  # inches that tick labels and the label of the vertical axis take
_BETWEEN_PANELS = 0.1


class Panel(NamedTuple):
    """One panel: its title, the value of the axis `over`, and its part of the data set, without that axis."""

    title: str
    value: Any
    data: xr.Dataset


def require_axes(dataset: xr.Dataset, variable: str, *names: str | None) -> None:
    """Check that the variable has these axes, all different, and that no other axis but the seeds has several values.

    **Raises:** `ConfigError`.
    """
    if variable not in dataset:
        look_up(variable, {str(name): name for name in dataset.data_vars}, "variable of the data set")
    dims = {str(dim): dim for dim in dataset[variable].dims}
    asked = [name for name in names if name is not None]
    for name in asked:
        look_up(name, dims, f"axis of {variable}")
    if _SEED in asked:
        raise ConfigError(
            "the seeds are summarised in every figure, so 'seed' cannot be an axis of one; name another axis."
        )
    if len(set(asked)) < len(asked):
        raise ConfigError(f"the axes {asked} of a figure name one axis twice; they must differ.")
    left = {dim: dataset.sizes[dim] for dim in dims if dim not in (*asked, _SEED) and dataset.sizes[dim] > 1}
    if left:
        raise ConfigError(
            f"{variable} also varies along {left}, which the figure would hide; draw one value at a time, such as "
            f"dataset.isel({next(iter(left))}=0), or take one of these axes for the panels."
        )


def panels_of(dataset: xr.Dataset, over: str | None, keep: Sequence[str]) -> list[Panel]:
    """The data set at each value of `over`, or whole if that is None. Axes with one value are dropped, except `keep`."""
    single = [dim for dim in dataset.dims if dataset.sizes[dim] == 1 and dim not in (*keep, over, _SEED)]
    data = dataset.isel(dict.fromkeys(single, 0), drop=True)
    if over is None:
        return [Panel("", None, data)]
    if axis_scale(data[over].to_numpy()) != "category":
        data = data.sortby(over)
    values = data[over].to_numpy().tolist()
    return [Panel(value_title(over, value), value, data.isel({over: i}, drop=True)) for i, value in enumerate(values)]


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels, with at most three columns in the width of a paper's column."""
    columns = 1 if count == 1 else 2 if count in (2, 4) else 3
    return math.ceil(count / columns), columns


def panel_width(columns: int) -> float:
    """The approximate width of a panel's axes, in inches."""
    return (COLUMN_WIDTH - _LEFT_OF_PANELS) / columns - _BETWEEN_PANELS


def panel_figure(
    panels: Sequence[Panel], panel_height: float, margin: float
) -> tuple[Figure, list[Axes], tuple[int, int]]:
    """A figure with titled axes for each panel, which share their scales. Places without a panel are blank.

    **Arguments:**

    - `panels`: the panels.
    - `panel_height`: the height of a panel in inches.
    - `margin`: the height around the panels in inches.

    **Returns:** the figure, the axes of the panels, and the numbers of rows and columns.
    """
    rows, columns = grid_of(len(panels))
    figure, axes = new_figure(rows, columns, height=margin + rows * panel_height, sharex=True, sharey=True)
    for panel, own in zip(panels, axes, strict=False):
        own.set_title(panel.title, fontsize=7 if columns > 2 else 8)
    for own in axes[len(panels) :]:
        own.set_axis_off()
    # A panel above a blank place is the lowest one in its column and needs the labels that sharing took away.
    for own in axes[: len(panels)][-columns:]:
        own.xaxis.set_tick_params(labelbottom=True)
    return figure, axes[: len(panels)], (rows, columns)


def label_rows(axes: Sequence[Axes], columns: int, label: str) -> None:
    """Label the vertical axis of the leftmost panel of each row."""
    for own in axes[::columns]:
        own.set_ylabel(textwrap.fill(label, 22))


def with_panel(
    parts: Sequence[xr.Dataset], over: str | None, panels: Sequence[Panel], dim: Hashable | None = None
) -> xr.Dataset:
    """The tables of the panels joined along `over`, or along `dim` with `over` as a coordinate."""
    if over is None:
        return parts[0]
    values = [panel.value for panel in panels]
    if dim is None:
        return xr.concat(parts, dim=over, coords="minimal", compat="override").assign_coords({over: values})
    labelled = [
        part.assign_coords({over: (dim, [value] * part.sizes[dim])}) for part, value in zip(parts, values, strict=True)
    ]
    return xr.concat(labelled, dim=dim)
