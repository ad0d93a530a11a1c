"""A wrapper that adds weight decay to a flow."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import (
    ConfigError,
    require_number,
    tree_add_scaled,
    tree_dot,
    tree_multiply,
    tree_subtract,
)
from ..geometry import AbstractTangent, SolveDiagnostics, System
from ..problems import AbstractProblem
from ._base import AbstractFlow, AbstractLinearisedFlow
from ._groups import as_numbers, numbers_of
from ._wrapper import AbstractWrapper, converter_of

_LEAST = "0 is no decay."


def _as_rate(value: Any) -> Any:
    return as_numbers(
        "rate", value, lambda name, rate: require_number(ConfigError, name, rate, least=0.0, remedy=_LEAST)
    )


class WeightDecay(AbstractWrapper):
    """`flow` with weight decay: its velocity minus rate w.

    With gradient flow of mobility m this is gradient flow of L + rate/(2m) |w|^2. That sum never increases, and where the flow
    rests a model that is linear in its weights is the ridge regression. With preconditioned flows neither L nor this sum need
    fall. Theorems about w' = -J^T a do not apply. Derived in docs/theory.md, Weight decay.

    Solvers know the decay as a linear part of the velocity. The exponential solver integrates it in closed form, exactly if
    all weights have one rate. `Frozen` and `WeightDecay` may wrap each other; weights that do not move do not decay.

    **Arguments:**

    - `flow`: any flow.
    - `rate`: a rate >= 0 in 1/flow time for all weights that move, or a mapping of names to rates. Names are layers as the
      model names them ("hidden", "output"), "biases" or paths of its leaves ("layers[0].bias"). Weights without a name do
      not decay.

    **Raises:** `ConfigError` for another rate, or if `flow` is not a flow; `ModelError`, when a run begins, for a name that is
    not among the model's moving weights, and for weights with two names.
    """

    flow: AbstractFlow = eqx.field(converter=converter_of("WeightDecay"))
    rate: float | dict[str, float] = eqx.field(converter=_as_rate)

    def system(self, problem: AbstractProblem, model: Any) -> System:
        """The system of the wrapped flow. **Raises:** `ModelError` for names that are not among the weights that move."""
        system = self.flow.system(problem, model)
        self._own_rates(system.weights(model), system)
        return system

    @property
    def dynamics(self) -> AbstractFlow:
        """Weight decay of the flow inside of a `Frozen`."""
        inner = self.flow.dynamics
        return self if inner is self.flow else WeightDecay(inner, self.rate)

    @property
    def linearised(self) -> AbstractLinearisedFlow | None:
        """The linearised flow without decay. The linear part in weight space is given by `decay`."""
        return self.flow.dynamics.linearised

    def decay(self, weights: PyTree, system: System) -> PyTree:
        """The rates of all leaves, including those of a wrapped flow that decays itself.

        **Raises:** `ModelError` for names that the model does not have, or that share weights.
        """
        own, inner = self._own_rates(weights, system), self.flow.dynamics.decay(weights, system)
        return own if inner is None else tree_add_scaled(own, 1.0, inner)

    def tangent(self, weights: PyTree, system: System) -> AbstractTangent:
        """The tangent of the wrapped flow."""
        return self.flow.dynamics.tangent(weights, system)

    def penalty(self, weights: PyTree, system: System) -> Float[Array, ""] | None:
        """sum rate/(2m) |w|^2 over the weights if the wrapped flow is w' = -m grad L; None otherwise."""
        gain = self._without_decay.gain(system)
        if gain is None or gain.constant is None:
            return None
        mobility = gain.value(jnp.ones(()), 0.0)
        return tree_dot(tree_multiply(self.decay(weights, system), weights), weights) / (2 * mobility)

    def never_ascends(self, system: System) -> bool:
        """True for gradient flow with a positive mobility, whose L + `penalty` never increases."""
        inner = self._without_decay
        gain = inner.gain(system)
        constant = None if gain is None else gain.constant
        return constant is not None and float(constant) > 0 and inner.never_ascends(system)

    def has_real_spectrum(self, system: System) -> bool:
        """Whether the wrapped flow has one: a diagonal matrix keeps a symmetric one symmetric."""
        return self.flow.dynamics.has_real_spectrum(system)

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """The velocity of the wrapped flow minus rate w, and the diagnostics of its solve."""
        velocity, diagnostics = self.flow.velocity_and_diagnostics(time, weights, system)
        return tree_subtract(velocity, tree_multiply(self._own_rates(weights, system), weights)), diagnostics

    @property
    def _without_decay(self) -> AbstractFlow:
        inner = self.flow.dynamics
        return inner._without_decay if isinstance(inner, WeightDecay) else inner

    def _own_rates(self, weights: PyTree, system: System) -> PyTree:
        rates = numbers_of("rate", self.rate, 0.0, weights, system)
        return jax.tree.map(lambda rate: jnp.asarray(rate, dtype=jnp.float64), rates)
