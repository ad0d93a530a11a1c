"""gamma that follows how well the model of a step predicts its loss."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import ConfigError, number_field, require_bool


class AdaptiveGamma(eqx.Module):
    """gamma by the rule of Levenberg and Marquardt: it grows where the model of a step is right, and shrinks where it is not.

    With the direction d of a step, on the samples of the step,

        rho = (L(w) - L(w + d)) / (L(f) - (1/N) sum_n q_n(f_n + J_n d)),

    the loss that is gained over what the model promises. The next gamma is `factor` times this one where rho > `grow_above`,
    this one over `factor` where rho < `shrink_below` or the loss is not finite, and the same in between, always within
    `smallest` and `largest`. A step costs one more J product and one more forward pass.

    rho is that of the whole direction d, whatever an optimiser then makes of it, and of the samples that d is made of. It sees
    how far the model of the loss reaches (with the exact model the linearisation alone), not how little a small batch says of
    other samples (docs/dual_study.md).

    Source: Marquardt 1963, "An algorithm for least-squares estimation of nonlinear parameters", with the bounds 1/4 and 3/4 of
    Martens 2010, "Deep learning via Hessian-free optimization", Section 4.1; gamma is the inverse of their damping.

    **Arguments:**

    - `initial`: the first gamma, positive, in units of 1/(H A).
    - `factor`: above 1.
    - `shrink_below`, `grow_above`: bounds of rho, in [0, 1] and not in the other order.
    - `smallest`, `largest`: bounds of gamma, positive.
    - `reject`: whether there is no step where L(w + d) >= L(w), as in Marquardt's method; False always steps, as in Martens'.

    **Raises:** `ConfigError` for a number outside these ranges, and if `initial` is not within `smallest` and `largest`.
    """

    initial: float = number_field("AdaptiveGamma: initial", default=1.0, above=0.0)
    factor: float = number_field("AdaptiveGamma: factor", default=2.0, above=1.0)
    shrink_below: float = number_field("AdaptiveGamma: shrink_below", default=0.25, least=0.0, most=1.0)
    grow_above: float = number_field("AdaptiveGamma: grow_above", default=0.75, least=0.0, most=1.0)
    smallest: float = number_field("AdaptiveGamma: smallest", default=1e-4, above=0.0)
    largest: float = number_field("AdaptiveGamma: largest", default=1e8, above=0.0)
    reject: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        require_bool(ConfigError, reject=self.reject)
        if any(eqx.is_array(number) for number in (self.initial, self.smallest, self.largest)):
            return
        if self.shrink_below > self.grow_above:
            raise ConfigError(
                f"AdaptiveGamma: shrink_below = {self.shrink_below:g} is above grow_above = {self.grow_above:g}; gamma would "
                "do both between them."
            )
        if not self.smallest <= self.initial <= self.largest:
            raise ConfigError(
                f"AdaptiveGamma: initial = {self.initial:g} is not between smallest = {self.smallest:g} and largest = "
                f"{self.largest:g}."
            )

    def ratio(self, actual: Float[Array, ""], predicted: Float[Array, ""], loss: Float[Array, ""]) -> Float[Array, ""]:
        """rho; 1/2 of the way between the bounds, which keeps gamma, where the promise is only rounding of the loss.

        **Arguments:** `actual`, `predicted`: by how much the loss falls, and by how much the model says so; `loss`: L(w).
        """
        judged = ~(jnp.abs(predicted) <= 16 * jnp.finfo(loss.dtype).eps * jnp.abs(loss))
        neutral = (self.shrink_below + self.grow_above) / 2
        return jnp.where(judged, actual / jnp.where(judged, predicted, 1.0), neutral)

    def next(self, gamma: Float[Array, ""], ratio: Float[Array, ""]) -> Float[Array, ""]:
        """gamma of the step after one with `gamma` and rho = `ratio`."""
        grows, shrinks = ratio > self.grow_above, ~(ratio >= self.shrink_below)
        moved = jnp.where(grows, gamma * self.factor, jnp.where(shrinks, gamma / self.factor, gamma))
        return jnp.clip(moved, self.smallest, self.largest)

    def accepts(self, ratio: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the step is taken."""
        return ratio > 0 if self.reject else jnp.ones((), dtype=bool)
