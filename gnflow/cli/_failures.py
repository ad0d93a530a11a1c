"""Report figures that could not be drawn, in one line each and without a traceback."""

import sys

from .._core import on_one_line

_LONGEST_REASON = 300  # characters


class Failures:
    """The failures so far.

    **Attributes:**

    - `names`: the names of the figures.
    """

    def __init__(self):
        self.names: list[str] = []

    def tell(self, name: str, error: Exception) -> None:
        """Print why a figure could not be drawn, and remember it."""
        self.names.append(name)
        reason = on_one_line(error, _LONGEST_REASON)
        print(f"gnflow: the figure {name} cannot be drawn: {type(error).__name__}: {reason}", file=sys.stderr)
