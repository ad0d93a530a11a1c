"""The worker of an engine. It receives cells, returns outcomes and keeps nothing, so it may be killed at any time."""

import io
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from typing import IO, Any

import jax

from .._core import ConfigError, DataWarning, forget_compiled_programs
from ..config import RunSpec, Source, import_exactly
from ._cell import CellOutcome, outcome_of_error, run_cell

READY = "ready"
_LENGTH = struct.Struct("<Q")  # before each message: its number of bytes
_LARGEST_READ = 2**20  # bytes; a length that was not sent by a worker must not reserve all memory at once


def work(table: Mapping[str, Any], sources: Iterable[Source] = ()) -> CellOutcome:
    """Compute a cell in a worker of any engine.

    **Arguments:**

    - `table`: the table of the cell (`RunSpec.to_dict`).
    - `sources`: the modules of the user's that it needs, as the driver of the sweep has them. The worker imports the same.
    """
    jax.config.update("jax_enable_x64", True)
    cell = RunSpec.from_dict(table)
    try:
        for source in sources:
            import_exactly(source)
    except ConfigError as error:
        return outcome_of_error(cell, error)
    outcome = run_cell(cell)
    forget_compiled_programs()
    return outcome


def serve() -> None:
    """The main program of a local worker, with pickled tables of cells on standard input and outcomes on standard output.

    It ends at once when its standard input is closed, by an engine that is done or by the death of the engine's process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine handles Ctrl-C
    warnings.simplefilter(
        "ignore", DataWarning
    )  # the process of the engine has made the problems, too, and warned of them
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error, so that it cannot mix with the replies
    tables: queue.SimpleQueue[tuple[Mapping[str, Any], Iterable[Source]]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, tables), daemon=True).start()
    send(READY, replies)
    while True:
        send(work(*tables.get()), replies)


def _receive(source: IO[bytes], tables: "queue.SimpleQueue[Any]") -> None:
    # It runs in a thread, so that the end of the input is noticed also in the middle of a cell.
    while True:
        try:
            tables.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def send(message: Any, replies: IO[bytes]) -> None:
    """Write a message for `receive`: its length, then the pickled message."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    replies.write(_LENGTH.pack(len(content)) + content)
    replies.flush()


def receive(replies: io.RawIOBase) -> Any:
    """Wait for the next message, and read no byte beyond it.

    **Arguments:**

    - `replies`: an unbuffered stream. In a buffer further messages could be hidden from a wait for the stream.

    **Raises:** `EOFError` if the stream ends before the message does; `pickle.UnpicklingError` for other bytes.
    """
    (length,) = _LENGTH.unpack(_exactly(replies, _LENGTH.size))
    return pickle.loads(_exactly(replies, length))


def _exactly(replies: io.RawIOBase, length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        part = replies.read(min(length - len(content), _LARGEST_READ))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
