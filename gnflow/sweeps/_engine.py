"""What carries cells out: the interface that every engine has."""

import abc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._core import ConfigError, as_path, require_number, require_positive_int, shown
from ..config import RunSpec
from ._cell import CellOutcome

_MOST = 100_000  # workers, threads or attempts

Wanted = Callable[[RunSpec], bool]


def every_cell(cell: RunSpec) -> bool:
    """Whether a cell is wanted: each is."""
    return True


def require_engine_options(
    workers: Any, memory_gib: Any, retries: Any, compilation_cache: Any, **others: Any
) -> bool | Path:
    """Check what engines have in common; None is for a default, and `others` are positive integers.

    **Returns:** the setting of the cache of compiled programs, a folder as a path.

    **Raises:** `ConfigError` for a number out of range, and for anything of another type.
    """
    given = {name: number for name, number in {"workers": workers, **others}.items() if number is not None}
    require_positive_int(ConfigError, **given)
    for name, number in given.items():
        if number > _MOST:
            raise ConfigError(f"{name} = {shown(number)}; expected at most {_MOST}.")
    if memory_gib is not None:
        require_number(ConfigError, "memory_gib", memory_gib, above=0.0, remedy="It is in GiB.")
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= _MOST:
        raise ConfigError(f"retries = {shown(retries)}; expected an integer of at least 0, and at most {_MOST}.")
    if isinstance(compilation_cache, bool):
        return compilation_cache
    return as_path(compilation_cache, "compilation_cache", ConfigError)


class AbstractEngine(abc.ABC):
    """Carries cells out, in any order, and hands their outcomes over as they come.

    An engine keeps nothing on disk; `gnflow.sweep` puts each outcome into the store. An engine may be used again.
    """

    @abc.abstractmethod
    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Outcomes of the cells, one for each that is carried out, as they finish.

        A cell that fails has an outcome that says so (`CellOutcome.record["code"]`); it does not stop the others. Closing the
        iterator (leaving the loop, an exception, Ctrl-C) ends whatever is running and frees what the engine holds.

        **Arguments:** `cells`: to carry out, no two of one content hash, in the order in which they should be started,
        other things being equal; `wanted`: asked just before a cell is started, and
        False for one that need not be computed any more, because another process has finished it meanwhile.

        **Raises:** `ConfigError` if the engine cannot be started on this machine.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """The engine in a few words, for a person: what runs where."""
