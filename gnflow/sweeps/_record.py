"""The record of a cell, which is a line of the index. Records are checked, because anybody may have written them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from .._core import ResultCode, RunFolderError

_NOT_FINITE = ("nan", "inf", "-inf")  # text, because JSON does not have these numbers
_LARGEST_INTEGER = 2**63
ERROR = "error"  # the code of a cell whose run raised an error
WORKER_DIED = "worker_died"  # the code of a cell whose worker processes died
_CODES = {*(str(code) for code in ResultCode), ERROR, WORKER_DIED}


def is_number(value: Any) -> bool:
    """Whether `value` is a number of a record: a finite number, or the text of one that is not finite."""
    if isinstance(value, str):
        return value in _NOT_FINITE
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_INTEGER


def _are_numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and is_number(v) for k, v in value.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_code(value: Any) -> bool:
    return isinstance(value, str) and value in _CODES


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "hash": _is_text,
    "code": _is_code,
    "message": _is_text,
    "failed": lambda value: isinstance(value, bool),
    "time": is_number,
    "wall_seconds": is_number,
    "num_steps": lambda value: value is None or _is_count(value),
    "finals": _are_numbers,
    "targets": _are_numbers,
    # Lines of an index up to version 0.2.0 lack this one, so that their cells are read again, once.
    "best": _are_numbers,
    "gnflow": _is_text,
    "size": _is_count,
    "sha256": _is_text,
}

# Earlier versions did not write these.
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "errors": lambda value: value is None or _are_numbers(value),
    "compile_seconds": lambda value: value is None or is_number(value),
    "direction": lambda value: value is None or _is_text(value),
    "distance_to_gradient_flow": lambda value: value is None or is_number(value),
}


def is_record(value: Any) -> bool:
    """Whether `value` is the record of a cell, with all fields of the right types. There may be further fields."""
    typed = isinstance(value, dict) and all(name in value and fits(value[name]) for name, fits in _FIELDS.items())
    typed = typed and all(fits(value.get(name)) for name, fits in _OPTIONAL.items())
    return typed and value["failed"] == has_failed(value["code"]) and (value["failed"] or bool(value["finals"]))


def has_failed(code: str) -> bool:
    """Whether a cell that ended with `code` gave no result: a failed run, an error, a dead worker."""
    return code not in {str(known) for known in ResultCode} or ResultCode(code).failed


def require_record(value: dict[str, Any]) -> dict[str, Any]:
    """`value`, if it is a record. **Raises:** `RunFolderError` that names the first wrong field."""
    for name, fits in {**_FIELDS, **_OPTIONAL}.items():
        if not fits(value[name]):
            raise RunFolderError(f"its {name} is {str(value[name])[:60]!r}, which no run gives")
    return value
