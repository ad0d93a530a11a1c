"""The command `gnflow`: find the verb, call it, turn errors into one clear line and an exit code."""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from .. import __version__
from ._compare import compare
from ._plot import plot
from ._run import run
from ._start import one_line
from ._sweep import sweep
from ._verify import verify

_VERBS: dict[str, Callable[..., int]] = {"run": run, "sweep": sweep, "verify": verify, "plot": plot, "compare": compare}
_BAD_INPUT = 2
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    **Arguments:**

    - `arguments`: the arguments without the program's name; those of the process by default.

    **Returns:** the exit code: 0, or 1 if a run or a cell failed, 2 for bad input, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be valid text
    try:
        code = _call_verb(given)
        sys.stdout.flush()
        return code
    except OSError as error:
        # Verbs handle the other errors themselves, so this one is about the output: it was closed, or the disk is full.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # keeps Python from failing again at its end
        print(f"gnflow: the output cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 1


class _Told:
    """Shows gnflow's own warnings as one line, once for all seeds and sizes: numbers in the text do not make it another."""

    def __init__(self, otherwise: Callable[..., None]):
        self._otherwise = otherwise
        self._texts: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not category.__module__.startswith("gnflow."):
            return self._otherwise(message, category, *where, **more)
        text = re.sub(r"[\d.]+(e[+-]\d+)?", "", str(message))
        if text not in self._texts:
            self._texts.add(text)
            print(one_line(f"gnflow: warning: {message}"), file=sys.stderr)


def _call_verb(given: list[str]) -> int:
    """Call the verb that the arguments name. **Returns:** the exit code."""
    if given == ["--version"]:
        print(f"gnflow {__version__}")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _Told(warnings.showwarning)
            return tyro.extras.subcommand_cli_from_dict(
                _VERBS,
                prog="gnflow",
                description="Training in continuous time: gradient flows and Gauss-Newton flows of networks. "
                "`gnflow --version` says which gnflow this is.",
                args=given,
            )
    except KeyboardInterrupt:
        print(
            "gnflow: interrupted; what is finished is kept, and the same command goes on (gnflow run: with --resume).",
            file=sys.stderr,
        )
        return _INTERRUPTED
    except Exception as error:
        from .._core import GnflowError  # not above: it loads JAX, which `--help` does not need

        if not isinstance(error, GnflowError):
            raise
        print(one_line(f"gnflow: error: {error}"), file=sys.stderr)
        return _BAD_INPUT
