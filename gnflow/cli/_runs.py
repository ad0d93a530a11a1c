"""Read the trajectories in a folder one by one. Damaged ones are reported and left out."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .._core import GnflowError
from ..config import Specification
from ..simulate import RunData, Trajectory, read_data
from ..sweeps import SweepStore
from ._own_parts import load_with_parts

_Run = TypeVar("_Run")


def read_runs(
    store: SweepStore, spec: Specification, read: Callable[[Path, str], _Run]
) -> tuple[dict[str, _Run], dict[str, str]]:
    """The finished runs of a grid whose trajectories were kept, by content hash, in the order of the grid.

    **Arguments:**

    - `store`: the folder.
    - `spec`: the grid.
    - `read`: reads a run from its folder and its label.

    **Returns:** the runs, and the reasons for those that cannot be read, which are also printed on the standard error output.
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


def read_for_figures(folder: Path, label: str, accepted: Sequence[str] = ()) -> Trajectory | RunData:
    """A saved run, or only its data if the model cannot be rebuilt, with a note on the standard error output.

    `accepted` are digests of changed modules of the user's that are good all the same.

    **Raises:** `RunFolderError` if there is no run or a damaged one.
    """
    try:
        return load_with_parts(folder, accepted)
    except GnflowError as error:
        data = read_data(folder)
        print(f"gnflow: {label} is drawn without what needs its model: {error}", file=sys.stderr)
        return data
