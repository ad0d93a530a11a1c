"""Checks of numbers and objects that users pass in. Scalars of Python, NumPy and JAX are numbers; nothing else is.

A number inside a program that JAX traces has no value yet. It was checked outside the program, so it passes.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._arrays import is_key, is_traced
from ._errors import ConfigError, GnflowError
from ._text import shown

_LARGEST = 2**63  # NumPy and JAX have no integers from here on


def require_number(
    error: type[GnflowError],
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    remedy: str = "",
) -> Any:
    """`value` as a finite number within the bounds.

    **Arguments:**

    - `error`: the class of the error to raise.
    - `name`: what the message calls the value.
    - `value`: an integer or floating-point number of Python, NumPy or JAX (with no dimension).
    - `above`, `below`: bounds that the number must not reach.
    - `least`, `most`: bounds that it may reach.
    - `remedy`: a sentence that ends the message.

    **Raises:** `error` with the bounds that were given, also for text, booleans and arrays.
    """
    if is_traced(value):
        return value
    number = _as_float(value)
    # The default bounds are infinite, so they let infinities through; nan fails every comparison.
    if above < number < below and least <= number <= most and math.isfinite(number):
        return number
    finite = "a finite number" if below == most == math.inf else "a number"
    bounds = [
        *([f"above {above:g}"] if above > -math.inf else []),
        *([f"of at least {least:g}"] if least > -math.inf else []),
        *([f"below {below:g}"] if below < math.inf else []),
        *([f"of at most {most:g}"] if most < math.inf else []),
    ]
    raise error(f"{name} = {shown(value)}; expected {finite} {' and '.join(bounds)}".rstrip() + f". {remedy}".rstrip())


def require_integer(
    error: type[GnflowError], name: str, value: Any, *, least: int = 1, most: int = _LARGEST - 1, remedy: str = ""
) -> Any:
    """`value` as an integer from `least` to `most`: an integer of Python, NumPy or JAX (with no dimension).

    **Raises:** `error`, also for text and booleans. For a whole floating-point number (1e3) the message says what to write.
    """
    if is_traced(value):
        return value
    number = _as_integer(value)
    if number is not None and least <= number <= most:
        return number
    upper = f" and at most {most}" if most < _LARGEST - 1 or (number is not None and number > most) else ""
    whole = _as_float(value)
    if number is None and math.isfinite(whole) and whole == int(whole) and abs(whole) < _LARGEST:
        remedy = f"Write {int(whole)}. {remedy}".rstrip()
    raise error(f"{name} = {shown(value)}; expected an integer of at least {least}{upper}. {remedy}".rstrip())


def require_bool(error: type[GnflowError], **values: Any) -> tuple[bool, ...]:
    """The named values, which must be booleans of Python or NumPy, in their order. **Raises:** `error`."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise error(f"{name} = {shown(value)}; expected True or False.")
    return tuple(map(bool, values.values()))


def require_positive_int(error: type[GnflowError], **sizes: Any) -> tuple[Any, ...]:
    """The named sizes as integers of at least one, in their order. **Raises:** `error`."""
    return tuple(require_integer(error, name, size) for name, size in sizes.items())


def require_non_negative(error: type[GnflowError], **values: Any) -> tuple[Any, ...]:
    """The named numbers, each finite and at least zero, in their order. **Raises:** `error`."""
    return tuple(require_number(error, name, value, least=0.0) for name, value in values.items())


def number_field(what: str, *, default: Any = ..., error: type[GnflowError] = ConfigError, **bounds: Any) -> Any:
    """A field of an Equinox module that holds a number, converted and checked as `require_number` does.

    **Arguments:**

    - `what`: its name in messages.
    - `default`: the field's default value. With None the field also accepts None.
    - `error`: the class of the error to raise.
    - `bounds`: the bounds and the remedy of `require_number`.
    """

    def converter(value: Any) -> Any:
        return None if value is None and default is None else require_number(error, what, value, **bounds)

    return _field(converter, default)


def integer_field(
    what: str, *, default: Any = ..., static: bool = False, error: type[GnflowError] = ConfigError, **bounds: Any
) -> Any:
    """A field of an Equinox module that holds an integer, converted and checked as `require_integer` does.

    **Arguments:**

    - `what`, `default`, `error`: as in `number_field`.
    - `static`: whether the number is part of the compiled program.
    - `bounds`: the bounds and the remedy of `require_integer`.
    """

    def converter(value: Any) -> Any:
        return None if value is None and default is None else require_integer(error, what, value, **bounds)

    return _field(converter, default, static=static)


def instance_field(what: str, kind: type, example: str, *, default: Any = ...) -> Any:
    """A field of an Equinox module that holds an object of the class `kind`.

    **Arguments:**

    - `what`: its name in messages.
    - `kind`: the class.
    - `example`: how to write such an object, for messages.
    - `default`: the field's default value. With None the field also accepts None.
    """

    def converter(value: Any) -> Any:
        return None if value is None and default is None else require_instance(ConfigError, what, value, kind, example)

    return _field(converter, default)


def require_instance(error: type[GnflowError], what: str, value: Any, kind: type, example: str) -> Any:
    """`value`, if it is an object of the class `kind`.

    **Raises:** `error`, with the `example`, for anything else. For the class itself the message says that an object is needed.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, type) and issubclass(value, kind):
        raise error(f"{what} is the class {value.__name__}; expected an object of it: {value.__name__}(...).")
    raise error(f"{what} = {shown(value)}; expected {example}.")


def recheck(instance: Any) -> None:
    """Convert and check the fields of an Equinox module that was made without its constructor.

    **Raises:** what the constructor raises.
    """
    # Equinox runs converters and the checks of all ancestors in its own __call__, which object.__new__ leaves out.
    for field in dataclasses.fields(instance):
        converter = field.metadata.get("converter")
        if converter is not None:
            object.__setattr__(instance, field.name, converter(getattr(instance, field.name)))
    for ancestor in type(instance).__mro__:
        if "__check_init__" in vars(ancestor):
            vars(ancestor)["__check_init__"](instance)


def _as_float(value: Any) -> float:
    """`value` as a float; nan if it is not a number."""
    value = _scalar(value)
    # NumPy does not count bfloat16 among the floating-point numbers; Python counts True among the integers.
    is_number = isinstance(value, int | float) or (
        isinstance(value, np.generic)
        and (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer))
    )
    if isinstance(value, bool) or not is_number:
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _as_integer(value: Any) -> int | None:
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        return None
    return operator.index(value)


def _scalar(value: Any) -> Any:
    """An array without dimensions as a NumPy scalar; anything else, random keys too, as it is."""
    is_single = isinstance(value, np.ndarray | jax.Array) and value.shape == () and not is_key(value)
    return np.asarray(value)[()] if is_single else value


def _field(converter: Callable[[Any], Any], default: Any, **options: Any) -> Any:
    given = {} if default is ... else {"default": default}
    return eqx.field(converter=converter, **given, **options)
