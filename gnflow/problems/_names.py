"""The names of columns and classes, which data frames, files and text labels have."""

from typing import Any

import equinox as eqx

from .._core import DataError, nearest_name, shown
from ._tables import column_names, is_frame, only_columns

_Names = tuple[str, ...] | None


def _as_names(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


class Names(eqx.Module):
    """What the columns of a problem are called; None where they have no names.

    `gnflow.Problem` takes the names of a data frame's columns, and text labels, by itself.

    **Attributes:**

    - `inputs`: the names of the d columns of the inputs.
    - `targets`: the names of the columns of the targets, as they were given.
    - `classes`: the names of the classes 0, 1, ..., for targets that are class labels.

    **Raises:** `DataError` unless each is None or a tuple or list of texts.
    """

    inputs: _Names = eqx.field(static=True, default=None, converter=_as_names)
    targets: _Names = eqx.field(static=True, default=None, converter=_as_names)
    classes: _Names = eqx.field(static=True, default=None, converter=_as_names)

    def __check_init__(self):
        for what, names in vars(self).items():
            if names is not None and not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
                raise DataError(f"Names: {what} = {shown(names)}; expected a tuple or list of texts, or None.")

    @classmethod
    def of(cls, inputs: Any, targets: Any) -> "Names":
        """The names of the columns of inputs and targets."""
        return cls(column_names(inputs), column_names(targets))

    def choose(self, inputs: Any, what: str) -> Any:
        """The columns of a data frame that have the names of the inputs, in their order. Anything else is returned as it is.

        **Raises:** `DataError` that names a column which is missing.
        """
        if self.inputs is None or not is_frame(inputs):
            return inputs
        own = column_names(inputs) or ()
        for name in self.inputs:
            if name not in own:
                raise DataError(
                    f"{what} has no column {name!r}, which the problem's inputs have; {nearest_name(name, own)}"
                )
        return only_columns(inputs, [own.index(name) for name in self.inputs])

    def require_fit(self, inputs: Any) -> None:
        """Check that there is a name for each column of the inputs (N, d). **Raises:** `DataError`."""
        if self.inputs is not None and len(self.inputs) != inputs.shape[-1]:
            raise DataError(
                f"names: {len(self.inputs)} inputs are named, but the problem's inputs have {inputs.shape[-1]} columns."
            )
