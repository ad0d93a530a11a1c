"""Text for people: values in messages, rows in columns."""

from collections.abc import Sequence
from typing import Any

import jax

_LONGEST = 120  # characters of a value in a message


def written(value: Any) -> str:
    """`repr(value)`, or the name of its class where a user's own `__repr__` raises."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def shown(value: Any) -> str:
    """`value` for a message: short, and never an error of its own."""
    try:
        text = f"array({value})" if isinstance(value, jax.Array) and value.size < 9 else written(value)
    except Exception:  # an array without numbers to print, such as a deleted one
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:110]}... ({len(text)} characters)"


def on_one_line(error: BaseException, longest: int | None = 200) -> str:
    """The message of somebody else's error as a part of one line, cut after `longest` characters (None: not cut)."""
    return " ".join(str(error).split())[:longest]


def name_of(thing: Any) -> str:
    """The name of a function or class, or that of the class of anything else."""
    return getattr(thing, "__name__", type(thing).__name__)


def aligned_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with the cells of each column aligned to the left.

    **Arguments:** `rows`: at least one row, all of the same length.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
