"""Plain tables as in TOML. Values that no entry of a specification can have are refused before any other check."""

import datetime
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._core import ConfigError

MOST_RUNS = 1_000_000  # runs in a specification; each is a table in memory and a file on the disk
_DEEPEST = 32  # levels of tables and arrays; a specification has six
_LONGEST_TEXT = 4096  # characters, as in the longest path that file systems allow
_LONGEST_NAME = 300  # characters of a dotted path
_SHOWN = 80  # characters of a value in a message
_INTEGERS = 2**63  # bound of integers in 64 bits


def shown(value: Any) -> str:
    """`value` as a message shows it: its Python representation, shortened if it is long."""
    text = repr(value[: _SHOWN + 1] if isinstance(value, str | list | tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def require_plain(table: Any, path: str = "") -> None:
    """Check that a specification can contain `table`, at any depth.

    **Arguments:**

    - `table`: a table or value.
    - `path`: its path, for messages.

    **Raises:** `ConfigError` for integers beyond 64 bits, nan, dates, NUL characters, text of more than 4096 characters, empty
    names, values of other types, and more than 32 levels. It names the entry, the value and what was expected.
    """
    waiting = [(table, path, 1)]
    while waiting:
        value, at, depth = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            if depth > _DEEPEST:
                raise ConfigError(f"{_start(at)} is nested more than {_DEEPEST} levels deep; write it flatter.")
            waiting += [(item, where, depth + 1) for item, where in _entries(value, at)]
        else:
            _require_plain_value(value, at)


def as_plain(value: Any, depth: int = 1) -> Any:
    """`value` with Python's numbers and lists in the place of NumPy's numbers and arrays, and of tuples.

    **Raises:** `ConfigError` for too many levels or values.
    """
    if depth > _DEEPEST:
        raise ConfigError(f"the table is nested more than {_DEEPEST} levels deep; write it flatter.")
    if isinstance(value, Mapping | list | tuple) and len(value) > MOST_RUNS:
        raise ConfigError(f"an entry of the table has {len(value)} values; expected at most {MOST_RUNS}.")
    if isinstance(value, Mapping):
        return {key: as_plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item, depth + 1) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def require_few_runs(*counts: tuple[str, int]) -> None:
    """Check the number of runs before they are made.

    **Arguments:**

    - `counts`: the factors of the number, each with its name.

    **Raises:** `ConfigError` that states the number if there are too many.
    """
    number = math.prod(count for _, count in counts)
    if number > MOST_RUNS:
        several = " x ".join(f"{count} {name}" for name, count in counts)
        factors = several if len(counts) > 1 else "".join(name for name, _ in counts)
        raise ConfigError(f"{factors} = {number} runs; expected at most {MOST_RUNS}. Take fewer values.")


def _entries(value: Any, at: str) -> Iterator[tuple[Any, str]]:
    if len(value) > MOST_RUNS:
        raise ConfigError(f"{_start(at)} has {len(value)} entries; expected at most {MOST_RUNS}. Take fewer values.")
    if not isinstance(value, Mapping):
        for index, item in enumerate(value):
            yield item, f"{at}[{index}]"
        return
    for key, item in value.items():
        if not isinstance(key, str) or not key or not key.isprintable() or len(key) > _LONGEST_NAME:
            raise ConfigError(
                f"{_start(at) or 'the table'} has an entry named {shown(key)}; expected a name of 1 to {_LONGEST_NAME} "
                "characters that can be printed."
            )
        yield item, f"{at}.{key}" if at else key


def _require_plain_value(value: Any, at: str) -> None:
    if isinstance(value, str):
        _require_text(value, at)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if not -_INTEGERS <= value < _INTEGERS:
            raise ConfigError(
                f"{at} = {_short(value)}; expected an integer that 64 bits hold, at most 9223372036854775807."
            )
    elif isinstance(value, float):
        if math.isnan(value):
            raise ConfigError(
                f"{at} = nan; expected a value that means something: leave the entry out for its default."
            )
    elif isinstance(value, datetime.date | datetime.time):
        raise ConfigError(f"{at} = {value} is a date or a time, which no entry takes; in quotes it is text.")
    else:
        raise ConfigError(
            f"{at} = {shown(value)} is a {type(value).__name__}; expected text, a number, a boolean, an array or a table."
        )


def _require_text(text: str, what: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(f"{what} = {shown(text)} has {len(text)} characters; expected at most {_LONGEST_TEXT}.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{what} = {shown(text)} holds a NUL character or bytes that are no text; leave them out.")


def _short(value: int) -> str:
    # Python refuses to write out integers of thousands of digits.
    return str(value) if abs(value) < 10**40 else f"an integer of {value.bit_length()} bits"


def _start(at: str) -> str:
    return at if len(at) <= 4 * _SHOWN else f"{at[:_SHOWN]}..."
