"""The sets of samples that a problem is made of: training, and optionally validation and test."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from .._core import DataError, Numbers, is_traced
from ..losses import AbstractLoss
from ._checks import input_array, raw_targets
from ._labels import number_text_labels
from ._tables import require_same_columns, require_same_rows

SETS = ("train", "validation", "test")

_Targets = dict[str, Any]


def checked_sets(
    given: Mapping[str, tuple[Any, Any]],
) -> tuple[dict[str, Numbers], _Targets, tuple[str, ...] | None]:
    """Inputs and targets as arrays, after all checks that do not need the loss.

    **Arguments:**

    - `given`: by the name of the set ("train", "validation", "test") its inputs and targets; None and None for a set that there
      is not.

    **Returns:** inputs (float64) and targets by the names of the sets that there are, and the names of the classes where the
    targets were text.

    **Raises:** `DataError`.
    """
    for which, (x, y) in given.items():
        if (x is None) != (y is None):
            here, missing = (f"y_{which}", f"x_{which}") if x is None else (f"x_{which}", f"y_{which}")
            raise DataError(f"{here} is given without {missing}; give both, or neither for no {which} data.")
    sets = {which: pair for which, pair in given.items() if pair[0] is not None}
    first = sets["train"][0]
    for which, (x, y) in sets.items():
        require_same_columns(first, x, f"x_{which}")
        require_same_rows(x, y, (f"x_{which}", f"y_{which}"))
    numbered, classes = number_text_labels({f"y_{which}": y for which, (_, y) in sets.items()})
    inputs, targets = {}, {}
    for which, (x, _) in sets.items():
        inputs[which] = input_array(x, f"x_{which}")
        targets[which] = raw_targets(numbered[f"y_{which}"], f"y_{which}", inputs[which], f"x_{which}")
        if inputs[which].shape[1:] != inputs["train"].shape[1:]:
            raise DataError(
                f"x_{which} has {_features(inputs[which])} but x_train has {_features(inputs['train'])}; both must have "
                "the same columns."
            )
    return inputs, targets, classes


def _features(x: Numbers) -> str:
    what = f"{x.shape[1]} features" if x.ndim == 2 else f"inputs of the shape {x.shape[1:]}"
    return f"{what} (shape {x.shape})"


def canonical_targets(loss: AbstractLoss, targets: _Targets) -> dict[str, Float64[Array, "samples outputs"]]:
    """The targets of all sets in the loss's canonical form, by the name of the set.

    **Raises:** `DataError` for targets that do not suit the loss.
    """
    train, validation, test = (targets.get(which) for which in SETS)
    if validation is None or test is None:
        other = "test" if validation is None else "validation"
        first, second = _canonical(loss, train, targets.get(other), f"y_{other}")
        return {"train": first} | ({} if second is None else {other: second})
    # A loss knows of two sets. The classes are those of all three, so that validation and test go there as one.
    for which, y in (("validation", validation), ("test", test)):
        _canonical(loss, train, y, f"y_{which}")
    if validation.ndim != test.ndim or validation.shape[1:] != test.shape[1:]:
        raise DataError(
            f"y_validation has shape {validation.shape} and y_test {test.shape}; give both in the same form."
        )
    join = jnp.concatenate if is_traced(validation) or is_traced(test) else np.concatenate
    first, both = _canonical(loss, train, join([validation, test]), "y_validation and y_test")
    assert both is not None
    return {"train": first, "validation": both[: len(validation)], "test": both[len(validation) :]}


def _canonical(loss: AbstractLoss, train: Any, other: Any, name: str) -> tuple[Array, Array | None]:
    """The canonical targets of two sets, with `name` in messages about the second one."""
    try:
        return loss.canonical_targets(train, other)
    except DataError as error:
        raise DataError(str(error).replace("y_test", name)) from error
