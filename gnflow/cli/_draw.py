"""What `gnflow plot` does: draw the figures of a folder with one run or a grid of runs."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from .._core import ConfigError, RunFolderError, as_path, make_writable
from ..config import Specification
from ..plots import draw_figures, draw_run_figures
from ..simulate import RUN_FILE
from ..sweeps import SweepStore, load_curves, load_sweep
from ._draw_limits import draw_limits
from ._failures import Failures
from ._own_parts import import_for
from ._runs import read_for_figures, read_runs

_LOSSES = ("train_loss", "validation_loss", "test_loss")
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
    imports: Sequence[str],
    accept_digests: Sequence[str],
) -> int:
    """Draw the figures of `folder` and print where they are.

    A figure that cannot be drawn is named on the standard error output, and the others are still drawn. The arguments are those
    of the command line.

    **Returns:** the exit code, 1 if a figure could not be drawn.
    """
    place = as_path(folder, "the folder", RunFolderError)
    figures = place / "figures"
    failures = Failures()
    import_for([place], imports, accept_digests)
    if (place / RUN_FILE).is_file():
        _refuse_options(place, x=x, y=y, over=over, variable=variables, reference=reference, curves=curves)
        name = place.resolve().name
        run = read_for_figures(place, name, accept_digests)
        make_writable(figures)
        written = draw_run_figures({name: [run]}, figures, on_failure=failures.tell)
    else:
        dataset = load_sweep(place)
        spec = Specification.from_dict(json.loads(dataset.attrs["configuration"]))
        runs, _ = read_runs(SweepStore(place), spec, functools.partial(read_for_figures, accepted=accept_digests))
        make_writable(figures)
        written = draw_figures(
            dataset,
            figures,
            runs=runs or None,
            x=x,
            y=y,
            over=over,
            variables=variables or None,
            reference=reference,
            curves=_curves(place, dataset) if curves else None,
            on_failure=failures.tell,
        )
        if curves:
            written += draw_limits(dataset, figures, failures)
    for path in written:
        print(path)
    return 1 if failures.names else 0


def _curves(folder: Path, dataset: xr.Dataset) -> xr.Dataset:
    """The losses along the runs, and the particles if they were recorded."""
    metrics = json.loads(dataset.attrs["configuration"]).get("metrics", [])
    names = [entry if isinstance(entry, str) else entry.get("kind") for entry in metrics]
    losses = [name for name in _LOSSES if name in dataset]
    return load_curves(folder, losses, optional=_PARTICLES if "particles" in names else ())


def _refuse_options(folder: Path, **options: Any) -> None:
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise ConfigError(
            f"{', '.join(given)} are for the folder of several runs, and {folder} is one; leave them out."
        )
