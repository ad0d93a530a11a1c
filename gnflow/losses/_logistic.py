"""The logistic loss."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core import DataError, is_traced
from ._base import AbstractLoss
from ._conjugates import AbstractConjugate, log_shifted, rounding, times_logarithm, where_in_domain
from ._factors import AbstractOutputFactor, LogisticFactor, log_bernoulli_variance, times_exponential
from ._targets import as_columns, same_columns, target_array


class LogisticLoss(AbstractConjugate, AbstractLoss):
    """l(f, y) = log(1 + e^f) - y f, summed over the C independent logits, mean over samples.

    With p = 1/(1 + e^-f): g = (p - y)/N and H = diag(p (1 - p))/N, which is the Fisher metric too (the Bernoulli family
    is an exponential family and f its natural parameter). p (1 - p) <= 1/4, with equality at f = 0, and its infimum is
    0: L is 1/(4N)-smooth, not strongly convex.

    Results are accurate for logits of any finite size, as long as they are within float64's range.

    Targets: labels 0/1 or False/True, or probabilities in [0, 1]; (N,) for one logit or (N, C).
    """

    fisher_is_hessian: ClassVar[bool] = True
    gradient_in_hessian_image: ClassVar[bool] = True
    is_smooth: ClassVar[bool | None] = True
    targets_may_be_rescaled: ClassVar[bool | None] = False
    prediction: ClassVar[str] = "sign of the outputs"

    def correct(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, "..."]:
        """Whether the output is positive exactly if its target is above 1/2, (N, C)."""
        return (f > 0) == (y > 0.5)

    def probabilities(self, f: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The probability 1/(1 + exp(-f)) that each label is 1, (N, C)."""
        return jax.nn.sigmoid(f)

    def classes(self, f: Float[Array, "N C"]) -> Int[Array, "N C"]:
        """The likelier value of each label, 0 or 1, (N, C)."""
        return (f > 0).astype(int)

    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """(N,) becomes (N, 1); False and True become 0 and 1.

        **Raises:** `DataError` for targets outside [0, 1], NaN or inf, empty arrays, more than two dimensions, or
        different numbers of columns in train and test; `PrecisionError` unless JAX is in double precision.
        """

        def labels(y: Any, what: str) -> Float[Array, "N C"]:
            array = target_array(y, what)
            if is_traced(array):
                return as_columns(array)
            low, high = np.min(array), np.max(array)
            if low < 0 or high > 1:
                raise DataError(
                    f"{what} ranges from {low} to {high}, but LogisticLoss needs labels 0 and 1 (or probabilities "
                    f"between them). Map labels -1/+1 with ({what} + 1)/2; for several classes use SoftmaxCrossEntropy."
                )
            return as_columns(array)

        return same_columns(labels(y_train, "y_train"), None if y_test is None else labels(y_test, "y_test"))

    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """(1/N) sum of log(1 + e^f) - y f."""
        # Equal to -y log p - (1 - y) log(1 - p). This form keeps its relative accuracy when the loss is tiny.
        return jnp.sum(y * jax.nn.softplus(-f) + (1 - y) * jax.nn.softplus(f)) / f.shape[0]

    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """(p - y)/N."""
        # p - y = (1 - y) p - y (1 - p), where nothing cancels for labels 0 and 1.
        return ((1 - y) * jax.nn.sigmoid(f) - y * jax.nn.sigmoid(-f)) / f.shape[0]

    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """p (1 - p) v / N."""
        return jnp.exp(log_bernoulli_variance(f)) * v / f.shape[0]

    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """N v / (p (1 - p))."""
        return f.shape[0] * times_exponential(v, -log_bernoulli_variance(f))

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`LogisticFactor(f)`."""
        return LogisticFactor(f)

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`LogisticFactor(f)`, the Hessian's."""
        return self.hessian_factor(f, y)

    def strong_convexity(self, num_samples: int) -> float:
        """0: the curvature p (1 - p) vanishes as the logits grow."""
        return 0.0

    def smoothness(self, num_samples: int) -> float:
        """1/(4N)."""
        return 1 / (4 * num_samples)

    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """Mean over samples of the summed entropies of the targets; 0 for labels 0 and 1 (not attained)."""
        return jnp.sum(jax.scipy.special.entr(y) + jax.scipy.special.entr(1 - y)) / y.shape[0]

    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """Sum over outputs of p log p + (1 - p) log(1 - p) with p = y + alpha; infinite unless 0 <= p <= 1."""
        log_p, log_rest = log_shifted(alpha, y), log_shifted(-alpha, 1 - y)
        entropies = times_logarithm(y + alpha, log_p) + times_logarithm((1 - y) - alpha, log_rest)
        return where_in_domain(self.in_conjugate_domain(alpha, y), jnp.sum(entropies, axis=1))

    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """log p - log(1 - p) with p = y + alpha; infinite at p = 0 and p = 1."""
        logits = log_shifted(alpha, y) - log_shifted(-alpha, 1 - y)
        return jnp.where(self.in_conjugate_domain(alpha, y)[:, None], logits, jnp.nan)

    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """0 <= y + alpha <= 1 in every output."""
        slack = rounding(alpha)
        return jnp.all((y + alpha >= -slack) & (alpha - (1 - y) <= slack), axis=1)
