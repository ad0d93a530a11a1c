"""The engine's end of a local worker process."""

import contextlib
import io
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

from ._cell import CellOutcome
from ._task import Task
from ._worker import READY, receive

_PATIENCE = 2.0  # seconds for a worker to end by itself


class WorkerDiedError(Exception):
    """A worker ended; the text says how. `ready` is False if it ended before it could take cells."""

    def __init__(self, how: str, ready: bool):
        super().__init__(how)
        self.ready = ready


class WorkerProcess:
    """A process that computes one task at a time.

    It is a plain subprocess and not one of `multiprocessing`. So its environment is complete before the first import, and the
    user's main module is not imported again: a script needs no `if __name__ == "__main__"`.

    **Arguments:**

    - `environment`: the whole environment of the process.
    """

    def __init__(self, environment: Mapping[str, str]):
        program = f"import sys; sys.path[:] = {sys.path!r}; from gnflow.sweeps._worker import serve; serve()"
        # The worker has its own session: Ctrl-C in the terminal reaches only the engine, which then ends its workers.
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        self._ready = False
        self.task: Task | None = None
        self.program: str | None = None

    def fileno(self) -> int:
        """The descriptor for `multiprocessing.connection.wait`, which is readable when there is something to receive."""
        return self._output.fileno()

    def start(self, task: Task) -> None:
        """Hand over a task. `receive` then returns its outcome."""
        self.task, self.program = task, task.program
        # If the worker has died meanwhile, `receive` will notice.
        with contextlib.suppress(OSError):
            pickle.dump((task.cell.to_dict(), task.sources), self._input)
            self._input.flush()

    def receive(self) -> CellOutcome | None:
        """Wait for the outcome. None means that the worker only reports that it is ready. **Raises:** `WorkerDiedError`."""
        try:
            message = receive(self._output)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise WorkerDiedError(self._how_it_ended(), self._ready) from error
        if message == READY:
            self._ready = True
            return None
        self.task = None
        return message

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with contextlib.suppress(OSError):  # closing may try to write what a dead worker did not read
            self._input.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "it sent what is no outcome"
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps because the machine was short of memory" if code == -signal.SIGKILL else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with exit code {code}"

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> io.RawIOBase:
        # The raw stream without its buffer: a second message in the buffer would go unnoticed by a wait for the descriptor.
        assert isinstance(self._process.stdout, io.BufferedReader)
        return self._process.stdout.raw
