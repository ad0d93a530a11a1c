"""The extension point of losses."""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import ConfigError, DataError
from ._block_factor import BlockFactor
from ._factors import AbstractOutputFactor


class AbstractLoss(eqx.Module):
    """A convex loss of the outputs, L(f) = (1/N) sum_n l(f_n, y_n) (docs/theory.md, Objects).

    `f` are the outputs on the N samples, `y` the canonical targets (what `canonical_targets` returns), both (N, C) in
    float64. The mean over the samples is in the value and in every derivative.

    A class needs `canonical_targets`, `value` and `minimum`. Derivatives come from automatic differentiation of `value`, with
    errors of rounding relative to the largest curvature of a sample; closed forms are faster and, for outputs far out,
    more accurate. A value with kinks has the derivatives that JAX gives there: say `is_smooth = False`.

    **Attributes:** `fisher_is_hessian`: whether the Fisher metric of the output distribution is the Hessian of the loss, as it
    is for exponential families in their natural parameters; `gradient_in_hessian_image`: whether g is in the image of the
    Hessian at all outputs and targets, so that a Gauss-Newton direction in its metric needs no more than the Hessian sees;
    `is_smooth`: whether l is infinitely differentiable in f, None where the class does not say; `has_constant_hessian`: whether
    the Hessian is the same at all outputs; `is_squared_distance`: whether L = ||f - y||^2/(2N), so that N g = f - y;
    `takes_labels`: whether whole numbers as targets are class labels; `prediction`: how an output is read as a class, a word or
    two, "" for a loss of numbers (`correct`).
    """

    fisher_is_hessian: ClassVar[bool] = False
    gradient_in_hessian_image: ClassVar[bool] = False
    is_smooth: ClassVar[bool | None] = None
    has_constant_hessian: ClassVar[bool] = False
    is_squared_distance: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    prediction: ClassVar[str] = ""

    def correct(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, "..."]:
        """Whether the class that the outputs stand for is that of the targets: for each sample, or for each label of it.

        **Raises:** `DataError` for a loss whose targets are no classes.
        """
        raise DataError(f"{type(self).__name__} has no classes; take SoftmaxCrossEntropy or LogisticLoss for them.")

    @abc.abstractmethod
    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """Targets as the user has them, checked and brought to the form (N, C), float64, that the other methods take.

        **Arguments:** `y_train`: array of N targets; `y_test`: array of n targets, or None when there is no test data.

        **Returns:** the two canonical arrays; None stays None.

        Of arrays that JAX traces, inside `jax.jit` say, shapes and dtypes are checked and the numbers are not.

        **Raises:** `DataError` for targets that this loss cannot take; `PrecisionError` unless JAX runs in float64.
        """

    @abc.abstractmethod
    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """L(f)."""

    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """g = grad L(f), by automatic differentiation of `value`."""
        return jax.grad(self.value)(f, y)

    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """H v with the Hessian H of L at f, by automatic differentiation of `gradient`."""
        return jax.jvp(lambda outputs: self.gradient(outputs, y), (f,), (v,))[1]

    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """H^+ v with the Moore-Penrose inverse of the Hessian, from a `BlockFactor` of C products with it.

        Infinite where the true number overflows; never nan.
        """
        # H = R R^T and R has full rank on its image: H^+ = (R^T)^+ R^+, and R is symmetric here.
        factor = BlockFactor.of(self._hessian_blocks(f, y))
        return factor.whiten(factor.whiten(v))

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T = H, the Hessian of L at f: a `BlockFactor` of C products with the Hessian."""
        return BlockFactor.of(self._hessian_blocks(f, y))

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T the Fisher metric of the output distribution exp(-l(f, y)): blocks E[grad l grad l^T]/N.

        The whitened gradient in this metric is `fisher_factor(f, y).whiten(gradient(f, y))`. It is the Hessian's factor where
        the class says `fisher_is_hessian`; otherwise it is an integral over targets that no derivative gives.

        **Raises:** `ConfigError` for a class that says neither.
        """
        if not self.fisher_is_hessian:
            raise ConfigError(
                f"the Fisher metric of {type(self).__name__} is not known; write its `fisher_factor`, set `fisher_is_hessian = "
                'True` if it is the Hessian of the loss, or take another metric, such as metric="hessian".'
            )
        return self.hessian_factor(f, y)

    def strong_convexity(self, num_samples: int) -> float:
        """The largest mu such that L is mu-strongly convex in f for all targets; 0 where there is no positive one.

        0 unless the class says more: no rate is then promised.
        """
        return 0.0

    def smoothness(self, num_samples: int) -> float:
        """The smallest lambda such that L is lambda-smooth in f for all targets.

        Infinite unless the class says more.
        """
        return math.inf

    @abc.abstractmethod
    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """L* = inf over all outputs f of L(f); it need not be attained.

        Stop rules, controllers and theorems are about L - L*: a number that is too small makes a run look far from its end.
        """

    def _hessian_blocks(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C C"]:
        # L is a mean over samples: one product with the same vector for every sample gives a column of every block.
        columns = jax.vmap(lambda unit: self.hessian_product(f, y, jnp.broadcast_to(unit, f.shape)))(
            jnp.eye(f.shape[1])
        )
        return jnp.moveaxis(columns, 0, 2)
