"""The interface of engines, which compute cells."""

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
    """True: every cell is wanted."""
    return True


def require_engine_options(
    workers: Any, memory_gib: Any, retries: Any, compilation_cache: Any, **others: Any
) -> bool | Path:
    """Check the options that engines share.

    **Arguments:**

    - `workers`, `memory_gib`, `retries`, `compilation_cache`: as for `LocalEngine`; None stands for a default.
    - `others`: further options that are positive integers or None.

    **Returns:** the setting of the cache of compiled programs, with a path for a folder.

    **Raises:** `ConfigError` for a number out of range or a value of another type.
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
    """Computes cells, in any order, and yields their outcomes as they finish.

    An engine keeps nothing on disk: `gnflow.sweep` puts each outcome into the store. An engine may be used again.
    """

    @abc.abstractmethod
    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Yield the outcomes of the cells as they finish, one for each cell that is computed.

        A cell that fails has an outcome that says so (`CellOutcome.record["code"]`), and does not stop the others. Closing the
        iterator (leaving the loop, an exception, Ctrl-C) ends whatever is running and frees the engine's resources.

        **Arguments:**

        - `cells`: the cells, with different content hashes, in the order in which they should be started if nothing else
          matters.
        - `wanted`: called just before a cell is started. It returns False if the cell need not be computed any more, because
          another process has finished it meanwhile.

        **Raises:** `ConfigError` if the engine cannot be started on this machine.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """The engine in a few words for a person: what runs where."""
