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
    """A rule that ends a run. Its margin is positive while the run goes on (docs/stop_rules.md).

    All methods but `describe`, `why_unmet`, `at_accuracy` and `is_over` are traced by JAX. A rule whose memory never changes is
    evaluated after every step of `simulate`, and the time at which it is met is found to a relative 1e-6 by root finding within
    the step. A rule with a history sets `bisected` to False: it is evaluated only after accepted steps, and ends the run at the
    end of one. `iterate` evaluates all rules after the steps that it saves.

    **Attributes:**

    - `bisected`: whether the margin may be evaluated within a step.
    - `decades_between_looks`: the most decades of flow time between two evaluations. The rule shortens the steps of `simulate`
      to this (one exponential step may span many decades), and below the default tolerance in proportion to the fourth root of
      the tolerance.
    - `code`: the result code of a run that the rule ends.
    """

    bisected: ClassVar[bool] = True
    decades_between_looks: ClassVar[float] = float("inf")
    code: ClassVar[ResultCode] = ResultCode.STOP_RULE_MET

    def prepare(self, start: Snapshot) -> PyTree:
        """The memory at the first state. It is empty by default.

        **Raises:** `ConfigError` if the rule is not defined for the problem, before anything is computed.
        """
        return ()

    @abc.abstractmethod
    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """Positive while the run goes on; zero or negative when the rule is met. Continuous along the flow if `bisected`."""

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """The memory after an accepted step, from which the margin is then computed. It stays the same by default.

        Only a rule that is not `bisected` may change its memory.
        """
        return memory

    def is_over(self, time: float, weights: PyTree, system: System, flow: Any, horizon: float) -> bool:
        """Whether `simulate` should end where the margin has become zero or negative. True by default.

        It is asked outside of compiled programs. If the answer is False, the rule is evaluated again after the next step.

        **Arguments:**

        - `time`: the flow time.
        - `weights`, `system`, `flow`: the weights there, the problem joined with the model's structure, and the flow.
        - `horizon`: the flow time up to which the run may go on.
        """
        return True

    @abc.abstractmethod
    def describe(self) -> str:
        """The rule as a clause: 'the relative training loss reached 1e-08'."""

    def why_unmet(self) -> str:
        """A sentence on what may keep the rule from being met, for a run that used up its steps. Empty by default."""
        return ""

    def at_accuracy(self, rtol: float) -> "AbstractStopRule":
        """The rule for a run whose steps have the tolerance `rtol`. By default it does not depend on that."""
        return self


def evaluate_rules(
    rules: tuple[AbstractStopRule, ...], snapshot: Snapshot, memories: tuple[PyTree, ...]
) -> tuple[tuple[PyTree, ...], tuple[Float[Array, ""], ...]]:
    """Memories and margins of the rules after a step that ended at `snapshot`."""
    memories = tuple(rule.update(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))
    return memories, tuple(rule.margin(snapshot, memory) for rule, memory in zip(rules, memories, strict=True))


def log(value: Array) -> Array:
    """The natural logarithm of `value`, or of the smallest positive number if `value` is smaller."""
    return jnp.log(jnp.maximum(value, _TINY))


def positive_field(what: str, example: float, *, default: Any = ..., **bounds: Any) -> Any:
    """A field that holds a positive number.

    **Arguments:**

    - `what`: its name in messages.
    - `example`: a usual value, which messages recommend.
    - `default`: the default value; without one the field is required.
    - `bounds`: further bounds of `require_number`.
    """
    return number_field(what, default=default, above=0.0, **bounds, remedy=f"A usual value is {example:g}.")
