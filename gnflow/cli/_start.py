"""What every verb does first: print a line, then load JAX in double precision."""

import os
import sys

_CACHE = "GNFLOW_COMPILATION_CACHE"  # "off" leaves JAX's configuration as it is


def start(doing: str, quiet: bool = False) -> None:
    """Print on standard error what is being done, then load JAX, which takes a second or two.

    The file of a verb holds its options and calls this function. What the verb does is in another file, which is imported
    afterwards. So `--help` loads nothing, and the first line is printed at once.

    **Arguments:**

    - `doing`: what is being done, as a phrase.
    - `quiet`: whether to print nothing.
    """
    if not quiet:
        print(one_line(f"gnflow: {doing}"), file=sys.stderr, flush=True)
    import jax

    # Everything is computed in double precision, which must be set before any array is made.
    jax.config.update("jax_enable_x64", True)

    from .._core import compilation_cache

    if os.environ.get(_CACHE) != "off":
        compilation_cache()


def one_line(text: str) -> str:
    """`text` with escapes for line breaks and other characters that cannot be printed, as in names of files."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
