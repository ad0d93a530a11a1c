"""The command `gnflow`: find the verb, call it, turn errors into one clear line and an exit code."""

import sys
from collections.abc import Callable, Sequence

import jax
import tyro

from .._core import GnflowError
from ._plot import plot
from ._run import run
from ._sweep import sweep
from ._verify import verify

_VERBS: dict[str, Callable[..., int]] = {"run": run, "sweep": sweep, "verify": verify, "plot": plot}
_BAD_INPUT = 2
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    **Arguments:** `arguments`: without the program's name; those of the process by default.

    **Returns:** the exit code: 0, or 1 if a run or a cell failed, 2 for bad input, 130 after Ctrl-C.
    """
    # Before any array is made: everything is computed in double precision.
    jax.config.update("jax_enable_x64", True)
    try:
        return tyro.extras.subcommand_cli_from_dict(
            _VERBS,
            prog="gnflow",
            description="Training in continuous time: gradient flows and Gauss-Newton flows of networks.",
            args=arguments,
        )
    except GnflowError as error:
        print(f"gnflow: error: {error}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print(
            "gnflow: interrupted; what is finished is kept, and the same command goes on (gnflow run: with --resume).",
            file=sys.stderr,
        )
        return _INTERRUPTED
