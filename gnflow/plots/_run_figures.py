"""Figures of runs that begin alike: curves of several flows, with their seeds."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..simulate import RunData, Trajectory
from ._attempts import OnFailure, attempt
from ._directions import directions_figure
from ._eigenvalues import eigenvalue_figure
from ._loss import loss_figure
from ._movement import movement_figure
from ._residuals import residuals_figure
from ._style import Runs, save

# A run to draw: a `Trajectory`, or its data if the model cannot be rebuilt.
Run = Trajectory | RunData
RunsOfFlows = Mapping[str, Sequence[Run]]  # for each flow its runs over seeds


def _of_data(draw: Callable[[Runs], Figure | None]) -> Callable[[RunsOfFlows], Figure | None]:
    """A figure of runs from a figure of their data."""
    return lambda runs: draw({flow: [run.data for run in several] for flow, several in runs.items()})


def _directions(runs: RunsOfFlows) -> Figure | None:
    first = {flow: several[0] for flow, several in runs.items() if several}
    known = {flow: run for flow, run in first.items() if isinstance(run, Trajectory)}
    if not known:
        return None
    start = next(iter(known.values()))
    models: dict[str, Any] = {"start": start.initial_model}
    models |= {f"{flow}, end": trajectory.model for flow, trajectory in known.items()}
    return directions_figure(models, start.problem.teacher)


# The figures by the names of their files. A function that returns None draws nothing. A new figure of a run is one more line.
RUN_FIGURES: dict[str, Callable[[RunsOfFlows], Figure | None]] = {
    "loss": _of_data(loss_figure),
    "ntk-eigenvalues": _of_data(eigenvalue_figure),
    "movement": _of_data(movement_figure),
    "directions": _directions,
    "residuals": _of_data(residuals_figure),
}


def draw_run_figures(
    runs: RunsOfFlows, folder: str | Path, suffix: str = "", on_failure: OnFailure | None = None
) -> list[Path]:
    """Write the figures of runs that begin alike.

    **Arguments:**

    - `runs`: for each flow its runs over seeds.
    - `folder`: where to write.
    - `suffix`: the end of the names of the files.
    - `on_failure`: as for `draw_figures`.

    **Returns:** the files written.
    """
    written: list[Path] = []
    for name, make in RUN_FIGURES.items():
        written += write_figure(f"{name}{suffix}", partial(make, runs), Path(folder), on_failure)
    return written


def trajectory_figures(trajectories: RunsOfFlows) -> dict[str, Figure]:
    """The figures of runs that begin alike, by name: "loss", and if measured "ntk-eigenvalues", "movement", "directions".

    **Arguments:**

    - `trajectories`: for each flow its runs over seeds.
    """
    figures = {name: make(trajectories) for name, make in RUN_FIGURES.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def write_figure(
    name: str, make: Callable[[], Figure | None], folder: Path, on_failure: OnFailure | None
) -> list[Path]:
    """Make a figure and write it as `name`.png, if there is one."""

    def draw() -> list[Path]:
        figure = make()
        return [] if figure is None else [save(figure, folder / f"{name}.png")]

    return attempt(name, draw, on_failure)
