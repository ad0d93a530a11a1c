"""The limit of infinite width of what a sweep recorded, with intervals and a test of the law that it rests on."""

import dataclasses
import itertools
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .._core import ConfigError, require_number
from ..config import RunSpec, Specification
from ._width_curves import ESTIMATED_ERROR, Samples, WidthCurves, read_width_curves, samples_of
from ._width_fit import WidthFit, fit_widths
from ._width_scaling import require_scaling

if TYPE_CHECKING:
    import matplotlib.figure

_LEVEL = 0.01  # probability of saying no to a law that holds
_MANY_ROWS = 25  # a longer table is thinned out; the data set has every time
_OF_THE_HALF_WIDTH = 0.3  # an error of integration that is larger, relative to half the interval, is named
_OVER_WIDTH = ("mean", "mean_error")
_LONG_NAMES = {
    "limit": "limit of infinite width",
    "lower": "lower end of the interval of the limit",
    "upper": "upper end of the interval of the limit",
    "standard_error": "standard error of the limit",
    "slope": "beta of limit + beta/M",
    "slope_error": "standard error of beta",
    "p_value": "probability of means as far from the law, if it holds",
    "mean": "mean over the seeds",
    "mean_error": "standard error of the mean over the seeds",
}


@dataclasses.dataclass(frozen=True)
class InfiniteWidth:
    """The limit M -> infinity of a curve, by `infinite_width`.

    **Attributes:**

    - `data`: a data set over flow time ("time") and the axes of the sweep other than width and seed, with

        - `limit`, `standard_error`, `lower`, `upper`: L_inf, its standard error and the ends of its interval,
        - `slope`, `slope_error`: beta of L_inf + beta/M, and its standard error,
        - `p_value`: that of the test of the law; nan for two widths, and where seeds do not differ,
        - `mean`, `mean_error`: the mean over the seeds at each width ("width"), and its standard error.

      All have the units of the variable (the slope times the number of particles). nan stands for times that a flow does not
      have.
    - `variable`: the name of the variable.
    - `confidence`: of the interval.
    - `cases`: a sentence on each combination of the other axes: its runs, and whether the law 1/M agrees with them.
    - `is_seen`: for each of them whether the law agrees with all widths; None if that could not be tested.
    """

    data: xr.Dataset
    variable: str
    confidence: float
    cases: Mapping[str, str]
    is_seen: Mapping[str, bool | None]

    def __str__(self) -> str:
        """A table for each case, in 80 columns, and what can be said of the law."""
        lines = [f"{self.variable} in the limit M -> infinity: L + beta/M, +- {self.confidence:.0%} interval"]
        for name, case in zip(self.cases, self._parts(), strict=True):
            lines += ["", *([name] if name else []), *_table(case)]
            lines += [line for text in self.cases[name].split("\n") for line in textwrap.wrap(text, 80)]
        return "\n".join(lines)

    def plot(self, **positions: Any) -> "matplotlib.figure.Figure":
        """The curves at each width and their limit over time, and the law at a few times.

        **Arguments:**

        - `positions`: values of the axes other than the width, such as flow="gradient_flow"; needed if there are several.

        **Raises:** `ConfigError` if more than one case is left.
        """
        from ..plots import width_limit_figure

        return width_limit_figure(self.data.sel(positions))

    def _parts(self) -> list[xr.Dataset]:
        others = [str(dim) for dim in self.data["limit"].dims if dim != "time"]
        return [self.data.sel(dict(zip(others, place, strict=True))) for place in _places(self.data, others)]


def infinite_width(
    sweep: xr.Dataset | str | os.PathLike[str],
    variable: str = "train_loss",
    *,
    times: ArrayLike | None = None,
    axis: str | None = None,
    least_width: float | int = 0,
    confidence: float = 0.95,
    **positions: Any,
) -> InfiniteWidth:
    """The limit M -> infinity of a recorded curve, E y_M(t) = L_inf(t) + beta(t)/M, fitted over the widths of a sweep.

    The expectation is over the initial particles, so the seeds of the sweep should vary the model alone: state `problem_seed`
    and `model_seeds`. With `seeds` in their place it is over problems, too, and the result says so. At each time the means over
    the seeds are fitted by least squares with weights from the spread over the seeds at each width. The interval is Student's,
    over the seeds. That means lie on the line at all is tested at each time, so that the result can say no: the smallest widths
    are then to be left out, or larger ones to be added. (The test has power if seeds are many. Blocks of the same particles, by
    an axis over `model.block`, make it sharper: they are averaged in each seed, see docs/infinite_width.md.)

    The limit exists at a fixed flow time only if the flow does not depend on M otherwise than through its particles. This is
    tried at the start of the runs, if the configuration of the sweep is known: a speed of the outputs that scales with M
    (`mobility` that is a number) and a damping that outgrows A (eps that does not fall like 1/M) are refused.

    **Arguments:**

    - `sweep`: the folder of a sweep; the data set that `gnflow.sweep` or `gnflow.load` returns, or a part of it; or curves from
      `gnflow.sweeps.load_curves`.
    - `variable`: anything that the runs recorded as one number at each time.
    - `times`: flow times. By default those that all runs saved (state `saveat` in the configuration). At other times the runs
      are interpolated.
    - `axis`: the axis of the width, by default the one that sets `model.width`.
    - `least_width`: smaller widths are left out.
    - `confidence`: of the interval, between 0 and 1.
    - `positions`: values of other axes to take alone, such as flow="gradient_flow".

    **Raises:** `ConfigError` for a sweep without such an axis, variable or time, fewer than two widths or seeds, and a flow
    that has no limit.

    Sources: the law is Theorem M2 of docs/theorems/mean_field.md; the estimator is derived in docs/infinite_width.md.
    """
    require_number(ConfigError, "confidence", confidence, above=0.0, below=1.0)
    require_number(ConfigError, "least_width", least_width, least=0.0)
    curves = read_width_curves(sweep, variable, axis, positions)
    found: dict[tuple[Any, ...], tuple[Samples, WidthFit]] = {}
    cases: dict[str, str] = {}
    is_seen: dict[str, bool | None] = {}
    for place, case in curves.cases():
        name = ", ".join(str(value) if dim == "flow" else f"{dim}={value}" for dim, value in place.items())
        samples = samples_of(curves, case, times, float(least_width))
        notes = _scaling(curves, place, case, samples) if samples is not None else []
        fit = None if samples is None else fit_widths(samples.widths, samples.values, confidence)
        if samples is not None and fit is not None:
            words, is_seen[name] = _law(samples, fit, confidence)
            found[tuple(place.values())] = samples, fit
            notes = [_runs_in_words(samples, curves), words, *notes, *_integration(case, samples, fit)]
        else:
            is_seen[name] = None
            notes = ["its runs have no time in common; give times = [...], or state saveat in [integration]"]
        cases[name] = "\n".join(notes)
    if not found:
        asked = "" if times is None else f" among {np.atleast_1d(np.asarray(times)).tolist()}"
        raise ConfigError(
            f"the runs of a sweep over widths have no time in common{asked}; state t1 and saveat in [integration] and no stop "
            "rule, or give times that no run ended before."
        )
    return InfiniteWidth(_dataset(found, curves), variable, confidence, cases, is_seen)


def _dataset(found: Mapping[tuple[Any, ...], tuple[Samples, WidthFit]], curves: WidthCurves) -> xr.Dataset:
    """The fits of all cases over the other axes and the union of their times."""
    coords = {dim: curves.curves[dim] for dim in curves.others}
    places = {place: number for number, place in enumerate(_places(curves.curves, curves.others))}
    times = np.unique(np.concatenate([samples.times for samples, _ in found.values()]))
    widths = next(iter(found.values()))[0].widths
    shapes = {name: (len(widths), len(times)) if name in _OVER_WIDTH else (len(times),) for name in _LONG_NAMES}
    arrays = {name: np.full((len(places), *shape), np.nan) for name, shape in shapes.items()}
    for place, (samples, fit) in found.items():
        half = fit.quantile * fit.limit_error
        values = {
            "limit": fit.limit,
            "lower": fit.limit - half,
            "upper": fit.limit + half,
            "standard_error": fit.limit_error,
            "slope": fit.slope,
            "slope_error": fit.slope_error,
            "p_value": fit.p_value,
            "mean": fit.means,
            "mean_error": fit.mean_errors,
        }
        for name, array in arrays.items():
            array[places[place]][..., np.searchsorted(times, samples.times)] = values[name]
    lengths = tuple(curves.curves.sizes[dim] for dim in curves.others)
    attrs = curves.curves[curves.variable].attrs
    variables = {
        name: (
            (*curves.others, *(("width",) if name in _OVER_WIDTH else ()), "time"),
            array.reshape(*lengths, *array.shape[1:]),
            {"long_name": _LONG_NAMES[name], "units": attrs.get("units", "1")},
        )
        for name, array in arrays.items()
    }
    coords |= {
        "time": xr.DataArray(times, dims="time", attrs={"long_name": "flow time", "units": "flow time"}),
        "width": xr.DataArray(widths, dims="width", attrs={"long_name": "width M", "units": "1"}),
    }
    described = {"variable": curves.variable, "long_name": attrs.get("long_name", curves.variable)}
    return xr.Dataset(variables, coords=coords, attrs=described)


def _places(data: xr.Dataset, dims: Sequence[str]) -> list[tuple[Any, ...]]:
    """Every position on some dimensions, with the last one fastest."""
    return list(itertools.product(*(data[dim].to_numpy().tolist() for dim in dims)))


def _runs_in_words(samples: Samples, curves: WidthCurves) -> str:
    widths = ", ".join(f"{width:g}" for width in samples.widths)
    words = [f"widths {widths}", f"{len(samples.values)} seeds"]
    if np.any(samples.num_blocks > 1):
        words.append(f"blocks of particles at each width: {', '.join(map(str, samples.num_blocks))}")
    if samples.num_left_out:
        words.append(f"{samples.num_left_out} seeds left out, without a run at every width")
    if samples.interpolated:
        words.append("interpolated between saved times")
    if curves.spec is not None and len({_seed_of_problem(cell) for cell in curves.spec.cells}) > 1:
        words.append("the mean is over problems too: each seed drew its own (problem_seed keeps one)")
    return "; ".join(words)


def _seed_of_problem(cell: RunSpec) -> int:
    return cell.seed if cell.problem_seed is None else cell.problem_seed


def _law(samples: Samples, fit: WidthFit, confidence: float) -> tuple[str, bool | None]:
    """Whether the law agrees with the widths, in words; and what helps if it does not."""
    if len(samples.widths) == 2:
        return "two widths: the law L + beta/M is assumed, and a third width would test it", None
    tested = np.isfinite(fit.p_value)
    if not np.any(tested):
        return "the law L + beta/M is not tested: the seeds do not differ", None
    place = int(np.nanargmin(fit.p_value))
    overall = _overall(fit)
    found = f"p = {overall:.2g} over all times, least {fit.p_value[place]:.2g} at t = {samples.times[place]:.4g}"
    if overall >= _LEVEL:
        return f"the law L + beta/M agrees with all widths ({found})", True
    words = f"THE LAW L + beta/M IS NOT SEEN on these widths ({found}); the limit is not to be trusted"
    for first in range(1, len(samples.widths) - 2):
        if _overall(fit_widths(samples.widths[first:], samples.values[:, first:], confidence)) >= _LEVEL:
            return f"{words}: without the {first} smallest it is, least_width = {samples.widths[first]:g}", False
    return f"{words}, and leaving out the smallest does not help: add larger widths", False


def _overall(fit: WidthFit) -> float:
    """One p-value for all times, by Cauchy's combination test, which allows for their dependence.

    Source: Liu and Xie 2020, J. Amer. Statist. Assoc. 115, 393.
    """
    p_values = np.clip(fit.p_value[np.isfinite(fit.p_value)], np.finfo(float).tiny, 1 - 1e-9)
    return float(np.arctan2(1.0, np.mean(1 / np.tan(np.pi * p_values))) / np.pi)


def _integration(case: xr.Dataset, samples: Samples, fit: WidthFit) -> list[str]:
    """A note if runs are not integrated accurately enough for the interval."""
    if ESTIMATED_ERROR not in case:
        return []
    errors = case[ESTIMATED_ERROR].to_numpy()
    if not np.any(np.isfinite(errors)):
        return []
    # An error e of the residual, relative, is about 2 e of a loss near its minimum.
    error = 2 * float(np.nanmedian(errors))
    with np.errstate(all="ignore"):
        relative = fit.quantile * fit.limit_error / np.abs(fit.limit)
    smallest = float(np.min(relative[samples.times > 0], initial=math.inf))
    if error <= _OF_THE_HALF_WIDTH * smallest:
        return []
    return [
        f"the runs' own estimate of their integration error is {error:.1g} of a loss, and half an interval as little as "
        f"{smallest:.1g} of it: a smaller rtol in [integration] would tell whether that counts"
    ]


def _scaling(curves: WidthCurves, place: Mapping[str, Any], case: xr.Dataset, samples: Samples | None) -> list[str]:
    """Check how the flow scales with the width, where the configuration is known."""
    spec = curves.spec
    if spec is None or samples is None:
        return ["how the flow scales with the width is not checked: the data set does not hold its configuration"]
    ends = samples.widths[[0, -1]]
    at = {str(name): case[name].item() for name in case.coords if case[name].ndim == 0 and name in spec.dims}
    cells = [_cells(spec, {**at, **place}, curves, width) for width in ends]
    return [require_scaling(*cells, (float(ends[0]), float(ends[1])))]


def _cells(spec: Specification, place: Mapping[str, Any], curves: WidthCurves, width: float) -> list[RunSpec]:
    """The runs of one width, over the seeds."""
    positions = {name: values.tolist() for name, (dim, values, _) in spec.coords().items() if name == dim}
    index: list[Any] = []
    for dim in spec.dims:
        if dim == curves.axis:
            first = int(np.flatnonzero(curves.widths == width)[0])
            index.append(positions[dim].index(curves.curves[dim].to_numpy().tolist()[first]))
        elif dim == "seed":
            index.append(slice(None))
        else:
            index.append(positions[dim].index(place[dim]) if dim in place else 0)
    return [spec.cells[number] for number in spec.grid[tuple(index)]]


def _table(case: xr.Dataset) -> list[str]:
    """The rows of one case, as text."""
    used = np.flatnonzero(np.isfinite(case["limit"].to_numpy()))
    if len(used) > _MANY_ROWS:
        used = used[np.unique(np.linspace(0, len(used) - 1, _MANY_ROWS).round().astype(int))]
    rows = [("time", "L", "+-", "beta", "+-", "p")]
    for number in used:
        point = case.isel(time=number)
        half = float(point["upper"] - point["limit"])
        times = half / float(point["standard_error"]) if float(point["standard_error"]) > 0 else 0.0
        p_value = float(point["p_value"])
        rows.append(
            (
                f"{float(point['time']):.4g}",
                f"{float(point['limit']):.4e}",
                f"{half:.1e}",
                f"{float(point['slope']):.3e}",
                f"{times * float(point['slope_error']):.1e}",
                f"{p_value:.2g}" if np.isfinite(p_value) else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
