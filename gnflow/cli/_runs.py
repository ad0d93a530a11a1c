"""The runs that a folder holds whole, read one by one; what is damaged is told and left out."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .._core import GnflowError
from ..config import Specification
from ..simulate import RunData, Trajectory, load, read_data
from ..sweeps import SweepStore

_Run = TypeVar("_Run")


def read_runs(
    store: SweepStore, spec: Specification, read: Callable[[Path, str], _Run]
) -> tuple[dict[str, _Run], dict[str, str]]:
    """The finished runs of a grid whose trajectories were kept, by content hash, in its order.

    **Arguments:** `read`: takes a run's folder and its label.

    **Returns:** the runs, and for those that cannot be read the reason, which the standard error output says too.
    """
    there = store.trajectories.finished()
    found: dict[str, _Run] = {}
    damaged: dict[str, str] = {}
    for content_hash, cell in zip(spec.hashes, spec.cells, strict=True):
        if content_hash not in there:
            continue
        try:
            found[content_hash] = read(there[content_hash].place, cell.label)
        except GnflowError as error:
            damaged[content_hash] = f"{type(error).__name__}: {error}"
            print(f"gnflow: {cell.label} is left out: {error}", file=sys.stderr)
    return found, damaged


def read_for_figures(folder: Path, label: str) -> Trajectory | RunData:
    """A saved run, or without its model where that cannot be rebuilt, which the standard error output says.

    **Raises:** `RunFolderError` if there is no run, or a damaged one.
    """
    try:
        return load(folder)
    except GnflowError as error:
        data = read_data(folder)
        print(f"gnflow: {label} is drawn without what needs its model: {error}", file=sys.stderr)
        return data
