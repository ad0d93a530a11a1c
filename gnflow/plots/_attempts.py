"""Attempts to draw: if one figure cannot be drawn, the others still are."""

from collections.abc import Callable
from pathlib import Path

# Called with the name of a figure and the exception that kept it from being drawn.
OnFailure = Callable[[str, Exception], None]


def attempt(name: str, draw: Callable[[], list[Path]], on_failure: OnFailure | None) -> list[Path]:
    """The files that `draw` writes. If it fails, `on_failure` is called, and there are none.

    **Raises:** the exception of `draw` if `on_failure` is None.
    """
    try:
        return draw()
    except Exception as error:  # from Matplotlib, for data that nobody has thought of, or from the disk
        if on_failure is None:
            raise
        on_failure(name, error)
        return []
