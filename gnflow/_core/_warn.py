"""Warnings that point to the user's own line."""

import sys
import warnings

_NOT_THE_USERS = (
    "gnflow",
    "equinox",
    "jaxtyping",
)  # equinox calls constructors; jaxtyping may check what they are given


class DataWarning(UserWarning):
    """Data with which a run may be slow or inaccurate, or of which a part is of no use."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line of the user's that led here: the first one that is not in gnflow or in what calls it."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
