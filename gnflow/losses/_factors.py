"""Factors R of an output metric H = R R^T, block diagonal over the samples.

A Gauss-Newton direction in its symmetric form needs R v, R^T v and a split g = R h + u of the gradient into the part that the
metric sees and the rest (docs/theory.md, Singular metrics). Where a metric can underflow its factor works with logarithms, so
that `whiten` is accurate also for large outputs, at which H itself is zero in float64.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import number_field

# exp(600) does not overflow, nor does its product with a number of ordinary size; its square does.
LARGEST_EXPONENT = 600.0


def times_exponential(v: Float[Array, "N C"], exponent: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """`v * exp(exponent)`; 0 where `v` is 0, infinite where the product overflows."""
    # The exponential is split into two finite factors, because 0 * inf would be nan.
    within = jnp.minimum(exponent, LARGEST_EXPONENT)
    return v * jnp.exp(within) * jnp.exp(jnp.minimum(exponent - within, LARGEST_EXPONENT))


def log_bernoulli_variance(logits: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """log p (1 - p) with p = 1 / (1 + exp(-logits)): finite for every logit."""
    return jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits)


def likeliest_class(log_probabilities: Float[Array, "N C"]) -> Bool[Array, "N C"]:
    """True at the most probable class of each sample (at the first of several)."""
    num_classes = log_probabilities.shape[1]
    return jax.nn.one_hot(jnp.argmax(log_probabilities, axis=1), num_classes, dtype=bool)


def deviation_from_mean(log_probabilities: Float[Array, "N C"], v: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """v_c - sum_j p_j v_j for each sample, without cancellation where one probability is nearly one."""
    likeliest = likeliest_class(log_probabilities)
    # Relative to the likeliest class its own term, which would nearly cancel, is exactly zero.
    relative = v - jnp.sum(jnp.where(likeliest, v, 0.0), axis=1, keepdims=True)
    return relative - jnp.sum(jnp.exp(log_probabilities) * relative, axis=1, keepdims=True)


class AbstractOutputFactor(eqx.Module):
    """A linear map R on outputs with H = R R^T, block diagonal over the samples. All its methods map (N, C) to (N, C)."""

    @abc.abstractmethod
    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """R v."""

    @abc.abstractmethod
    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """R^T v."""

    @abc.abstractmethod
    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """R^+ g: the h of least norm for which R h = g, or R h is nearest to g if g is not in the image of R.

        Infinite where the true number is too large for float64; never nan for finite outputs.
        """

    def unseen(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """u = g - R h with h = `whiten(g)`: the part of g outside the image of R (the image of H too); 0 if H is regular."""
        return g - self.product(self.whiten(g))


class ScaledIdentity(AbstractOutputFactor):
    """H = c I and R = sqrt(c) I.

    **Arguments:** `scale`: the number c > 0.

    **Raises:** `ConfigError` unless `scale` is positive and finite.
    """

    scale: float | Float[Array, ""] = number_field(
        "scale of a ScaledIdentity metric",
        above=0.0,
        remedy="For squared loss over N samples the Hessian is c I with c = 1/N.",
    )

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(c) v."""
        return jnp.sqrt(self.scale) * v

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(c) v."""
        return jnp.sqrt(self.scale) * v

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """g / sqrt(c)."""
        return g / jnp.sqrt(self.scale)

    def unseen(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """0."""
        return jnp.zeros_like(g)


class DiagonalFactor(AbstractOutputFactor):
    """H = diag(root^2) and R = diag(root).

    **Arguments:** `root`: the roots (N, C), not negative. The metric does not see an output whose root is 0: `whiten` returns 0
    there, and `unseen` the gradient.
    """

    root: Float[Array, "N C"]

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """root * v."""
        return self.root * v

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """root * v."""
        return self.root * v

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """g / root, and 0 where root is 0."""
        unseen = self.root == 0
        return jnp.where(unseen, 0.0, g / jnp.where(unseen, 1.0, self.root))

    def unseen(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """g where root is 0, 0 elsewhere."""
        return jnp.where(self.root == 0, g, 0.0)


class LogisticFactor(AbstractOutputFactor):
    """H = diag(p (1 - p)) / N and R = diag(sqrt(p (1 - p) / N)) with p = 1 / (1 + exp(-logits)).

    A `DiagonalFactor` in logarithms. p (1 - p) is never zero, but underflows for |logit| > 745. With logarithms a saturated
    output with the wrong sign gets its huge whitened gradient; with p (1 - p) = 0 it would get none.

    **Arguments:** `logits`: the outputs (N, C).
    """

    logits: Float[Array, "N C"]

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(p (1 - p) / N) v."""
        root = jnp.exp(log_bernoulli_variance(self.logits) / 2)
        return root * v / math.sqrt(self.logits.shape[0])

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(p (1 - p) / N) v."""
        return self.product(v)

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(N) g / sqrt(p (1 - p)); for the logistic loss's gradient this is (p - y) / sqrt(N p (1 - p))."""
        return math.sqrt(self.logits.shape[0]) * times_exponential(g, -log_bernoulli_variance(self.logits) / 2)

    def unseen(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """0."""
        return jnp.zeros_like(g)


class SoftmaxFactor(AbstractOutputFactor):
    """H = (1/N) blockdiag(diag(p) - p p^T), R = (1/sqrt(N)) blockdiag(diag(sqrt p) - p sqrt(p)^T).

    R R^T = (1/N) (diag(p) - p p^T - p p^T + (sum_c p_c) p p^T) = H since the probabilities sum to one. The image of R
    is the vectors that sum to zero over the classes; its kernel is spanned by sqrt(p).

    **Arguments:** `log_probabilities`: log p (N, C), finite; the probabilities of a row sum to one.
    """

    log_probabilities: Float[Array, "N C"]

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(p) (v - sqrt(p) <sqrt(p), v>) / sqrt(N) for each sample."""
        root = jnp.exp(self.log_probabilities / 2)
        likeliest = likeliest_class(self.log_probabilities)
        others = jnp.sum(jnp.where(likeliest, 0.0, root * v), axis=1, keepdims=True)
        along = others + jnp.sum(jnp.where(likeliest, root * v, 0.0), axis=1, keepdims=True)
        # For the likeliest class v - p v is computed as (1 - p) v: p may be one to the last digit.
        perpendicular = jnp.where(likeliest, -jnp.expm1(self.log_probabilities) * v - root * others, v - root * along)
        return root * perpendicular / math.sqrt(v.shape[0])

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(p) (v - <p, v>) / sqrt(N) for each sample."""
        root = jnp.exp(self.log_probabilities / 2)
        return root * deviation_from_mean(self.log_probabilities, v) / math.sqrt(v.shape[0])

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(N) g / sqrt(p), for g with rows that sum to zero (as the loss gradient's do).

        This h is perpendicular to the kernel, <sqrt(p), h> = sqrt(N) sum_c g_c = 0, and R h = sqrt(p) h / sqrt(N) = g.
        For the softmax cross-entropy it is (sqrt(p) - y / sqrt(p)) / sqrt(N). For any other g the result h has
        R h = g - p sum_c g_c.
        """
        return math.sqrt(g.shape[0]) * times_exponential(g, -self.log_probabilities / 2)

    def unseen(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """p sum_c g_c for each sample: 0, but for rounding, for the gradient of a softmax cross-entropy."""
        return jnp.exp(self.log_probabilities) * jnp.sum(g, axis=1, keepdims=True)
