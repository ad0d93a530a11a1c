"""All figures of a grid of runs."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._core import ConfigError, as_path, look_up
from ..regimes import axis_scale, order_parameters
from ._attempts import OnFailure, attempt
from ._boundary_figure import boundary_figure
from ._compare_variants import VARIANT, compare_variants
from ._curves import curves_figure
from ._drawable import with_drawable_axes
from ._drawn import DrawnFigure
from ._heat_map import heat_map_figure
from ._particle_motion import HIDDEN, OUTPUT, particle_motion
from ._particles import animate_particles, particle_stills_figure
from ._placing import value_text
from ._regime_map import regime_map_figure
from ._run_figures import Run, draw_run_figures, write_figure
from ._seed_bands import seed_band_figure

_DRAWN = (
    "test_loss",
    "train_loss",
    "test_loss_ratio",
    "hidden_learning_gain",
    "kernel_distance",
    "direction_distance_to_initial",
    "relative_weight_movement",
    "linearisation_error",
    "time_to_target",
)
_LINES_TOGETHER = ("test_loss", "hidden_learning_gain", "kernel_distance", "direction_distance_to_initial")
_MOVEMENT = "kernel_distance"
_FLOW = "flow"
_NOT_AXES = ("seed", "target")
_MOST_COLUMNS = 3
_LONGEST_VALUE = 24  # characters, in the name of a file


class _Axes(NamedTuple):
    x: str | None
    y: str | None
    over: str | None


def draw_figures(
    dataset: xr.Dataset,
    folder: str | Path,
    *,
    runs: Mapping[str, Run] | None = None,
    x: str | None = None,
    y: str | None = None,
    over: str | None = None,
    variables: Sequence[str] | None = None,
    reference: str | None = None,
    curves: xr.Dataset | None = None,
    on_failure: OnFailure | None = None,
) -> list[Path]:
    """Draw all figures that the data set of a grid and its runs allow.

    From `runs`, for each position of variants and axes (which follows the figure's name): "loss", "ntk-eigenvalues", "movement"
    and "directions" (of the first seed, if its model is available). Over variants alone also "regimes", with their last states.

    From the data set, each with its data as CSV. They are drawn if it has axes other than variants, if no runs are given, or if
    axes or variables are asked for:

    - "map-VARIABLE": heat maps over `x` and `y` with the regimes' boundaries, and a panel for each value of `over`.
    - "regimes": the regime of each cell, if the kernel distance was measured.
    - "boundary": the position of the regimes' boundary along `x`, against `y`, if both are numeric.
    - "lines": the main quantities along `x` with bands over the seeds, and a line for each flow.

    From `curves`:

    - "curves-VARIABLE": losses against flow time, with a panel for each value of `x`.
    - "particles": an animation and stills of particles, if they were recorded. It shows the first and the last value of `x`,
      for the first seed and the first value of every other axis (for others use `particle_motion` and `animate_particles`).

    An axis that a figure does not show gives a figure for each of its values, with -AXIS=VALUE in its name. Nothing is averaged
    over.

    **Arguments:**

    - `dataset`: a grid of runs, as `gnflow.load` returns it.
    - `folder`: where to write. It is made if it does not exist.
    - `runs`: trajectories (or what can be read of them, `gnflow.simulate.read_data`), by the content hash in `dataset["cell"]`.
    - `x`, `y`, `over`: axes. By default these are the first numeric axis, the next one (or else "flow"), and "flow" (unless it
      is y).
    - `variables`: names of variables in the data set or its `order_parameters`. By default the order parameters that it has.
    - `reference`: the flow that test losses are compared with. By default the first one.
    - `curves`: as `gnflow.sweeps.load_curves` returns them.
    - `on_failure`: called with the name and the exception for each figure that cannot be drawn; the others are still drawn.
      Without it the exception is raised.

    **Returns:** the files written.

    **Raises:** `ConfigError` for names that the data set does not have, before anything is drawn.
    """
    target = _Target(as_path(folder, "folder", ConfigError), "", on_failure)
    is_asked = any(given is not None for given in (x, y, over, variables, reference))
    has_axes = any(dataset.sizes[dim] > 1 for dim in dataset.dims if dim not in (VARIANT, _FLOW, *_NOT_AXES))
    draws_grid = has_axes or is_asked or runs is None
    axes, parameters, wanted = _Axes(None, None, None), dataset, []
    if draws_grid:
        parameters, wanted = _parameters(dataset, variables, reference)
        axes = _choose(parameters, x, y, over)
    written: list[Path] = []
    if runs:
        written += _draw_runs(dataset, runs, target, compare=not draws_grid)
    if draws_grid:
        for suffix, part in _parts(parameters, axes):
            written += _draw_maps(part, axes, wanted, target._replace(suffix=suffix))
        written += _draw_lines(parameters, axes, wanted, variables is None, target)
    if curves is not None:
        written += _draw_curves(curves, axes.x, target)
    return written


def _parameters(
    dataset: xr.Dataset, variables: Sequence[str] | None, reference: str | None
) -> tuple[xr.Dataset, list[str]]:
    """The data set with its order parameters, and the variables to draw."""
    parameters = dataset.merge(order_parameters(dataset, reference), compat="override")
    known = {str(name): name for name in parameters.data_vars if parameters[name].dtype.kind in "fiu"}
    for name in variables or ():
        look_up(name, known, "variable of the data set")
    wanted = [name for name in (_DRAWN if variables is None else variables) if name in known]
    if variables is None and "test_loss" in wanted:
        wanted = [name for name in wanted if name != "train_loss"]
    return with_drawable_axes(_at_one_target(parameters), [str(dim) for dim in parameters.dims]), wanted


def _draw_runs(dataset: xr.Dataset, runs: Mapping[str, Run], target: "_Target", compare: bool) -> list[Path]:
    written: list[Path] = []
    for suffix, part in _parts(dataset[["cell"]], (_FLOW,)):
        # A flow without a finished run keeps its place, so that the colours of the others do not change.
        cells = {str(flow): part["cell"].sel(flow=flow).to_numpy().ravel() for flow in part[_FLOW].to_numpy()}
        own = {flow: [runs[key] for key in keys if key in runs] for flow, keys in cells.items()}
        if any(own.values()):
            written += draw_run_figures(own, target.folder, suffix, target.on_failure)
    if compare and VARIANT in dataset.dims:
        draw = partial(compare_variants, dataset, runs)
        written += write_figure("regimes", draw, target.folder, target.on_failure)
    return written


def _choose(dataset: xr.Dataset, x: str | None, y: str | None, over: str | None) -> _Axes:
    """The axes of the figures. Those that are not given are chosen among the axes with more than one value."""
    known = {str(dim): dim for dim in dataset.dims if dim not in _NOT_AXES}
    given = [name for name in (x, y, over) if name is not None]
    for name in given:
        look_up(name, known, "axis of the sweep")
    if len(set(given)) < len(given):
        raise ConfigError(f"x, y and over are {given}; they must differ.")
    free = [name for name in known if dataset.sizes[name] > 1 and name not in given and name != _FLOW]
    # Numeric axes first, because a boundary can only lie along numbers.
    free.sort(key=lambda name: axis_scale(dataset[name].to_numpy()) == "category")
    flows = [_FLOW] if dataset.sizes.get(_FLOW, 1) > 1 and _FLOW not in given else []
    if x is None:
        x = free.pop(0) if free else flows.pop() if flows else None
    if y is None:
        y = free.pop(0) if free else flows.pop() if flows else None
    if over is None and flows:
        over = flows.pop()
    return _Axes(x, y, over)


def _parts(dataset: xr.Dataset, axes: Sequence[str | None]) -> Iterator[tuple[str, xr.Dataset]]:
    """The data set at each position of the axes that are not shown, with a suffix for the names of files."""
    left = [str(dim) for dim in dataset.dims if dim not in (*axes, *_NOT_AXES, "save") and dataset.sizes[dim] > 1]
    left = [dim for dim in left if dim in dataset.coords]
    for index in itertools.product(*(range(dataset.sizes[dim]) for dim in left)):
        position = dict(zip(left, index, strict=True))
        values = {dim: dataset[dim].to_numpy()[i] for dim, i in position.items()}
        names = (f"-{value}" if dim == VARIANT else f"-{dim}={_file_text(value)}" for dim, value in values.items())
        yield "".join(names), dataset.isel(position, drop=True)


class _Target(NamedTuple):
    """Where figures are written, the suffix of their names, and what to call for those that cannot be drawn."""

    folder: Path
    suffix: str
    on_failure: OnFailure | None

    def put(self, name: str, make: Callable[[], DrawnFigure]) -> list[Path]:
        """Make a figure and write it, with its tables."""
        whole = f"{name}{self.suffix}"
        return attempt(whole, lambda: make().save(self.folder / f"{whole}.png"), self.on_failure)


def _draw_maps(part: xr.Dataset, axes: _Axes, wanted: Sequence[str], target: _Target) -> list[Path]:
    x, y, over = axes
    if x is None or y is None:
        return []
    written: list[Path] = []
    for name in wanted:
        if {x, y} <= set(part[name].dims):
            written += target.put(f"map-{name}", partial(heat_map_figure, part, name, x=x, y=y, over=over))
    if _MOVEMENT in part:
        written += target.put("regimes", partial(regime_map_figure, part, x=x, y=y, over=over))
        numeric = all(axis_scale(part[name].to_numpy()) != "category" and part.sizes[name] > 1 for name in (x, y))
        lines = _FLOW if over is None and _FLOW in part[_MOVEMENT].dims else over
        if numeric and lines is not None:
            written += target.put("boundary", partial(boundary_figure, part, along=x, x=y, lines=lines))
    return written


def _draw_lines(
    dataset: xr.Dataset, axes: _Axes, wanted: Sequence[str], main_only: bool, target: _Target
) -> list[Path]:
    if axes.x is None or axes.x == _FLOW or _FLOW not in dataset.dims:
        return []
    panels = next((name for name in (axes.y, axes.over) if name not in (None, _FLOW)), None)
    together = [name for name in wanted if not main_only or name in _LINES_TOGETHER]
    written: list[Path] = []
    for suffix, part in _parts(dataset, (axes.x, panels, _FLOW)):
        own = target._replace(suffix=suffix)
        if panels is None or part.sizes[panels] <= _MOST_COLUMNS:
            if together:
                written += own.put("lines", partial(seed_band_figure, part, together, x=axes.x, over=panels))
            continue
        for name in together:
            written += own.put(f"lines-{name}", partial(seed_band_figure, part, name, x=axes.x, over=panels))
    return written


def _draw_curves(curves: xr.Dataset, x: str | None, target: _Target) -> list[Path]:
    written: list[Path] = []
    panels = None if x == _FLOW else x
    for suffix, part in _parts(curves, (panels, _FLOW)):
        for name in ("train_loss", "validation_loss", "test_loss"):
            if name in part:
                own = target._replace(suffix=suffix)
                written += own.put(f"curves-{name}", partial(curves_figure, part, name, over=panels))
    if HIDDEN in curves and OUTPUT in curves:
        for suffix, part in _parts(_extremes(curves, panels), (_FLOW,)):
            if np.isfinite(part[HIDDEN].to_numpy()).any():
                draw = partial(_draw_particles, part, target.folder, suffix)
                written += attempt(f"particles{suffix}", draw, target.on_failure)
    return written


def _draw_particles(part: xr.Dataset, folder: Path, suffix: str) -> list[Path]:
    motion = particle_motion(part)
    written = animate_particles(motion, folder / f"particles{suffix}.gif")
    return written + particle_stills_figure(motion).save(folder / f"particles-stills{suffix}.png")


def _extremes(curves: xr.Dataset, x: str | None) -> xr.Dataset:
    """The first and the last value of `x`, at the first seed and the first value of every other axis."""
    kept = (_FLOW, "save", "particle", "coordinate", "output", "teacher_unit", x)
    first = curves.isel({dim: 0 for dim in curves.dims if dim not in kept}, drop=True)
    return first if x is None or first.sizes[x] < 3 else first.isel({x: [0, -1]})


def _at_one_target(dataset: xr.Dataset) -> xr.Dataset:
    """`dataset` with the time to one target: the smallest that at least half of the runs reached, or else the largest."""
    if "time_to_target" not in dataset or "target" not in dataset["time_to_target"].dims:
        return dataset
    times = dataset["time_to_target"].sortby("target", ascending=False)
    others = tuple(range(1, times.ndim))
    reached = np.isfinite(times.transpose("target", ...).to_numpy()).sum(axis=others)
    ended = max(int(times.notnull().any("target").sum()), 1)
    enough = np.flatnonzero(2 * reached >= ended)
    chosen = times.isel(target=int(enough[-1]) if enough.size else 0)
    words = f"flow time to a relative loss of {float(chosen['target']):.0e}"
    kept = chosen.drop_vars("target").assign_attrs(times.attrs, long_name=words, units="own unit")
    return dataset.drop_vars("time_to_target").drop_dims("target").assign(time_to_target=kept)


def _file_text(value: Any) -> str:
    """A value as a part of a file's name: letters, digits and a few signs, short, and different for different values."""
    text = value_text(value).replace(" ", "_")
    kept = "".join(char if char.isalnum() or char in "._=+-" else "_" for char in text)
    if kept == text.replace("/", "_") and len(kept) <= _LONGEST_VALUE:
        return kept
    return f"{kept[:_LONGEST_VALUE]}~{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]}"
