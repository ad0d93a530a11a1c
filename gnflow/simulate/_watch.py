"""The state of the stop rules, which are evaluated after accepted steps."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..geometry import AbstractTangent
from ._accuracy import shortening
from .stop import evaluate_rules

_FIRST_DECADE = 0.1  # share of the loss's time scale; before it a decade is as long as the one that begins there
# How far a step may go beyond the time at which a rule is expected to be met, as a share of the time until then. The error
# relative to a residual far below the target is large, but says nothing about the run, which ends at the target.
_BEYOND = 0.2


class Watch(eqx.Module):
    """The state of the run's stop rules, in their order.

    **Attributes:**

    - `memories`: the memories of the rules.
    - `margins`: their margins at the last accepted step.
    - `due`: the flow time at which the first of the bisected rules is expected to be met if its margin falls on as in the last
      step.
    """

    memories: tuple[PyTree, ...]
    margins: tuple[Float[Array, ""], ...]
    due: Float[Array, ""]

    @classmethod
    def begin(cls, args: Any) -> "Watch":
        """The state at the start of an integration, where no rule has ended the run.

        **Arguments:**

        - `args`: the `Arguments` of the integration.
        """
        never = jnp.asarray(jnp.inf)
        margins = tuple(jnp.where(margin > 0, margin, never) for margin in args.first_margins)
        return cls(args.stop_memories, margins, never)

    def after(
        self,
        args: Any,
        start: Float[Array, ""],
        time: Float[Array, ""],
        state: tuple[PyTree, dict[str, Array]],
        tangent: AbstractTangent,
        accepted: Bool[Array, ""],
    ) -> "Watch":
        """The state after a step from `start` to `state` at `time`. A rejected step does not change it.

        **Arguments:**

        - `args`: the `Arguments` of the integration.
        - `start`, `time`: the flow times at which the step begins and ends.
        - `state`: weights and integrals at `time`.
        - `tangent`: the tangent on the training inputs there.
        - `accepted`: whether the step is accepted.
        """
        if not args.rules:
            return self

        def looked() -> Watch:
            snapshot = args.measurement.snapshot(time, state[0], args.system, state[1], tangent)
            memories, margins = evaluate_rules(args.rules, snapshot, self.memories)
            due = [
                time + _until_zero(before, margin) * (time - start)
                for rule, before, margin in zip(args.rules, self.margins, margins, strict=True)
                if rule.bisected
            ]
            return Watch(memories, margins, jnp.min(jnp.stack([jnp.asarray(jnp.inf), *due])))

        return jax.lax.cond(accepted, looked, lambda: self)

    def limited(self, args: Any, start: Any, end: Float[Array, ""], rtol: Float[Array, ""]) -> Float[Array, ""]:
        """The end of a step from `start` to `end`, or an earlier one.

        The step ends soon after the time at which a rule is due, and does not exceed the flow time between two looks of the
        rules at the tolerance `rtol`.
        """
        end = jnp.where(self.due > start, jnp.minimum(end, start + (1 + _BEYOND) * (self.due - start)), end)
        decades = min((rule.decades_between_looks for rule in args.rules), default=math.inf)
        if math.isinf(decades):
            return end
        longest = (10 ** (decades * shortening(rtol)) - 1) * jnp.maximum(start, _FIRST_DECADE * args.time_scale)
        return jnp.minimum(end, start + longest)

    @property
    def over(self) -> Bool[Array, ""]:
        """Whether any rule is met."""
        return jnp.any(jnp.asarray([margin <= 0 for margin in self.margins], dtype=bool))


def _until_zero(before: Float[Array, ""], now: Float[Array, ""]) -> Float[Array, ""]:
    """After how many more such steps a margin that fell from `before` to `now` is zero; infinite if it did not fall."""
    fall = before - now
    falls = jnp.isfinite(fall) & (fall > 0)
    return jnp.where(falls, now / jnp.where(falls, fall, 1.0), jnp.inf)
