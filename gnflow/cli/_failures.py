"""Figures that could not be drawn: a line for each, and no traceback."""

import sys

_LONGEST_REASON = 300  # characters


class Failures:
    """Those so far. **Attributes:** `names`: of the figures."""

    def __init__(self):
        self.names: list[str] = []

    def tell(self, name: str, error: Exception) -> None:
        """Print why a figure could not be drawn, and remember it."""
        self.names.append(name)
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        print(f"gnflow: the figure {name} cannot be drawn: {type(error).__name__}: {reason}", file=sys.stderr)
