"""The extension point of stop rules."""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import ConfigError, ResultCode
from ...geometry import Snapshot, System

_TINY = float(jnp.finfo(jnp.float64).tiny)


class AbstractStopRule(eqx.Module):
    """A rule that ends a run: its margin is positive while the run goes on (docs/stop_rules.md).

    All methods but `describe`, `why_unmet`, `at_accuracy` and `is_over` are traced by JAX. A rule without a memory that
    changes is looked at after every step of `simulate`, and the time at which it is met is found to a relative 1e-6 by
    bisection within the step. A rule with a history sets `bisected` to False: it is looked at after accepted steps alone,
    and ends the run at the end of one. `iterate` looks at all rules after the steps that it saves.

    **Attributes:** `bisected`: whether the margin may be evaluated within a step; `decades_between_looks`: of flow time, at
    most, by which the rule shortens the steps of `simulate` (one exponential step may span many), and below the default
    tolerance in proportion to its fourth root; `code`: how a run ends that the rule ends.
    """

    bisected: ClassVar[bool] = True
    decades_between_looks: ClassVar[float] = float("inf")
    code: ClassVar[ResultCode] = ResultCode.STOP_RULE_MET

    def prepare(self, start: Snapshot) -> PyTree:
        """The memory at the first state; nothing by default.

        **Raises:** `ConfigError` where the rule is not defined for the problem, before anything is computed.
        """
        return ()

    @abc.abstractmethod
    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """Positive while the run goes on; zero or negative when the rule is met. Continuous along the flow if `bisected`."""

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """The memory after an accepted step, before the margin is asked for; the same by default. Only if not `bisected`."""
        return memory

    def is_over(self, time: float, weights: PyTree, system: System, flow: Any, horizon: float) -> bool:
        """Whether `simulate` is to end where the margin is used up: asked once more, outside of compiled programs, at flow time
        `time` of a run that may go on to `horizon`; where it says no, the rule is looked at again after the next step. True by
        default."""
        return True

    @abc.abstractmethod
    def describe(self) -> str:
        """The rule as a clause: 'the relative training loss reached 1e-08'."""

    def why_unmet(self) -> str:
        """What may keep the rule from ever being met, a sentence for a run that used up its steps; '' by default."""
        return ""

    def at_accuracy(self, rtol: float) -> "AbstractStopRule":
        """The rule for a run of which one step has the relative accuracy `rtol`; by default accuracy is nothing to it."""
        return self


def look(
    rules: tuple[AbstractStopRule, ...], snapshot: Snapshot, memories: tuple[PyTree, ...]
) -> tuple[tuple[PyTree, ...], tuple[Float[Array, ""], ...]]:
    """Memories and margins of the rules after a step that ended at `snapshot`."""
    memories = tuple(rule.update(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))
    return memories, tuple(rule.margin(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))


def log(value: Array) -> Array:
    """The natural logarithm, of zero that of the smallest number."""
    return jnp.log(jnp.maximum(value, _TINY))


def require_positive(rule: AbstractStopRule, example: float, below: float = math.inf, **values: Any) -> None:
    """**Raises:** `ConfigError` for what is no number, or one that is not positive and less than `below`.

    **Arguments:** `example`: a usual value, for the message; `values`: by the name of the rule's argument.
    """
    expected = f"a positive number below {below:g}" if math.isfinite(below) else "a positive, finite number"
    for name, value in values.items():
        # An array is a number that is passed to a compiled program.
        is_array = isinstance(value, jax.Array) and value.shape == ()
        is_number = isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)
        if not is_array and not (is_number and 0 < float(value) < below):
            raise ConfigError(f"{type(rule).__name__}({name}={value!r}); expected {expected}, such as {example:g}.")
