"""What is unusual about the scale of inputs and targets, and the remedy."""

import numpy as np
from jaxtyping import Array, Float

from .._core import DataWarning, is_traced, warn
from ..losses import AbstractLoss

_USUAL = (1e-2, 1e2)  # sizes of inputs and targets for which networks and tolerances are made
_UNEQUAL = 100.0  # ratio of the largest column to the smallest
_OFFSET = 10.0  # ratio of a column's mean to its spread
_MANY_COLUMNS = 32  # images have a few columns that hardly ever differ from zero
_ENOUGH = 10_000  # samples


def warn_of_large_scale(x: Array, y: Array, loss: AbstractLoss, done: tuple[bool, bool]) -> None:
    """A `DataWarning` that names the option, if training data are large or inputs far from zero for their spread.

    `done` says whether inputs and targets are standardised.
    """
    if is_traced(x) or is_traced(y):
        return
    with np.errstate(all="ignore"):  # squares may overflow
        large_x = _is_large(x) or _is_far(x)
        large_y = loss.targets_may_be_rescaled is not False and _is_large(y)
        said = [*(of_inputs(x) if large_x else []), *(of_targets(y) if large_y else [])]
    if said:
        remedy = how_to_standardise(large_x, large_y, loss, done)
        warn(f"{'; '.join(said)}. Flows of such data are stiff, and runs take many steps: {remedy}.", DataWarning)


def how_to_standardise(x: bool, y: bool, loss: AbstractLoss, done: tuple[bool, bool]) -> str:
    """What to write to standardise inputs (`x`), targets (`y`) or both, as a clause.

    `done` says which of the two are standardised already: they stay so with what is written.
    """
    what = " and ".join(name for name, is_meant in (("x", x), ("y", y)) if is_meant)
    option, entry = "True", "true"
    if (y or done[1]) and loss.targets_may_be_rescaled is None:
        option = entry = '"both"' if x or done[0] else '"targets"'
    condition = ", if the loss allows targets of another scale" if y and loss.targets_may_be_rescaled is None else ""
    own = f"in a configuration: standardise = {entry} under [problem]"
    return f"standardise {what}, with standardise={option} in gnflow.Problem ({own}){condition}"


def of_inputs(x: Array | np.ndarray) -> list[str]:
    """What is unusual about the scale of the inputs (N, ...)."""
    columns = _columns_of(x)
    mean, spread, varies = _moments(columns)
    said = _of_sizes(columns, "x")
    far = np.flatnonzero(varies & (np.abs(mean) > _OFFSET * spread))
    constant = np.flatnonzero(~varies & (np.abs(mean) > _OFFSET))
    if far.size:
        ratio = np.max(np.abs(mean[far]) / spread[far])
        said.append(f"{_columns(far)} of x has a mean of up to {ratio:.1e} times its spread")
    if constant.size:
        said.append(f"{_columns(constant)} of x is constant, {mean[constant][np.argmax(np.abs(mean[constant]))]:.3g}")
    return said


def of_targets(y: Float[Array, "samples outputs"]) -> list[str]:
    """What is unusual about the scale of the targets (N, C)."""
    return _of_sizes(_columns_of(y), "y")


def _of_sizes(columns: np.ndarray, name: str) -> list[str]:
    least, most = _range_of_sizes(columns)
    if most == 0 or (least >= _USUAL[0] and most <= min(_USUAL[1], _UNEQUAL * least)):
        return []
    between = f"{most:.1e}" if least == most else f"{least:.1e} to {most:.1e}"
    return [f"the columns of {name} have a root mean square of {between}"]


def _range_of_sizes(columns: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest root mean square of the columns that are not zero; of many columns the median twice."""
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return 0.0, 0.0
    ends = (0.0, 1.0) if sizes.size < _MANY_COLUMNS else (0.5, 0.5)
    return float(np.quantile(sizes, ends[0])), float(np.quantile(sizes, ends[1]))


def _moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread of each column, and whether it varies."""
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    return mean, spread, spread > 1e-12 * np.abs(mean)


def _columns_of(data: Array | np.ndarray) -> np.ndarray:
    """The samples as rows (N, columns); of very many every so many, which tell the scale as well."""
    known = np.asarray(data, dtype=float)[:: max(1, len(data) // _ENOUGH)]
    return known.reshape(len(known), -1)


def _columns(which: np.ndarray) -> str:
    listed = ", ".join(str(column) for column in which[:3]) + (", ..." if which.size > 3 else "")
    return f"column {listed}"


def _is_large(data: Array) -> bool:
    return _range_of_sizes(_columns_of(data))[1] > _USUAL[1]


def _is_far(data: Array) -> bool:
    mean, spread, varies = _moments(_columns_of(data))
    return bool(np.any(varies & (np.abs(mean) > _OFFSET * spread)))
