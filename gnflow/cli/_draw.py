"""What `gnflow plot` does: the figures of a folder, whichever kind it is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from .._core import ConfigError, RunFolderError, as_path
from ..plots import draw_figures, draw_sweep_figures, save, trajectory_figures
from ..simulate import RUN_FILE, load
from ..sweeps import SWEEP_FILE, load_curves, load_sweep
from ._folder import RunFolder

_LOSSES = ("train_loss", "test_loss")
_PARTICLES = ("particle_hidden_weight", "particle_output_weight", "teacher_hidden_weight")


def draw(
    folder: str,
    *,
    x: str | None,
    y: str | None,
    over: str | None,
    variables: Sequence[str],
    reference: str | None,
    curves: bool,
) -> int:
    """Draw the figures of `folder` and print where they are.

    **Arguments:** those of the command line. **Returns:** the exit code.
    """
    place = as_path(folder, "the folder", RunFolderError)
    figures = place / "figures"
    try:
        if (place / SWEEP_FILE).is_file():
            dataset = load_sweep(place)
            written = draw_sweep_figures(
                dataset,
                figures,
                x=x,
                y=y,
                over=over,
                variables=variables or None,
                reference=reference,
                curves=_curves(place, dataset) if curves else None,
            )
        else:
            _refuse_options(place, x=x, y=y, over=over, variable=variables, reference=reference, curves=curves)
            written = _draw_runs(place, figures)
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"the figures cannot be written to {figures}: {error}.") from error
    for path in written:
        print(path)
    return 0


def _curves(folder: Path, dataset: xr.Dataset) -> xr.Dataset:
    """The losses along the runs, and the particles where they were recorded."""
    metrics = json.loads(dataset.attrs["configuration"]).get("metrics", [])
    names = [entry if isinstance(entry, str) else entry.get("kind") for entry in metrics]
    losses = [name for name in _LOSSES if name in dataset]
    return load_curves(folder, losses, optional=_PARTICLES if "particles" in names else ())


def _draw_runs(folder: Path, figures: Path) -> list[Path]:
    if (folder / RUN_FILE).is_file():
        drawn = trajectory_figures({folder.resolve().name: [load(folder)]})
        return [save(figure, figures / f"{name}.png") for name, figure in drawn.items()]
    runs = RunFolder(folder)
    specification = runs.read_specification()
    return draw_figures(specification, runs.load(specification), runs.figures)


def _refuse_options(folder: Path, **options: Any) -> None:
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise ConfigError(f"{', '.join(given)} are for the folder of a sweep, and {folder} is none; leave them out.")
