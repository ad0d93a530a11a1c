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
        require_number(error, name, value, least=0.0)


def require_number(
    error: type[GnflowError],
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    remedy: str = "",
) -> None:
    """Check that a named number is finite, above `above`, at least `least` and below `below`.

    **Raises:** `error` with the bounds that were given, and the `remedy`, a sentence.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if above < number < below and number >= least and math.isfinite(number):
        return
    finite = "a finite number" if below == math.inf else "a number"
    bounds = [
        *([f"above {above:g}"] if above > -math.inf else []),
        *([f"of at least {least:g}"] if least > -math.inf else []),
        *([f"below {below:g}"] if below < math.inf else []),
    ]
    raise error(f"{name} = {value!r}; expected {finite} {' and '.join(bounds)}. {remedy}".rstrip())
