"""What carries cells out: the interface that every engine has."""

import abc
from collections.abc import Callable, Iterator, Sequence

from ..config import RunSpec
from ._cell import CellOutcome

Wanted = Callable[[RunSpec], bool]


def every_cell(cell: RunSpec) -> bool:
    """Whether a cell is wanted: each is."""
    return True


class AbstractEngine(abc.ABC):
    """Carries cells out, in any order, and hands their outcomes over as they come.

    An engine keeps nothing on disk; `gnflow.sweep` puts each outcome into the store. An engine may be used again.
    """

    @abc.abstractmethod
    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Outcomes of the cells, one for each that is carried out, as they finish.

        A cell that fails has an outcome that says so (`CellOutcome.record["code"]`); it does not stop the others. Closing the
        iterator (leaving the loop, an exception, Ctrl-C) ends whatever is running and frees what the engine holds.

        **Arguments:** `cells`: to carry out, no two of one content hash; `wanted`: asked just before a cell is started, and
        False for one that need not be computed any more, because another process has finished it meanwhile.

        **Raises:** `ConfigError` if the engine cannot be started on this machine.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """The engine in a few words, for a person: what runs where."""
