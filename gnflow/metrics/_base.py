"""What a metric is: named quantities of the state at a saved time."""

import abc
import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System


@dataclasses.dataclass(frozen=True)
class Variable:
    """One quantity in a trajectory's data set.

    **Attributes:** `name`: of the variable; `long_name`: for axes and tables; `units`: "1" where dimensionless;
    `reference`: where it is defined; `dims`: its dimensions beside time.
    """

    name: str
    long_name: str
    units: str
    reference: str
    dims: tuple[str, ...] = ()


class AbstractMetric(eqx.Module):
    """Quantities evaluated at the saved times of a run (`simulate`) or at its steps (`iterate`).

    **Attributes:** `may_omit`: whether `evaluate` may leave out variables that are declared, by what the flow does.
    """

    may_omit: ClassVar[bool] = False

    @abc.abstractmethod
    def variables(self, system: System) -> tuple[Variable, ...]:
        """The quantities this metric gives for `system`.

        **Raises:** `ModelError` or `DataError` where the metric is not defined for it, before anything is computed.
        """

    def prepare(self, start: Snapshot) -> PyTree:
        """Arrays to remember from the first state, handed to every `evaluate`; nothing by default."""
        return ()

    def integrands(self, velocity: PyTree) -> dict[str, Float[Array, ""]]:
        """Rates of change, from w', of those variables that are integrals over flow time; none by default.

        The flow's own solver integrates them beside the weights; `evaluate` finds them in `snapshot.integrals` by name.
        """
        return {}

    @abc.abstractmethod
    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The value of every variable, by name, at `snapshot`; `memory` is what `prepare` returned. Traced by JAX."""


def ratio(numerator: Float[Array, ""], denominator: Float[Array, ""]) -> Float[Array, ""]:
    """numerator / denominator of two numbers >= 0, with 0/0 = 0 (nothing has changed yet) and x/0 = inf."""
    nothing = (numerator == 0) & (denominator == 0)
    return jnp.where(nothing, 0.0, numerator / jnp.where(nothing, 1.0, denominator))
