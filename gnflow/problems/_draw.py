"""A problem of the user's samples, all of them or a split that a seed draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import DataError, require_integer
from ..losses import AbstractLoss
from ._names import Names
from ._problem import Problem
from ._sets import SETS, canonical_targets, checked_sets
from ._split import sets_of, split
from ._standardise import Standardise


def problem_of(
    arrays: Mapping[str, Any],
    names: Names | None,
    loss: AbstractLoss,
    counts: Mapping[str, int | None],
    standardise: Standardise,
    name: str,
    what: str,
    key: Any,
) -> Problem:
    """A problem of arrays called `x_train`, `y_train` and perhaps `x_validation`, `y_validation`, `x_test`, `y_test`.

    **Arguments:**

    - `arrays`: the arrays.
    - `names`: what their columns are called; None takes the names in data frames.
    - `loss`: the loss.
    - `counts`: by the name of the set how many samples to draw; None for what is left. Without any number nothing is drawn.
    - `standardise`, `name`: as for `Problem`.
    - `what`: where the arrays are from, for messages.
    - `key`: a JAX key, needed to draw.

    **Raises:** `DataError`.
    """
    if all(count is None for count in counts.values()):
        return Problem(**arrays, loss=loss, standardise=standardise, names=names, name=name)
    # All samples are checked in their order, before the split: messages name rows of the file, and the classes do not depend on
    # the split.
    names = Names.of(arrays["x_train"], arrays["y_train"]) if names is None else names
    given = {which: (arrays.get(f"x_{which}"), arrays.get(f"y_{which}")) for which in SETS}
    inputs, raw, classes = checked_sets(given)
    names = names if classes is None else Names(names.inputs, names.targets, classes)
    targets = canonical_targets(loss, raw)
    rows = _rows(len(inputs["train"]), counts, [which for which in SETS[1:] if which in inputs], what, key)
    data = sets_of(inputs["train"], np.asarray(targets["train"]), rows)
    for which in SETS[1:]:
        if which in inputs:
            data |= {f"x_{which}": inputs[which], f"y_{which}": targets[which]}
    return Problem(**data, loss=loss, standardise=standardise, names=names, name=name)


def _rows(
    total: int, counts: Mapping[str, int | None], own: list[str], what: str, key: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of each set among the `total` samples. Sets in `own` have samples of their own."""
    if key is None:
        names = ", ".join(f"n_{which}" for which in SETS if counts[which] is not None)
        raise DataError(f"{names} draws samples at random, which needs key=jax.random.key(seed).")
    for which in own:
        if counts[which] is not None:
            raise DataError(
                f"n_{which} = {counts[which]}, but {what} holds {which} data of its own; leave n_{which} out."
            )
    n_train, n_validation, n_test = (
        None if counts[which] is None else require_integer(DataError, f"n_{which}", counts[which], least=least)
        for which, least in zip(SETS, (1, 0, 0), strict=True)
    )
    n_validation = n_validation or 0
    if n_train is None:
        n_train = total - n_validation - (n_test or 0)
    if n_test is None:
        n_test = 0 if "test" in own else max(0, total - n_train - n_validation)
    return split(total, n_train, n_test, f"x_train of {what}" if own else what, key, n_validation)
