"""Frozen records of what the metrics of `verify` measure along a run, so that no theorem reads variables by name."""

import dataclasses
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np

from ..metrics import Variable
from ..simulate import Trajectory

_Record = TypeVar("_Record", bound="Measured")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """The description of a variable: `long_name`, `units`, and `dims`, its dimensions beside time."""

    long_name: str
    units: str
    dims: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Measured:
    """Numbers measured along a run, (k, ...) at its times. A subclass has a field for each variable, annotated with its
    `Quantity`.

    **Attributes:**

    - `prefix`: the prefix of the variables' names in a trajectory's data set.
    - `source`: the page that defines them.
    - `times`: the flow times (k,).
    """

    prefix: ClassVar[str]
    source: ClassVar[str]

    times: np.ndarray

    @classmethod
    def variables(cls) -> tuple[Variable, ...]:
        """The variables of the metric that measures them."""
        quantities = cls._quantities()
        return tuple(
            Variable(name, quantity.long_name, quantity.units, cls.source, quantity.dims)
            for name, quantity in cls.named(**quantities).items()
        )

    @classmethod
    def named(cls, **values: Any) -> dict[str, Any]:
        """Values of the fields under the names of their variables."""
        return {f"{cls.prefix}_{name}": value for name, value in values.items()}

    @classmethod
    def is_of(cls, run: Trajectory) -> bool:
        """Whether the run measured them."""
        return all(variable.name in run.data for variable in cls.variables())

    @classmethod
    def of(cls: type[_Record], run: Trajectory) -> _Record:
        """The record of a run that measured them."""
        values = {name: run.data[f"{cls.prefix}_{name}"].to_numpy() for name in cls._quantities()}
        return cls(run.data.time.to_numpy(), **values)

    @classmethod
    def _quantities(cls) -> dict[str, Quantity]:
        hints = get_type_hints(cls, include_extras=True)
        return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
