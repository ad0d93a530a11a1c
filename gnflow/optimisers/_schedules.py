"""Schedules: factors by which the steps of `gnflow.iterate` are scaled."""

import abc

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .._core import ConfigError, integer_field, number_field, require_bool


class AbstractSchedule(eqx.Module):
    """The factor of each step, a function of its number 0, 1, ... `gnflow.iterate` also takes any schedule of Optax."""

    @abc.abstractmethod
    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The factor of a step, dimensionless and at least 0."""


class CosineDecay(AbstractSchedule):
    """From 1 to `end` along half a cosine, `optax.cosine_decay_schedule` (Loshchilov and Hutter 2017, without restarts).

    **Arguments:**

    - `num_steps`: the number of steps until `end`, at least 1; later steps have this factor too.
    - `end`: in [0, 1].

    **Raises:** `ConfigError` for a number outside these ranges.
    """

    num_steps: int = integer_field("CosineDecay: num_steps", static=True)
    end: float = number_field("CosineDecay: end", default=0.0, least=0.0, most=1.0)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """end + (1 - end) (1 + cos(pi step/num_steps))/2."""
        return jnp.asarray(optax.cosine_decay_schedule(1.0, self.num_steps, self.end)(step))


class ExponentialDecay(AbstractSchedule):
    """factor^(step/every), or with `staircase` the usual step schedule factor^floor(step/every): `optax.exponential_decay`.

    **Arguments:**

    - `factor`: positive.
    - `every`: the number of steps that the factor is for, at least 1.
    - `staircase`: whether the factor changes after every so many steps only.

    **Raises:** `ConfigError` for a number outside these ranges.
    """

    factor: float = number_field("ExponentialDecay: factor", above=0.0)
    every: int = integer_field("ExponentialDecay: every", static=True)
    staircase: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        require_bool(ConfigError, staircase=self.staircase)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The power of `factor`."""
        return jnp.asarray(optax.exponential_decay(1.0, self.every, self.factor, staircase=self.staircase)(step))
