"""One figure that cannot be drawn does not take the others with it."""

from collections.abc import Callable
from pathlib import Path

# Told the name of a figure, and why it cannot be drawn.
OnFailure = Callable[[str, Exception], None]


def attempt(name: str, draw: Callable[[], list[Path]], on_failure: OnFailure | None) -> list[Path]:
    """The files that `draw` writes; none where it fails and there is somebody to be told.

    **Raises:** what `draw` raises, where there is nobody.
    """
    try:
        return draw()
    except Exception as error:  # of Matplotlib's, for data that nobody has thought of; of the disk
        if on_failure is None:
            raise
        on_failure(name, error)
        return []
