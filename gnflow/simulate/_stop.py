"""When a run is over: conditions on the state, met where they cross zero from above."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, tree_norm, tree_subtract
from ..geometry import System

_TINY = float(jnp.finfo(jnp.float64).tiny)


class AbstractStopRule(eqx.Module):
    """A rule that ends a run. `simulate` finds the time at which it is met to a relative 1e-6 by bisection within the step."""

    @abc.abstractmethod
    def prepare(self, weights: PyTree, system: System) -> PyTree:
        """What to remember of the first state."""

    @abc.abstractmethod
    def margin(self, weights: PyTree, system: System, memory: PyTree) -> Float[Array, ""]:
        """Positive while the run goes on; zero or negative when the rule is met. Continuous along the flow."""

    @abc.abstractmethod
    def describe(self) -> str:
        """The rule as a clause: 'the relative training loss reached 1e-08'."""


def _log(value: Array) -> Array:
    return jnp.log(jnp.maximum(value, _TINY))


def _require_positive(rule: AbstractStopRule, value: float) -> None:
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ConfigError(f"{type(rule).__name__}({value!r}); expected a positive, finite tolerance.")


class RelativeLoss(AbstractStopRule):
    """Stop when (L - L*) / (L_0 - L*) <= tolerance on the training data; the root is sought in the logarithm.

    L* is the infimum of the loss over all outputs: 0, or the entropy of soft labels.
    """

    tolerance: float

    def __check_init__(self):
        _require_positive(self, self.tolerance)

    def prepare(self, weights: PyTree, system: System) -> PyTree:
        """log (L_0 - L*)."""
        return _log(self._excess(weights, system))

    def margin(self, weights: PyTree, system: System, memory: PyTree) -> Float[Array, ""]:
        """log (L - L*) - log (L_0 - L*) - log tolerance; a start without any excess loss meets the rule."""
        excess = self._excess(weights, system)
        return jnp.where(excess <= 0, -1.0, _log(excess) - memory - jnp.log(self.tolerance))

    def describe(self) -> str:
        """A clause."""
        return f"the training loss reached {float(self.tolerance):.3g} of its first value"

    def _excess(self, weights: PyTree, system: System) -> Array:
        return system.train_loss(weights) - system.loss.minimum(system.problem.y_train)


class GradientNorm(AbstractStopRule):
    """Stop when ||grad_w L|| <= tolerance, the Euclidean norm over all trained weights."""

    tolerance: float

    def __check_init__(self):
        _require_positive(self, self.tolerance)

    def prepare(self, weights: PyTree, system: System) -> PyTree:
        """Nothing."""
        return ()

    def margin(self, weights: PyTree, system: System, memory: PyTree) -> Float[Array, ""]:
        """log ||grad_w L|| - log tolerance."""
        gradient = jax.grad(system.train_loss)(weights)
        return _log(tree_norm(gradient)) - jnp.log(self.tolerance)

    def describe(self) -> str:
        """A clause."""
        return f"the gradient norm reached {float(self.tolerance):.3g}"


class Movement(AbstractStopRule):
    """Stop when ||w - w_0|| >= tolerance * ||w_0||, norms over all trained weights.

    Weights that start at zero have no relative movement: then the movement itself is compared with the tolerance.
    """

    tolerance: float

    def __check_init__(self):
        _require_positive(self, self.tolerance)

    def prepare(self, weights: PyTree, system: System) -> PyTree:
        """w_0 and the scale the movement is compared with."""
        norm = tree_norm(weights)
        return weights, jnp.where(norm > 0, norm, 1.0)

    def margin(self, weights: PyTree, system: System, memory: PyTree) -> Float[Array, ""]:
        """tolerance - ||w - w_0|| / ||w_0||."""
        start, scale = memory
        return self.tolerance - tree_norm(tree_subtract(weights, start)) / scale

    def describe(self) -> str:
        """A clause."""
        return f"the weights moved by {float(self.tolerance):.3g} of their first norm"


stop_kinds: dict[str, type[AbstractStopRule]] = {
    "relative_loss": RelativeLoss,
    "gradient_norm": GradientNorm,
    "movement": Movement,
}


def stop_rules(stop: object) -> tuple[AbstractStopRule, ...]:
    """`stop` as a tuple of rules: None is none, one rule is a tuple of one.

    **Raises:** `ConfigError` for anything else.
    """
    listed = () if stop is None else stop if isinstance(stop, tuple | list) else (stop,)
    rules = tuple(rule for rule in listed if isinstance(rule, AbstractStopRule))
    if len(rules) < len(listed):
        raise ConfigError(
            f"stop = {stop!r}; expected a stop rule such as gnflow.RelativeLoss(1e-8), several in a tuple, or None."
        )
    return rules
