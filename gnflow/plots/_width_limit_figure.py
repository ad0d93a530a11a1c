"""The limit of infinite width of a curve, beside the curves that it was fitted to."""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .._core import ConfigError
from ._drawable import drawable
from ._style import COLOURS, FLOW_TIME_LABEL, legend_on_top, new_figure, style_of, styled

_HEIGHT = 4.2  # inches
_MOST_TIMES = 4  # lines in the lower panel
_BAND = 0.3
_ROUNDING = 1e-12  # relative


@styled
def width_limit_figure(dataset: xr.Dataset) -> Figure:
    """Above, means over the seeds at each width (pale: small) and their limit with its interval, against flow time. Below, the
    means at a few times against 1/M, relative to their limit, with the line L + beta/M.

    Bars are two standard errors. Where the law holds, they meet the line.

    **Arguments:**

    - `dataset`: the data of a `gnflow.theory.InfiniteWidth`, for one case: over "time" and "width".

    **Raises:** `ConfigError` if there are other dimensions of more than one value.
    """
    dataset = dataset.squeeze([dim for dim in dataset.dims if dim not in ("time", "width") and dataset.sizes[dim] == 1])
    others = [dim for dim in dataset.dims if dim not in ("time", "width")]
    if others:
        raise ConfigError(
            f"the limit is over {', '.join(map(str, others))} too; draw one case, such as .plot({others[0]}="
            f"{dataset[others[0]].to_numpy().tolist()[0]!r})."
        )
    dataset = dataset.isel(time=np.flatnonzero(np.isfinite(dataset["limit"].to_numpy())))
    figure, (upper, lower) = new_figure(2, 1, height=_HEIGHT)
    widths, times = dataset["width"].to_numpy(), dataset["time"].to_numpy()
    shades = colormaps["viridis_r"](np.linspace(0.15, 0.85, len(widths)))
    upper.set_xscale("log")
    if np.all(dataset["mean"].to_numpy() > 0):
        upper.set_yscale("log")
    x = drawable(times, "log")
    for width, shade in zip(widths, shades, strict=True):
        upper.plot(
            x, drawable(dataset["mean"].sel(width=width).to_numpy(), upper.get_yscale()), color=shade, linewidth=0.9
        )
    ends = [drawable(dataset[name].to_numpy(), upper.get_yscale()) for name in ("lower", "upper")]
    upper.fill_between(x, *ends, color=COLOURS[1], alpha=_BAND, linewidth=0)
    upper.plot(x, drawable(dataset["limit"].to_numpy(), upper.get_yscale()), color=COLOURS[1], linestyle="--")
    upper.set_xlabel(FLOW_TIME_LABEL)
    upper.set_ylabel(str(dataset.attrs.get("long_name", "")))
    _draw_law(lower, dataset)
    handles = [Line2D([], [], color=shade, label=f"M = {width:g}") for width, shade in zip(widths, shades, strict=True)]
    limit = [
        Line2D([], [], color=COLOURS[1], linestyle="--", label=r"$M \to \infty$"),
        Patch(color=COLOURS[1], alpha=_BAND, linewidth=0, label="its interval"),
    ]
    legend_on_top(figure, handles, limit, columns=3)
    return figure


def _draw_law(axes: Axes, dataset: xr.Dataset) -> None:
    """The means at a few times against 1/M, relative to their limit."""
    inverse = 1 / dataset["width"].to_numpy()
    # At the start, and wherever else the seeds do not differ, there is nothing to see.
    spread = dataset["standard_error"].to_numpy() / np.abs(dataset["limit"].to_numpy())
    moving = np.flatnonzero(spread > _ROUNDING)
    chosen = np.unique(np.linspace(0, len(moving) - 1, min(_MOST_TIMES, len(moving))).round().astype(int))
    line = np.asarray([0.0, float(np.max(inverse)) * 1.05])
    for number, place in enumerate(moving[chosen]):
        point, style = dataset.isel(time=int(place)), style_of(number)
        limit = float(point["limit"])
        axes.errorbar(
            inverse,
            point["mean"].to_numpy() / limit,
            2 * point["mean_error"].to_numpy() / abs(limit),
            color=style.color,
            marker=style.marker,
            linestyle="",
            capsize=1.5,
            linewidth=0.8,
            label=f"t = {float(point['time']):.3g}",
        )
        axes.plot(line, 1 + float(point["slope"]) / limit * line, color=style.color, linewidth=0.8)
    axes.set_xlim(0, line[1])
    axes.set_xlabel("1/M")
    axes.set_ylabel("mean / limit")
    if len(chosen):
        axes.legend(loc="best", handlelength=1.2)
