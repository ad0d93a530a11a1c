"""What every verb does first: a line on the screen, then the numerics in double precision."""

import os
import sys

_CACHE = "GNFLOW_COMPILATION_CACHE"  # "off" leaves JAX's configuration as it is


def start(doing: str, quiet: bool = False) -> None:
    """Say on standard error what is being done, then load JAX, which takes a second or two.

    A verb's own file holds its options and calls this; what it does is in another file, imported after this. So `--help` loads
    nothing, and the first line does not wait.

    **Arguments:** `doing`: what, as a phrase; `quiet`: say nothing.
    """
    if not quiet:
        print(one_line(f"gnflow: {doing}"), file=sys.stderr, flush=True)
    import jax

    # Before any array is made: everything is computed in double precision.
    jax.config.update("jax_enable_x64", True)

    from .._core import compilation_cache

    if os.environ.get(_CACHE) != "off":
        compilation_cache()


def one_line(text: str) -> str:
    """`text` with line breaks and other characters that cannot be printed (of names of files) written as Python does."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
