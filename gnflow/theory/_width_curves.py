"""Curves of a sweep over the width, as samples over seeds and widths at common times."""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .._core import ConfigError, nearest_name
from ..config import Specification
from ..sweeps import load_curves

_WIDTH, _BLOCK = ("model", "width"), ("model", "block")
_SAVE, _SEED, _TIME = "save", "seed", "flow_time"
ESTIMATED_ERROR = "estimated_error"
_SAME_TIME = 1e-9  # relative difference of times that count as equal


@dataclasses.dataclass(frozen=True)
class WidthCurves:
    """The curves of a sweep, and what its axes mean.

    **Attributes:**

    - `curves`: the data set of `gnflow.sweeps.load_curves`.
    - `variable`: the variable.
    - `spec`: the grid, if the data set says which.
    - `axis`: the dimension of the width.
    - `widths`: the width at each of its positions.
    - `blocks`: the dimension of blocks of particles; None if there is none.
    """

    curves: xr.Dataset
    variable: str
    spec: Specification | None
    axis: str
    widths: np.ndarray
    blocks: str | None

    @property
    def others(self) -> tuple[str, ...]:
        """The dimensions that are neither the width nor averaged over."""
        averaged = (self.axis, self.blocks, _SEED, _SAVE)
        return tuple(str(dim) for dim in self.curves[self.variable].dims if dim not in averaged)

    def cases(self) -> Iterator[tuple[dict[str, Any], xr.Dataset]]:
        """The position on the other dimensions, and the curves there."""
        for values in itertools.product(*(self.curves[dim].to_numpy().tolist() for dim in self.others)):
            place = dict(zip(self.others, values, strict=True))
            yield place, self.curves.sel(place)


def read_width_curves(
    sweep: xr.Dataset | str | os.PathLike[str], variable: str, axis: str | None, positions: Mapping[str, Any]
) -> WidthCurves:
    """The curves of a sweep.

    **Arguments:**

    - `sweep`: the folder of a sweep, the data set that `gnflow.sweep` or `gnflow.load` returns (or a part of it), or curves
      from `gnflow.sweeps.load_curves`.
    - `variable`: what was recorded along the runs.
    - `axis`: the axis of the width; None for the one that sets `model.width`.
    - `positions`: values of other axes, as for `xarray.Dataset.sel`.

    **Raises:** `ConfigError` if there is no such variable or axis, or the problem changes along the axis.
    """
    curves = _loaded(sweep, variable, positions)
    if variable not in curves:
        names = [str(name) for name in curves.data_vars if name != _TIME]
        raise ConfigError(f"the curves have no variable {variable!r}; {nearest_name(variable, names)}")
    table = curves.attrs.get("configuration")
    spec = None if table is None else Specification.from_dict(json.loads(table))
    setting = {one.name: one for one in spec.axes} if spec is not None else {}
    if axis is None:
        found = [name for name, one in setting.items() if _WIDTH in one.paths and name in curves[variable].dims]
        if len(found) != 1:
            raise ConfigError(
                f"{len(found)} of the sweep's axes {list(setting) or list(map(str, curves[variable].dims))} set model.width; "
                "the limit takes a sweep with one, [axes.width] with path = 'model.width', or axis = the name of the axis "
                "whose numbers are widths."
            )
        (axis,) = found
    if axis not in curves[variable].dims:
        raise ConfigError(f"there is no axis {axis!r}; {nearest_name(axis, list(map(str, curves[variable].dims)))}")
    if axis in setting:
        _require_one_problem(setting[axis])
    blocks = [name for name, one in setting.items() if _BLOCK in one.paths and name in curves[variable].dims]
    blocks = [name for name in blocks if name != axis]
    if (further := set(curves[variable].dims) - {_SEED, _SAVE, *setting, "flow", axis}) and spec is not None:
        raise ConfigError(
            f"{variable!r} is over {sorted(map(str, further))} too; the limit is taken of what has one number at each time."
        )
    for dim in (_SEED, _SAVE):
        if dim not in curves[variable].dims or _TIME not in curves:
            raise ConfigError(
                f"{variable!r} is over {tuple(curves[variable].dims)}; expected curves over {_SEED!r} and {_SAVE!r}, with "
                f"{_TIME!r}, as gnflow.sweeps.load_curves(folder, [{variable!r}]) returns them."
            )
    widths = _widths(curves[axis].to_numpy(), setting.get(axis))
    return WidthCurves(curves, variable, spec, axis, widths, blocks[0] if blocks else None)


def _loaded(sweep: xr.Dataset | str | os.PathLike[str], variable: str, positions: Mapping[str, Any]) -> xr.Dataset:
    """The curves at the positions."""
    if not isinstance(sweep, xr.Dataset):
        return load_curves(sweep, [variable], stats=[ESTIMATED_ERROR], **positions)
    if _SAVE in sweep.dims:
        return sweep.sel(positions)
    folder = sweep.encoding.get("source")
    if folder is None or not os.path.isdir(folder):
        raise ConfigError(
            "the data set has final values alone and does not say from which folder it is; pass the folder of the sweep, or "
            f"gnflow.sweeps.load_curves(folder, [{variable!r}])."
        )
    curves = load_curves(folder, [variable], stats=[ESTIMATED_ERROR])
    # A part of a data set stands for the same part of the curves.
    chosen = {dim: sweep[dim].to_numpy() for dim in curves.dims if dim in sweep.coords and dim != _SAVE}
    gone = [dim for dim in curves.dims if dim != _SAVE and dim not in sweep.coords]
    if gone:
        raise ConfigError(
            f"the data set has no coordinate {gone[0]!r} any more; pass the folder of the sweep, {folder}."
        )
    return curves.sel(chosen).sel(positions)


def _require_one_problem(axis: Any) -> None:
    """Check that the problem is the same at every position. **Raises:** `ConfigError`."""
    for path in axis.paths:
        if path[0].startswith("problem"):
            raise ConfigError(
                f"axes.{axis.name} sets {'.'.join(path)} beside the width, so that each width has a problem of its own; the "
                "limit is that of one problem: leave that entry out."
            )


def _widths(coordinate: np.ndarray, axis: Any) -> np.ndarray:
    """The width at each position of the axis. **Raises:** `ConfigError` if these are no positive numbers."""
    values = coordinate.tolist()
    if axis is not None and _WIDTH in axis.paths:
        by_position = {
            place: dict(changes).get(_WIDTH) for place, changes in zip(axis.coordinate, axis.changes, strict=True)
        }
        values = [by_position[value] for value in values]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values):
        raise ConfigError(f"the widths are {values}; expected positive numbers.")
    return np.asarray(values, dtype=float)


@dataclasses.dataclass(frozen=True)
class Samples:
    """The curves of one case at common times.

    **Attributes:**

    - `times`: flow times (n,).
    - `widths`: different widths, ascending (k,).
    - `values`: samples over seeds (S, k, n), the mean over blocks of equal width.
    - `num_left_out`: the number of seeds that are left out, because a run of theirs is missing or failed.
    - `num_blocks`: the number of networks of each width in a seed (k,).
    - `interpolated`: whether values between saved times were interpolated.
    """

    times: np.ndarray
    widths: np.ndarray
    values: np.ndarray
    num_left_out: int
    num_blocks: np.ndarray
    interpolated: bool


def samples_of(curves: WidthCurves, case: xr.Dataset, times: ArrayLike | None, least_width: float) -> Samples | None:
    """The samples of one case at `times`, or at every time that all of its runs saved; None if there is no such time.

    Times after the end of a run are left out. Between saved times the logarithm of a positive curve (otherwise the curve
    itself) is interpolated as a function of the logarithm of time, by a monotone cubic (PCHIP).

    **Raises:** `ConfigError` with fewer than two seeds or two widths.
    """
    dims = (_SEED, curves.axis, *([curves.blocks] if curves.blocks else []), _SAVE)
    values = case[curves.variable].transpose(*dims).to_numpy()
    saved = np.broadcast_to(case[_TIME].transpose(*dims).to_numpy(), values.shape)
    shape = (values.shape[0], -1, values.shape[-1])
    values, saved = values.reshape(shape), saved.reshape(shape)
    each = np.repeat(curves.widths, values.shape[1] // len(curves.widths))
    used = each >= least_width
    values, saved, each = values[:, used], saved[:, used], each[used]
    widths = np.unique(each)
    if len(widths) < 2:
        raise ConfigError(
            f"the widths are {widths.tolist()}; a limit takes at least two, and three or more to test its law."
        )
    # A run that failed ended before its time, which would leave none that all have.
    whole = np.all(np.isfinite(saved).any(axis=-1), axis=1)
    values, saved = values[whole], saved[whole]
    if len(values) < 2:
        raise ConfigError(
            f"{len(values)} of {len(whole)} seeds have runs at every width; an interval takes at least two, and better ten: "
            "state more model_seeds, or carry out what is missing of the sweep."
        )
    runs = [(saved[index], values[index]) for index in np.ndindex(values.shape[:2])]
    runs = [(time[np.isfinite(time)], value[np.isfinite(time)]) for time, value in runs]
    chosen = _common(runs) if times is None else _within(np.atleast_1d(np.asarray(times, dtype=float)), runs)
    if not chosen.size:
        return None
    found = [_at(chosen, *run) for run in runs]
    at_times = np.asarray([value for value, _ in found]).reshape(*values.shape[:2], len(chosen))
    means = np.stack([at_times[:, each == width].mean(axis=1) for width in widths], axis=1)
    blocks = np.asarray([np.count_nonzero(each == width) for width in widths])
    return Samples(chosen, widths, means, int(np.count_nonzero(~whole)), blocks, any(done for _, done in found))


def _common(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The times that every run saved."""
    common = runs[0][0]
    for times, _ in runs[1:]:
        nearest = times[np.argmin(np.abs(common[:, None] - times), axis=1)]
        common = common[np.abs(nearest - common) <= _SAME_TIME * np.abs(common)]
    return common


def _within(times: np.ndarray, runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Those of `times` that no run ended before."""
    end = min(float(saved[-1]) for saved, _ in runs)
    return times[(times >= 0) & (times <= end * (1 + _SAME_TIME))]


def _at(times: np.ndarray, saved: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, bool]:
    """A curve at some times, and whether it had to be interpolated."""
    from scipy.interpolate import PchipInterpolator

    nearest = np.argmin(np.abs(times[:, None] - saved), axis=1)
    found = values[nearest].astype(float)
    between = np.abs(saved[nearest] - times) > _SAME_TIME * np.abs(times)
    if not np.any(between):
        return found, False
    early = between & (times < saved[1])  # before the first positive time, whose logarithm is the first
    found[early] = np.interp(times[early], saved, values)
    late = between & ~early
    if np.any(late):
        positive = bool(np.all(values > 0))
        curve = PchipInterpolator(np.log(saved[1:]), np.log(values[1:]) if positive else values[1:])
        interpolated = curve(np.log(times[late]))
        found[late] = np.exp(interpolated) if positive else interpolated
    return found, True
