"""Checks of sizes and scales that every constructor shares."""

import math

from ._errors import GnflowError


def require_positive_int(error: type[GnflowError], **sizes: int) -> None:
    """Check that each named size is an integer of at least one. **Raises:** `error`."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise error(f"{name} = {size!r}; expected an integer of at least 1.")


def require_non_negative(error: type[GnflowError], **values: float) -> None:
    """Check that each named number is finite and at least zero. **Raises:** `error`."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise error(f"{name} = {value!r}; expected a finite number of at least 0.")
