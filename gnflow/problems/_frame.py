"""Problems from data frames of pandas or polars."""

from typing import Any

from .._core import DataError, require_float64, shown
from ..losses import AbstractLoss, get_loss
from ._columns import ColumnNames, choose_columns
from ._draw import problem_of
from ._problem import Problem
from ._standardise import Standardise
from ._tables import column_names, is_frame, only_columns


def from_frame(
    frame: Any,
    target: str | list[str] | tuple[str, ...],
    features: str | list[str] | tuple[str, ...] | None = None,
    loss: str | AbstractLoss = "squared",
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    key: Any = None,
    n_validation: int | None = None,
    standardise: Standardise = False,
    name: str = "frame",
) -> Problem:
    """A problem from a data frame of pandas or polars, as `from_file` makes it of a table in a file.

    **Arguments:**

    - `frame`: the data frame, of numbers; a single target column may hold text, which is class labels.
    - `target`, `features`, `loss`, `n_train`, `n_test`, `key`, `n_validation`, `standardise`: as for `from_file`.
    - `name`: the problem's name in titles and files.

    **Raises:** as `from_file`; `DataError` for anything but a data frame.
    """
    require_float64((), "from_frame")
    if not is_frame(frame):
        raise DataError(
            f"frame = {shown(frame)}; expected a data frame of pandas or polars. Arrays go to gnflow.Problem."
        )
    loss = get_loss(loss)() if isinstance(loss, str) else loss
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    return problem_of(
        chosen(frame, target, features, "the data frame"), None, loss, counts, standardise, name, name, key
    )


def chosen(frame: Any, target: ColumnNames, features: ColumnNames, what: str) -> dict[str, Any]:
    """`x_train` and `y_train` in a data frame; a single target as a column (N,). **Raises:** as `choose_columns`."""
    inputs, targets = choose_columns(column_names(frame) or (), target, features, what)
    y = only_columns(frame, targets)
    return {"x_train": only_columns(frame, inputs), "y_train": y[y.columns[0]] if len(targets) == 1 else y}
