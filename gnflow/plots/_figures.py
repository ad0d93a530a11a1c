"""All figures of a set of runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from .._core import ResultCode
from ..config import RunSpec, Specification
from ..simulate import Trajectory
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


def draw_figures(
    specification: Specification, runs: Sequence[tuple[RunSpec, Trajectory]], folder: str | Path
) -> list[Path]:
    """Draw what the finished runs of a specification allow.

    For each variant: loss, NTK eigenvalues, movement of kernel and features, and the particles' directions (of the
    first seed); over all variants: the regimes. Files are named after the figure and the variant, and drawn anew.

    **Returns:** the files written.
    """
    # A flow or variant without a finished run keeps its place, and so the others their colours.
    flows = list(dict.fromkeys(run.flow_name for run in specification.runs))
    grouped: dict[str, dict[str, list[Trajectory]]] = {
        variant: {flow: [] for flow in flows} for variant in specification.variants
    }
    for run, trajectory in runs:
        grouped[run.variant][run.flow_name].append(trajectory)
    written: list[Path] = []
    for variant, own in grouped.items():
        if any(own.values()):
            suffix = f"-{variant}" if len(grouped) > 1 else ""
            for name, figure in trajectory_figures(own).items():
                written.append(save(figure, Path(folder) / f"{name}{suffix}.png"))
    ends = {
        flow: {variant: [_end(trajectory) for trajectory in own[flow]] for variant, own in grouped.items()}
        for flow in flows
    }
    setting, positions = _swept_setting(specification.variants)
    figure = regime_figure(ends, positions, _LABELS.get(setting, setting)) if runs else None
    if figure is not None:
        written.append(save(figure, Path(folder) / "regimes.png"))
    return written


def trajectory_figures(trajectories: Mapping[str, Sequence[Trajectory]]) -> dict[str, Figure]:
    """The figures of runs from one start, by name: "loss", and "ntk-eigenvalues", "movement" and "directions" where
    measured.

    **Arguments:** `trajectories`: for each flow, its runs over seeds.
    """
    data = {flow: [trajectory.data for trajectory in several] for flow, several in trajectories.items()}
    figures = {
        "loss": loss_figure(data),
        "ntk-eigenvalues": eigenvalue_figure(data),
        "movement": movement_figure(data),
        "directions": _directions(trajectories),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _directions(trajectories: Mapping[str, Sequence[Trajectory]]) -> Figure | None:
    first = {flow: several[0] for flow, several in trajectories.items() if several}
    if not first:
        return None
    start = next(iter(first.values()))
    models: dict[str, Any] = {"start": start.initial_model}
    models |= {f"{flow}, end": trajectory.model for flow, trajectory in first.items()}
    return directions_figure(models, start.problem.teacher)


def _end(trajectory: Trajectory) -> xr.Dataset:
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
