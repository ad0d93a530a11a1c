"""Class labels that are text, as class indices in sorted order."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import DataError, is_traced
from ._tables import only_column


def number_text_labels(targets: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """`targets` with class indices (N,) in the place of text labels, numbered in sorted order over all of them together.

    **Arguments:**

    - `targets`: targets by their names in messages. They are returned as they are unless all of them are text.

    **Returns:** the targets, and the names of the classes (None for targets that are not text).

    **Raises:** `DataError` for missing labels, and for labels that are all the same.
    """
    texts = {name: _as_text(value, name) for name, value in targets.items()}
    known = {name: text for name, text in texts.items() if text is not None}
    if not known or len(known) < len(targets):
        return dict(targets), None
    classes = np.unique(np.concatenate(list(known.values())))
    if classes.size < 2:
        raise DataError(
            f"all labels are {str(classes[0])!r}; expected at least two classes. Was another column meant as the target?"
        )
    return {name: np.searchsorted(classes, text) for name, text in known.items()}, tuple(map(str, classes))


def _as_text(value: Any, what: str) -> np.ndarray | None:
    """Labels (N,), or a data frame's only column, as an array of text; None for anything else."""
    if is_traced(value):
        return None
    try:
        array = np.asarray(only_column(value, what))
    except (ValueError, TypeError, OverflowError):
        return None  # `finite_array` says what is wrong with it
    if array.ndim != 1 or not array.size:
        return None
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            return None
    is_text = array.dtype.kind in "UT" or (array.dtype == object and all(isinstance(entry, str) for entry in array))
    return array.astype(str) if is_text else None
