"""Stop rules with a history, which are looked at after accepted steps."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..geometry import AbstractTangent
from ._accuracy import shortening
from .stop import look

_FIRST_DECADE = 0.1  # of the time scale, before which a decade is as long as the first


class Watch(eqx.Module):
    """What the rules that are not bisected have come to, in the order of the run's rules.

    **Attributes:** `memories`: theirs; `margins`: at the last accepted step.
    """

    memories: tuple[PyTree, ...]
    margins: tuple[Float[Array, ""], ...]

    @classmethod
    def begin(cls, args: Any) -> "Watch":
        """At the start of an integration, which no rule ended. **Arguments:** `args`: of the integration (`Arguments`)."""
        watched = [memory for rule, memory in zip(args.rules, args.stop_memories, strict=True) if not rule.bisected]
        return cls(tuple(watched), tuple(jnp.ones(()) for _ in watched))

    def after(
        self,
        args: Any,
        time: Float[Array, ""],
        state: tuple[PyTree, dict[str, Array]],
        tangent: AbstractTangent,
        accepted: Bool[Array, ""],
    ) -> "Watch":
        """After a step to `state` at `time`, where the training inputs have `tangent`; unchanged by a rejected one."""
        rules = tuple(rule for rule in args.rules if not rule.bisected)
        if not rules:
            return self

        def looked() -> Watch:
            snapshot = args.measurement.snapshot(time, state[0], args.system, state[1], tangent)
            return Watch(*look(rules, snapshot, self.memories))

        return jax.lax.cond(accepted, looked, lambda: self)

    @staticmethod
    def limited(args: Any, start: Any, end: Float[Array, ""], rtol: Float[Array, ""]) -> Float[Array, ""]:
        """The end of a step from `start` to `end`, or an earlier one that the rules' looks ask for at the tolerance `rtol`."""
        decades = min((rule.decades_between_looks for rule in args.rules), default=math.inf)
        if math.isinf(decades):
            return end
        longest = (10 ** (decades * shortening(rtol)) - 1) * jnp.maximum(start, _FIRST_DECADE * args.time_scale)
        return jnp.minimum(end, start + longest)

    @staticmethod
    def found_in(controller_state: PyTree) -> "Watch":
        """The one that a controller's state holds."""
        leaves = jax.tree.leaves(controller_state, is_leaf=lambda node: isinstance(node, Watch))
        return next(leaf for leaf in leaves if isinstance(leaf, Watch))

    @property
    def over(self) -> Bool[Array, ""]:
        """Whether one of the rules is met."""
        return jnp.any(jnp.asarray([margin <= 0 for margin in self.margins], dtype=bool))
