"""A wrapper that moves groups of weights at speeds of their own."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, require_number, shown, tree_multiply
from ..geometry import AbstractTangent, SolveDiagnostics, System, scaled_tangent
from ..problems import AbstractProblem
from ._base import AbstractFlow, AbstractLinearisedFlow, AbstractOutputFlow, velocity_along
from ._gradient import GradientFlow
from ._groups import as_numbers, groups_of, numbers_of
from ._weight_decay import WeightDecay
from ._wrapper import AbstractWrapper, converter_of

_REMEDY = "1 changes nothing; for weights that do not move take gnflow.flows.Frozen."
_PLACES = ("velocity", "metric")


def _as_scale(value: Any) -> Any:
    return as_numbers(
        "scale", value, lambda name, scale: require_number(ConfigError, name, scale, above=0.0, remedy=_REMEDY)
    )


def _as_place(value: Any) -> Any:
    if not (isinstance(value, str) and value in _PLACES):
        raise ConfigError(f"where = {shown(value)}; expected 'velocity' or 'metric'.")
    return value


class Scaled(AbstractWrapper):
    """`flow` with a mobility D for each group of weights: w' = D v, where v is the velocity of the flow.

    - `where="velocity"`: v is what the flow makes of the model's Gram matrix A = J J^T. A Gauss-Newton flow then moves the
      outputs by f' = -J D J^T a instead of by -A a, and its loss may rise.
    - `where="metric"`: D is the inverse of the metric on the weights. The flow sees A = J D J^T and w' = -D J^T a: it is the
      flow in the weights D^(-1/2) w, so what holds of the wrapped flow for every model holds of this one too. The loss of a
      Gauss-Newton flow falls at the same rate for every D, and D decides how much of that each group contributes.

    For gradient flow the two are the same, a flow with two time scales: with {"output": 0.01} the features follow a slow output
    layer. Derived in docs/theory.md, A mobility for each group of weights.

    Theorems about w' = -J^T a do not apply. The metrics of the tangent kernel are those of the model, J J^T. `Frozen`,
    `WeightDecay` and `Scaled` may wrap each other. Weight decay inside of `Scaled` is scaled as well.

    **Arguments:**

    - `flow`: any flow; for `where="metric"` one of the form w' = -J^T a, with or without weight decay.
    - `scale`: D > 0, dimensionless: a number for all weights that move, or a mapping of names to numbers. Names are layers as
      the model names them ("hidden", "output"), "biases" or paths of its leaves ("layers[0].bias"). D is 1 for weights without
      a name.
    - `where`: "velocity" or "metric".

    **Raises:** `ConfigError` for another scale or place, and if `flow` is not a flow, is scaled already or has no metric to
    scale; `ModelError`, when a run begins, for a name that is not among the model's moving weights, and for weights with two
    names.
    """

    flow: AbstractFlow = eqx.field(converter=converter_of("Scaled"))
    scale: float | dict[str, float] = eqx.field(converter=_as_scale)
    where: Literal["velocity", "metric"] = eqx.field(converter=_as_place, static=True, default="velocity")

    def __check_init__(self):
        _require_unscaled(self.flow)
        if self.where == "metric" and not isinstance(self._law, AbstractOutputFlow):
            raise ConfigError(
                f"{type(self._law).__name__} does not have the form w' = -J^T a with a of the Gram matrix, so where = 'metric' "
                "has no meaning for it; take where = 'velocity'."
            )

    def system(self, problem: AbstractProblem, model: Any) -> System:
        """The system of the wrapped flow. **Raises:** `ModelError` for names that are not among the weights that move."""
        system = self.flow.system(problem, model)
        self._scales(system.weights(model), system)
        return system

    @property
    def dynamics(self) -> AbstractFlow:
        """`Scaled` of the flow inside of a `Frozen`."""
        inner = self.flow.dynamics
        return self if inner is self.flow else Scaled(inner, self.scale, self.where)

    @property
    def linearised(self) -> AbstractLinearisedFlow | None:
        """That of the wrapped flow, which then takes the scaled `tangent`; None if D is in the velocity of another flow than
        gradient flow, because W = -D J^T K H_L J is then not diagonal with K."""
        return self.flow.dynamics.linearised if self._in_metric else None

    def tangent(self, weights: PyTree, system: System) -> AbstractTangent:
        """The tangent with the adjoint D J^T, unless D is in the velocity of another flow than gradient flow."""
        if not self._in_metric:
            return self.flow.dynamics.tangent(weights, system)
        scales = self._scales(weights, system)
        if not isinstance(self.scale, Mapping):
            everything = jax.tree.map(lambda _: True, weights)
            return scaled_tangent(system, weights, scales, [(jnp.asarray(self.scale), everything)])
        groups = groups_of("scale", self.scale, weights, system)
        numbers = [(jnp.asarray(self.scale.get(name, 1.0)), group) for name, group in groups.items()]
        return scaled_tangent(system, weights, scales, numbers)

    def decay(self, weights: PyTree, system: System) -> PyTree | None:
        """D times the rates of the wrapped flow; None if that has none."""
        inner = self.flow.dynamics.decay(weights, system)
        return None if inner is None else tree_multiply(self._scales(weights, system), inner)

    def penalty(self, weights: PyTree, system: System) -> Float[Array, ""] | None:
        """That of the wrapped flow: D scales the velocity, and so the gradient of a sum of loss and penalty."""
        return self.flow.dynamics.penalty(weights, system)

    def never_ascends(self, system: System) -> bool:
        """Whether the wrapped flow never does, unless D is in the velocity of another flow than gradient flow."""
        return self._in_metric and self.flow.dynamics.never_ascends(system)

    @property
    def rests_with_gradient(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the wrapped flow does: D is positive, so that D v vanishes where v does."""
        return self.flow.dynamics.rests_with_gradient

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """D v, and the diagnostics of the solve for v."""
        if not self._in_metric:
            velocity, diagnostics = self.flow.velocity_and_diagnostics(time, weights, system)
            return tree_multiply(self._scales(weights, system), velocity), diagnostics
        law = self._law
        assert isinstance(law, AbstractOutputFlow)
        return velocity_along(self, law, time, weights, system)

    @property
    def _law(self) -> AbstractFlow:
        """The wrapped flow without what other wrappers add."""
        inner = self.flow.dynamics
        return inner.linearised or inner

    @property
    def _in_metric(self) -> bool:
        """Whether w' = -D J^T a - ... with a of J D J^T: gradient flow needs no Gram matrix."""
        return self.where == "metric" or isinstance(self._law, GradientFlow)

    def _scales(self, weights: PyTree, system: System) -> PyTree:
        scales = numbers_of("scale", self.scale, 1.0, weights, system)
        return jax.tree.map(lambda scale: jnp.asarray(scale, dtype=jnp.float64), scales)


def _require_unscaled(flow: AbstractFlow) -> None:
    """Check that no flow inside of `flow` is scaled. **Raises:** `ConfigError`."""
    inner = flow.dynamics
    if isinstance(inner, Scaled):
        raise ConfigError("flow of Scaled is scaled already; give all groups in one mapping, to one Scaled.")
    if isinstance(inner, WeightDecay):
        _require_unscaled(inner.flow)
