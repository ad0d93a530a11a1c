"""Backtracking line search along the flow's direction."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from .._core import ConfigError, integer_field, number_field, tree_dot, tree_scale
from ..geometry import System
from ._base import AbstractOptimiser


class LineSearch(AbstractOptimiser):
    """w <- w + h u along the flow's velocity u with the first h of learning_rate shrinkage^k, k = 0, 1, ..., that has

        L(w + h u) <= L(w) + slope_fraction h <grad L(w), u>:

    Armijo's condition (Armijo 1966), with `optax.scale_by_backtracking_linesearch`. L and its gradient are those of the
    step's samples, whatever the flow: with mini-batches of the batch. If u does not descend, or no h of `max_trials` will
    do, as where L can fall by rounding only, no step is taken. Each step begins at `learning_rate` again.

    A step costs a gradient and a forward pass for each h more than that of other optimisers.

    **Arguments:** `learning_rate`: the longest step, positive, in units of flow time; `slope_fraction`: in (0, 1);
    `shrinkage`: in (0, 1); `max_trials`: how many h at most.

    **Raises:** `ConfigError` for a number outside these ranges, and where there are no samples to look at.
    """

    learning_rate: float = number_field("LineSearch: learning_rate", default=1.0, above=0.0)
    slope_fraction: float = number_field("LineSearch: slope_fraction", default=1e-4, above=0.0, below=1.0)
    shrinkage: float = number_field("LineSearch: shrinkage", default=0.5, above=0.0, below=1.0)
    max_trials: int = integer_field("LineSearch: max_trials", default=30, static=True)

    def init(self, weights: PyTree) -> PyTree:
        """Of the last search: h and the number of trials."""
        return self._optax().init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step along -gradient, and what is known of its search."""
        if system is None:
            raise ConfigError("LineSearch looks at the loss; give update(..., system=...) the samples of the step.")
        along = tree_scale(-1.0, gradient)
        value, true_gradient = jax.value_and_grad(system.train_loss)(weights)
        search = self._optax()
        step, state = search.update(
            # Each search begins anew: after one in vain Optax would go on from a step of 0, for ever.
            along,
            search.init(weights),
            weights,
            value=value,
            grad=true_gradient,
            value_fn=system.train_loss,
        )
        # Optax takes the last trial where none will do.
        met = (state.info.decrease_error <= 0) & (tree_dot(along, true_gradient) < 0)
        return jax.tree.map(lambda leaf: jnp.where(met, leaf, 0.0), step), state

    def _optax(self) -> optax.GradientTransformationExtraArgs:
        # Optax makes one trial more than its steps back, and begins at the smaller of the longest step and this multiple of
        # the last one.
        return optax.scale_by_backtracking_linesearch(
            max_backtracking_steps=self.max_trials - 1,
            slope_rtol=self.slope_fraction,
            decrease_factor=self.shrinkage,
            increase_factor=jnp.inf,
            max_learning_rate=self.learning_rate,
        )
