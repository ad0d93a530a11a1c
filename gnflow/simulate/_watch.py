"""Stop rules, which are looked at after accepted steps."""

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
    """What the run's rules have come to, in their order.

    **Attributes:** `memories`: theirs; `margins`: at the last accepted step.
    """

    memories: tuple[PyTree, ...]
    margins: tuple[Float[Array, ""], ...]

    @classmethod
    def begin(cls, args: Any) -> "Watch":
        """At the start of an integration, which no rule ended. **Arguments:** `args`: of the integration (`Arguments`)."""
        return cls(args.stop_memories, tuple(jnp.ones(()) for _ in args.rules))

    def after(
        self,
        args: Any,
        time: Float[Array, ""],
        state: tuple[PyTree, dict[str, Array]],
        tangent: AbstractTangent,
        accepted: Bool[Array, ""],
    ) -> "Watch":
        """After a step to `state` at `time`, where the training inputs have `tangent`; unchanged by a rejected one."""
        if not args.rules:
            return self

        def looked() -> Watch:
            snapshot = args.measurement.snapshot(time, state[0], args.system, state[1], tangent)
            return Watch(*look(args.rules, snapshot, self.memories))

        return jax.lax.cond(accepted, looked, lambda: self)

    @staticmethod
    def limited(args: Any, start: Any, end: Float[Array, ""], rtol: Float[Array, ""]) -> Float[Array, ""]:
        """The end of a step from `start` to `end`, or an earlier one that the rules' looks ask for at the tolerance `rtol`."""
        decades = min((rule.decades_between_looks for rule in args.rules), default=math.inf)
        if math.isinf(decades):
            return end
        longest = (10 ** (decades * shortening(rtol)) - 1) * jnp.maximum(start, _FIRST_DECADE * args.time_scale)
        return jnp.minimum(end, start + longest)

    @property
    def over(self) -> Bool[Array, ""]:
        """Whether one of the rules is met."""
        return jnp.any(jnp.asarray([margin <= 0 for margin in self.margins], dtype=bool))
