"""The extension point of stop rules."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import ResultCode, number_field
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


def evaluate_rules(
    rules: tuple[AbstractStopRule, ...], snapshot: Snapshot, memories: tuple[PyTree, ...]
) -> tuple[tuple[PyTree, ...], tuple[Float[Array, ""], ...]]:
    """Memories and margins of the rules after a step that ended at `snapshot`."""
    memories = tuple(rule.update(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))
    return memories, tuple(rule.margin(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))


def log(value: Array) -> Array:
    """The natural logarithm, of zero that of the smallest number."""
    return jnp.log(jnp.maximum(value, _TINY))


def positive_field(what: str, example: float, *, default: Any = ..., **bounds: Any) -> Any:
    """A field that holds a positive number; **Arguments:** `what`: its name in messages; `example`: a usual value; `bounds`:
    further ones, of `require_number`."""
    return number_field(what, default=default, above=0.0, **bounds, remedy=f"A usual value is {example:g}.")
