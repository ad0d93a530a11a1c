"""From feature learning to the kernel regime: the last states of runs over a swept setting."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..regimes import label_regimes
from ._drawable import are_apart, drawable
from ._style import axis_label, flow_handles, legend_above, new_figure, style_of, styled, title

_KERNEL_DISTANCE = "kernel_distance"
_PANELS = ("test_loss", "train_loss", _KERNEL_DISTANCE, "direction_distance_to_initial")
_LOGARITHMIC = ("test_loss", "train_loss")

Ends = Mapping[str, Mapping[str, Sequence[xr.Dataset]]]


@styled
def regime_figure(ends: Ends, positions: Mapping[str, float] | None = None, label: str = "variant") -> Figure | None:
    """Final test loss, kernel distance and feature movement of every flow over the variants of a setting.

    A point is the median over the seeds, and its bar their range. A point is hollow if a run ended before its stop rule was
    met. The ends of the axis are named by their regimes if these differ. The regime is that of `gnflow.regimes.label_regimes`,
    with its default thresholds, for the median kernel distance of the flow whose kernel moved most.

    **Arguments:**

    - `ends`: for each flow and each variant the data sets of its seeds. Their last rows are drawn, and `attrs["converged"]`
      (default True) says whether a stop rule was met.
    - `positions`: the value of the setting for each variant, or None to space the variants evenly.
    - `label`: the name of the setting.

    **Returns:** the figure, or None if there are fewer than two variants or none has any of these quantities.
    """
    variants = list(dict.fromkeys(variant for flow in ends.values() for variant in flow))
    if len(variants) < 2:
        return None
    if positions is not None and not are_apart(np.asarray(list(positions.values()), dtype=float)):
        positions = None
    where = {name: float(index) for index, name in enumerate(variants)} if positions is None else dict(positions)
    variants.sort(key=lambda name: where[name])
    present = [name for name in _PANELS if _description(ends, name) is not None]
    if "test_loss" in present:
        present.remove("train_loss")
    if not present:
        return None
    figure, axes = new_figure(len(present), 1, height=0.9 + 1.45 * len(present), sharex=True)
    logarithmic = positions is not None and min(where.values()) > 0 and max(where.values()) >= 5 * min(where.values())
    for panel, name in zip(axes, present, strict=True):
        for index, flow in enumerate(ends.values()):
            _draw(panel, flow, name, where, variants, index, len(ends), logarithmic)
        described = _description(ends, name)
        assert described is not None
        words = axis_label(described)
        panel.set_ylabel(textwrap.fill(f"final {words}" if name in _LOGARITHMIC else words, 22))
        if name in _LOGARITHMIC:
            panel.set_yscale("log")
    bottom = axes[-1]
    if logarithmic:
        bottom.set_xscale("log")
    bottom.set_xticks([where[name] for name in variants], [_tick(name, positions) for name in variants])
    bottom.minorticks_off()
    bottom.set_xlabel(label)
    _name_regimes(axes[0], ends, variants)
    handles = flow_handles(list(ends))
    if any(not data.attrs.get("converged", True) for flow in ends.values() for runs in flow.values() for data in runs):
        handles.append(
            Line2D([], [], color="0.35", marker="o", markerfacecolor="white", linestyle="", label="stop rule not met")
        )
    legend_above(figure, handles, columns=2 if len(handles) > len(ends) else 3)
    return figure


def _tick(name: str, positions: Mapping[str, float] | None) -> str:
    return title(name) if positions is None else f"{positions[name]:g}"


def _description(ends: Ends, name: str) -> xr.DataArray | None:
    found = (data[name] for flow in ends.values() for runs in flow.values() for data in runs if name in data)
    return next(found, None)


def _last(runs: Sequence[xr.Dataset], name: str) -> np.ndarray:
    """The last values of the runs, without those that are not finite (of runs that diverged).

    For a logarithmic axis only positive values are kept.
    """
    values = np.asarray([float(data[name].to_numpy()[-1]) for data in runs if name in data and data[name].size])
    values = drawable(values, "log" if name in _LOGARITHMIC else "linear")
    return values[np.isfinite(values)]


def _draw(
    panel: Axes,
    flow: Mapping[str, Sequence[xr.Dataset]],
    name: str,
    where: Mapping[str, float],
    variants: Sequence[str],
    index: int,
    count: int,
    logarithmic: bool,
) -> None:
    points = [(variant, _last(flow.get(variant, ()), name)) for variant in variants]
    points = [(variant, values) for variant, values in points if values.size]
    if not points:
        return
    # Points of different flows may coincide. A small shift keeps each of them visible.
    shift = (index - (count - 1) / 2) * 0.015
    reach = max(where.values()) - min(where.values())
    x = np.asarray([where[variant] for variant, _ in points])
    x = x * 10 ** (shift * np.log10(max(where.values()) / min(where.values()))) if logarithmic else x + shift * reach
    middle = np.asarray([np.median(values) for _, values in points])
    bars = np.asarray([[m - values.min(), values.max() - m] for (_, values), m in zip(points, middle, strict=True)]).T
    style = style_of(index)
    panel.errorbar(x, middle, yerr=bars if np.any(bars > 0) else None, color=style.color, capsize=2, elinewidth=0.8)
    for position, value, (variant, _) in zip(x, middle, points, strict=True):
        met = all(data.attrs.get("converged", True) for data in flow[variant])
        panel.plot(
            position,
            value,
            linestyle="",
            marker=style.marker,
            color=style.color,
            markersize=5,
            markerfacecolor=style.color if met else "white",
        )


def _name_regimes(panel: Axes, ends: Ends, variants: Sequence[str]) -> None:
    """Write the regimes above the ends of the axis if they differ."""
    distances = [_largest_kernel_distance(ends, variant) for variant in (variants[0], variants[-1])]
    if not np.all(np.isfinite(distances)):
        return
    left, right = label_regimes(xr.Dataset({_KERNEL_DISTANCE: ("end", distances)})).to_numpy()
    if left == right:
        return
    for regime, x, alignment in ((left, 0.0, "left"), (right, 1.0, "right")):
        text = f"{regime} regime"
        panel.text(x, 1.03, text, transform=panel.transAxes, ha=alignment, va="bottom", fontsize=7, style="italic")


def _largest_kernel_distance(ends: Ends, variant: str) -> float:
    """The median over the seeds for the flow whose kernel moved most; nan if none was measured."""
    distances = [_last(flow.get(variant, ()), _KERNEL_DISTANCE) for flow in ends.values()]
    return max((float(np.median(values)) for values in distances if values.size), default=np.nan)
