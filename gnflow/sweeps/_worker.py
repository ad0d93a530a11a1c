"""A worker: cells come in, outcomes go out. It keeps nothing, so it may be killed at any time."""

import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

import jax

from .._core import forget_compiled_programs
from ..config import RunSpec
from ._cell import CellOutcome, carry_out

READY = "ready"


def work(table: Mapping[str, Any]) -> CellOutcome:
    """Carry out the cell with this table (`RunSpec.to_dict`), whichever engine's process this is."""
    jax.config.update("jax_enable_x64", True)
    outcome = carry_out(RunSpec.from_dict(table))
    forget_compiled_programs()
    return outcome


def serve() -> None:
    """The main program of a local worker: pickled tables of cells on standard input, pickled outcomes on standard output.

    It ends at once when its standard input is closed, by an engine that is done or by the death of the engine's process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's to answer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the replies
    tables: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, tables), daemon=True).start()
    _send(READY, replies)
    while True:
        _send(work(tables.get()), replies)


def _receive(source: IO[bytes], tables: "queue.SimpleQueue[Any]") -> None:
    # A thread of its own, so that the end of the input is noticed in the middle of a cell.
    while True:
        try:
            tables.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _send(message: Any, replies: IO[bytes]) -> None:
    pickle.dump(message, replies, protocol=pickle.HIGHEST_PROTOCOL)
    replies.flush()
