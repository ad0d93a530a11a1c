"""All figures of a set of runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from .._core import ResultCode
from ..config import RunSpec, Specification
from ..simulate import RunData, Trajectory
from ._attempts import OnFailure, attempt
from ._directions import directions_figure
from ._eigenvalues import eigenvalue_figure
from ._loss import loss_figure
from ._movement import movement_figure
from ._regime import regime_figure
from ._style import save

_LABELS = {
    "model.init_scale": r"initialisation scale $\tau_0$",
    "model.width": "width $M$",
    "problem.n_train": "samples $N$",
}
_STOPPED = (ResultCode.STOP_RULE_MET, ResultCode.STOP_RULE_MET_AT_START)


# What is drawn of a run: a `Trajectory`, or what can be read of one whose model cannot be rebuilt.
Run = Trajectory | RunData


def draw_figures(
    specification: Specification,
    runs: Sequence[tuple[RunSpec, Run]],
    folder: str | Path,
    on_failure: OnFailure | None = None,
) -> list[Path]:
    """Draw what the finished runs of a specification allow.

    For each variant: loss, NTK eigenvalues, movement of kernel and features, and the particles' directions (of the
    first seed, where its model is there); over all variants: the regimes. Files are named after the figure and the variant, and
    drawn anew.

    **Arguments:** `on_failure`: called for each figure that cannot be drawn, with its name and the exception; the others are
    drawn all the same. Without it the exception is raised.

    **Returns:** the files written.
    """
    # A flow or variant without a finished run keeps its place, and so the others their colours.
    flows = list(dict.fromkeys(run.flow_name for run in specification.runs))
    grouped: dict[str, dict[str, list[Run]]] = {
        variant: {flow: [] for flow in flows} for variant in variants_of(specification)
    }
    for run, trajectory in runs:
        grouped[run.variant][run.flow_name].append(trajectory)
    written: list[Path] = []
    for variant, own in grouped.items():
        if any(own.values()):
            written += draw_run_figures(own, folder, f"-{variant}" if len(grouped) > 1 else "", on_failure)

    def regimes() -> Figure | None:
        ends = {
            flow: {variant: [_end(trajectory) for trajectory in own[flow]] for variant, own in grouped.items()}
            for flow in flows
        }
        setting, positions = _swept_setting(variants_of(specification))
        return regime_figure(ends, positions, _LABELS.get(setting, setting)) if runs else None

    return written + _save("regimes", regimes, folder, "", on_failure)


def variants_of(specification: Specification) -> dict[str, dict[str, Any]]:
    """By name, what each variant changes, by dotted paths."""
    if not specification.axes:
        return {"base": {}}
    (axis,) = specification.axes
    return {
        name: {".".join(path): value for path, value in changes}
        for name, changes in zip(axis.coordinate, axis.changes, strict=True)
    }


def draw_run_figures(
    trajectories: Mapping[str, Sequence[Run]], folder: str | Path, suffix: str = "", on_failure: OnFailure | None = None
) -> list[Path]:
    """Write the figures of runs from one start.

    **Arguments:** `trajectories`: for each flow, its runs over seeds; `suffix`: of the names of the files; `on_failure`: as of
    `draw_figures`.

    **Returns:** the files written.
    """
    written: list[Path] = []
    for name, make in _makers(trajectories).items():
        written += _save(name, make, folder, suffix, on_failure)
    return written


def trajectory_figures(trajectories: Mapping[str, Sequence[Run]]) -> dict[str, Figure]:
    """The figures of runs from one start, by name: "loss", and "ntk-eigenvalues", "movement" and "directions" where
    measured.

    **Arguments:** `trajectories`: for each flow, its runs over seeds.
    """
    figures = {name: make() for name, make in _makers(trajectories).items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _makers(trajectories: Mapping[str, Sequence[Run]]) -> dict[str, Callable[[], Figure | None]]:
    data = {flow: [trajectory.data for trajectory in several] for flow, several in trajectories.items()}
    return {
        "loss": lambda: loss_figure(data),
        "ntk-eigenvalues": lambda: eigenvalue_figure(data),
        "movement": lambda: movement_figure(data),
        "directions": lambda: _directions(trajectories),
    }


def _save(
    name: str, make: Callable[[], Figure | None], folder: str | Path, suffix: str, on_failure: OnFailure | None
) -> list[Path]:
    """Make a figure and write it, if there is one."""

    def draw() -> list[Path]:
        figure = make()
        return [] if figure is None else [save(figure, Path(folder) / f"{name}{suffix}.png")]

    return attempt(f"{name}{suffix}", draw, on_failure)


def _directions(trajectories: Mapping[str, Sequence[Run]]) -> Figure | None:
    first = {flow: several[0] for flow, several in trajectories.items() if several}
    known = {flow: run for flow, run in first.items() if isinstance(run, Trajectory)}
    if not known:
        return None
    start = next(iter(known.values()))
    models: dict[str, Any] = {"start": start.initial_model}
    models |= {f"{flow}, end": trajectory.model for flow, trajectory in known.items()}
    return directions_figure(models, start.problem.teacher)


def _end(trajectory: Run) -> xr.Dataset:
    return trajectory.data.assign_attrs(converged=trajectory.result.code in _STOPPED)


def _swept_setting(variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, float] | None]:
    """The one numeric setting in which the variants differ, with its values; or no positions."""
    settings = {setting for changes in variants.values() for setting in changes}
    if len(settings) != 1:
        return "variant", None
    (setting,) = settings
    values = {name: changes.get(setting) for name, changes in variants.items()}
    if not _distinct_numbers(values.values()):
        return setting, None
    return setting, {name: float(value) for name, value in values.items() if value is not None}


def _distinct_numbers(values: Iterable[Any]) -> bool:
    listed = list(values)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in listed)
    return numbers and len(set(listed)) == len(listed)
