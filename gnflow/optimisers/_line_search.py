"""A backtracking line search along the flow's direction."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from .._core import ConfigError, integer_field, number_field, tree_dot, tree_scale
from ..geometry import System
from ._base import AbstractOptimiser


class LineSearch(AbstractOptimiser):
    """w <- w + h u along the flow's velocity u, with the first h = learning_rate shrinkage^k, k = 0, 1, ..., that satisfies

        L(w + h u) <= L(w) + slope_fraction h <grad L(w), u>,

    Armijo's condition (Armijo 1966), by `optax.scale_by_backtracking_linesearch`. L and its gradient are those of the step's
    samples (with mini-batches those of the batch), for every flow. No step is made if u does not descend, or if none of
    `max_trials` values of h satisfies the condition, as where L can fall only by rounding. Each step begins at `learning_rate`
    again.

    Compared with other optimisers a step costs one more gradient, and a forward pass for each h.

    **Arguments:**

    - `learning_rate`: the largest h, positive, in units of flow time.
    - `slope_fraction`: the share of the slope that the decrease must reach, in (0, 1).
    - `shrinkage`: the factor between two values of h, in (0, 1).
    - `max_trials`: the largest number of values of h, at least 1.

    **Raises:** `ConfigError` for a number outside these ranges, and if `update` gets no samples.
    """

    learning_rate: float = number_field("LineSearch: learning_rate", default=1.0, above=0.0)
    slope_fraction: float = number_field("LineSearch: slope_fraction", default=1e-4, above=0.0, below=1.0)
    shrinkage: float = number_field("LineSearch: shrinkage", default=0.5, above=0.0, below=1.0)
    max_trials: int = integer_field("LineSearch: max_trials", default=30, static=True)

    def init(self, weights: PyTree) -> PyTree:
        """The state of the search, which holds the h and the number of trials of the last one."""
        return self._optax().init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step along -gradient, and the state of its search."""
        if system is None:
            raise ConfigError("LineSearch looks at the loss; give update(..., system=...) the samples of the step.")
        along = tree_scale(-1.0, gradient)
        value, true_gradient = jax.value_and_grad(system.train_loss)(weights)
        search = self._optax()
        step, state = search.update(
            # Each search begins with a new state: after a search without success Optax would start from a step of 0 for ever.
            along,
            search.init(weights),
            weights,
            value=value,
            grad=true_gradient,
            value_fn=system.train_loss,
        )
        # If no trial satisfies the condition Optax takes the last one.
        met = (state.info.decrease_error <= 0) & (tree_dot(along, true_gradient) < 0)
        return jax.tree.map(lambda leaf: jnp.where(met, leaf, 0.0), step), state

    def _optax(self) -> optax.GradientTransformationExtraArgs:
        # Optax makes one more trial than it has backtracking steps. It begins at the smaller of `max_learning_rate` and
        # `increase_factor` times the last step, which is infinite here.
        return optax.scale_by_backtracking_linesearch(
            max_backtracking_steps=self.max_trials - 1,
            slope_rtol=self.slope_fraction,
            decrease_factor=self.shrinkage,
            increase_factor=jnp.inf,
            max_learning_rate=self.learning_rate,
        )
