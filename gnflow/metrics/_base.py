"""The abstract base of metrics, and what several of them compute with."""

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

    **Attributes:**

    - `name`: its name in the data set.
    - `long_name`: its name on axes and in tables.
    - `units`: its units, "1" if dimensionless.
    - `reference`: the source of its definition.
    - `dims`: its dimensions besides time.
    """

    name: str
    long_name: str
    units: str
    reference: str
    dims: tuple[str, ...] = ()


class AbstractMetric(eqx.Module):
    """Quantities that are evaluated at the saved times of a run (`simulate`) or at its steps (`iterate`).

    **Attributes:** `may_omit`: whether `evaluate` may leave out declared variables, because some flows do not have them.
    """

    may_omit: ClassVar[bool] = False

    @abc.abstractmethod
    def variables(self, system: System) -> tuple[Variable, ...]:
        """The quantities that this metric measures for `system`.

        **Raises:** `ModelError` or `DataError` if the metric is not defined for `system`, before anything is computed.
        """

    def prepare(self, start: Snapshot) -> PyTree:
        """Arrays of the first state that every `evaluate` gets; none by default."""
        return ()

    def integrands(self, velocity: PyTree) -> dict[str, Float[Array, ""]]:
        """The rates of change, computed from w', of variables that are integrals over flow time; none by default.

        The flow's solver integrates them beside the weights. `evaluate` finds the integrals by name in `snapshot.integrals`.
        """
        return {}

    @abc.abstractmethod
    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The value of every variable at `snapshot`, by name. The method is traced by JAX.

        **Arguments:**

        - `snapshot`: the state.
        - `memory`: what `prepare` returned.
        """


def ratio(numerator: Float[Array, ""], denominator: Float[Array, ""]) -> Float[Array, ""]:
    """numerator / denominator of two numbers >= 0, with 0/0 = 0 (nothing has changed yet) and x/0 = inf."""
    nothing = (numerator == 0) & (denominator == 0)
    # The inner `where` keeps 0/0 out of the branch that is not taken: nan checks and derivatives of JAX would see it there.
    return jnp.where(nothing, 0.0, numerator / jnp.where(nothing, 1.0, denominator))
