"""Figures of moving particles: stills side by side, and an animation."""

import math
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from .._core import ConfigError, as_path
from ._drawn import DrawnFigure, save_tables
from ._particle_motion import clock_words
from ._style import COLOURS, legend, new_figure, styled, title

_POSITIVE, _NEGATIVE, _NO_SIGN = COLOURS[0], COLOURS[1], "0.6"
_SMALLEST_AREA, _LARGEST_AREA = 1.2, 30.0  # points^2
_LIMIT = 1.08
_RESOLUTION = 160  # dots per inch of the animation
_HOLD = 5  # extra frames for which the last one stays
_TRAIL_WIDTH = 0.35


class _Panel:
    """The panel of one flow's particles. `show` moves them to a frame."""

    def __init__(self, axes: Axes, data: xr.Dataset):
        self._axes, self._data = axes, data
        self._places = np.stack([data["x"].to_numpy(), data["y"].to_numpy()], axis=-1)  # (frame, particle, 2)
        self._trails = LineCollection([], colors="0.6", linewidths=_TRAIL_WIDTH, alpha=0.5, zorder=1.5)
        axes.add_collection(self._trails)
        self._points: PathCollection = axes.scatter([], [], linewidths=0, alpha=0.7, zorder=2)
        if "teacher_x" in data:
            x, y = data["teacher_x"].to_numpy(), data["teacher_y"].to_numpy()
            axes.plot(x, y, linestyle="", marker="x", color="black", markersize=5, markeredgewidth=1.2, zorder=3)
        axes.add_patch(Circle((0, 0), 1, fill=False, color="0.6", linewidth=0.6))
        axes.set_aspect("equal")
        axes.set_xlim(-_LIMIT, _LIMIT)
        axes.set_ylim(-_LIMIT, _LIMIT)
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-1, 0, 1])
        axes.grid(False)

    def show(self, frame: int, heading: str) -> None:
        own = self._data.isel(frame=frame)
        share, sign = own["share"].to_numpy(), own["sign"].to_numpy()
        order = np.argsort(share)
        colours = np.select([sign > 0, sign < 0], [_POSITIVE, _NEGATIVE], _NO_SIGN)
        self._points.set_offsets(self._places[frame][order])
        self._points.set_sizes(_SMALLEST_AREA + _LARGEST_AREA * share[order])
        self._points.set_facecolor(list(colours[order]))
        self._trails.set_segments(list(self._places[: frame + 1].transpose(1, 0, 2)) if frame else [])
        time, loss = f"$t$ = {_short(own['flow_time'])}", f"$L/L_0$ = {_short(own['relative_loss'])}"
        self._axes.set_title(f"{heading}\n{time}, {loss}" if heading else f"{time}\n{loss}", fontsize=7)


@styled
def particle_stills_figure(motion: xr.Dataset, num_stills: int = 3) -> DrawnFigure:
    """The particles of each flow (rows) at equidistant frames from the first to the last (columns), with their trails.

    **Arguments:**

    - `motion`: the result of `particle_motion`.
    - `num_stills`: the number of stills, 2 to 4.

    **Returns:** the figure and its table, the frames shown.

    **Raises:** `ConfigError` for another number of stills.
    """
    if num_stills not in (2, 3, 4):
        raise ConfigError(f"num_stills = {num_stills!r}; expected 2, 3 or 4.")
    frames = np.linspace(0, motion.sizes["frame"] - 1, num_stills).round().astype(int)
    rows = motion.sizes["flow"]
    figure, axes = new_figure(
        rows, num_stills, height=0.75 + rows * (2.7 / num_stills + 0.35), sharex=True, sharey=True
    )
    for index, own in enumerate(axes):
        row, column = divmod(index, num_stills)
        _Panel(own, motion.isel(flow=row)).show(int(frames[column]), "")
        if column == 0:
            own.set_ylabel(title(str(motion["flow"].to_numpy()[row])))
    _finish(figure, motion, "")
    return DrawnFigure(figure, {"": motion.isel(frame=frames).assign_coords(frame=frames)})


@styled
def animate_particles(motion: xr.Dataset, path: str | Path, frames_per_second: int = 10) -> list[Path]:
    """Write the motion of the particles as an animated GIF with the flows side by side, and its data as CSV.

    Particles lie at their unit directions, projected on a plane, with their trails. The area of a particle grows with its share
    in the function, relative to the largest of its flow, and its colour shows the sign of v_i. Crosses are the directions of
    the teacher's units.

    **Arguments:**

    - `motion`: the result of `particle_motion`.
    - `path`: a name that ends in .gif.
    - `frames_per_second`: the speed of the animation.

    **Returns:** the files.

    **Raises:** `ConfigError` for another name.
    """
    path = as_path(path, "path", ConfigError)
    if path.suffix != ".gif":
        raise ConfigError(f"path = {str(path)!r}; an animation is a GIF, so expected a name that ends in .gif.")
    figure, panels = _animated(motion)
    path.parent.mkdir(parents=True, exist_ok=True)
    last = motion.sizes["frame"] - 1
    writer = PillowWriter(fps=frames_per_second)
    with writer.saving(figure, str(path), _RESOLUTION):
        for frame in [*range(last + 1), *[last] * _HOLD]:
            _show(panels, motion, frame)
            writer.grab_frame()
    return [path, *save_tables({"": motion}, path)]


def _animated(motion: xr.Dataset) -> tuple[Figure, list[_Panel]]:
    count = motion.sizes["flow"]
    columns = min(count, 2) if count != 3 else 3
    rows = math.ceil(count / columns)
    figure, axes = new_figure(rows, columns, height=0.95 + rows * (3.0 / columns + 0.25), sharex=True, sharey=True)
    panels = [_Panel(own, motion.isel(flow=index)) for index, own in enumerate(axes[:count])]
    for own in axes[count:]:
        own.set_axis_off()
    _show(panels, motion, motion.sizes["frame"] - 1)
    _finish(figure, motion, clock_words(motion.attrs["clock"]))
    # The layout is computed once, because panels that shift from frame to frame would look like motion.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure, panels


def _show(panels: list[_Panel], motion: xr.Dataset, frame: int) -> None:
    for panel, name in zip(panels, motion["flow"].to_numpy().tolist(), strict=True):
        panel.show(frame, title(str(name)))


def _finish(figure: Figure, motion: xr.Dataset, note: str) -> None:
    source = "the teacher" if "teacher_x" in motion and motion.sizes["teacher_unit"] > 1 else "the particles"
    first = f"first principal direction of {source}"
    figure.supxlabel(f"{first}\n({note})" if note else first, fontsize=7)
    figure.supylabel("second principal direction", fontsize=7)
    signs = motion["sign"].to_numpy()
    handles = [_dot(_POSITIVE, "particle, $v_i > 0$"), _dot(_NEGATIVE, "particle, $v_i < 0$")] if signs.any() else []
    if not signs.all():
        handles.append(_dot(_NO_SIGN, "particle, $v_i = 0$" if signs.any() else "particle"))
    if "teacher_x" in motion:
        handles.append(Line2D([], [], linestyle="", marker="x", color="black", markersize=5, label="teacher's unit"))
    legend(figure, handles, columns=2)


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markersize=4, color=colour, markeredgewidth=0, label=label)


def _short(value: xr.DataArray) -> str:
    """A number as text of a width that does not change from frame to frame."""
    return f"{float(value):.1e}"
