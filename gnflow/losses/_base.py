"""The abstract base of losses."""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core import ConfigError, DataError
from ._block_factor import BlockFactor
from ._factors import AbstractOutputFactor


class AbstractLoss(eqx.Module):
    """A convex loss of the outputs, L(f) = (1/N) sum_n l(f_n, y_n) (docs/theory.md, Objects).

    `f` are the outputs on the N samples, `y` the canonical targets (what `canonical_targets` returns), both (N, C) in
    float64. The mean over the samples is in the value and in every derivative.

    A class needs `canonical_targets`, `value` and `minimum`. Derivatives come from automatic differentiation of `value`, with
    rounding errors relative to the largest curvature of a sample. Closed forms are faster and, for large outputs, more
    accurate. At a kink of the value derivatives are what JAX gives there: say `is_smooth = False`.

    **Attributes:**

    - `fisher_is_hessian`: whether the Fisher metric of the output distribution is the Hessian of the loss, as it is for
      exponential families in their natural parameters.
    - `gradient_in_hessian_image`: whether g is in the image of the Hessian at all outputs and targets, so that a
      Gauss-Newton direction in its metric needs no more than the Hessian sees.
    - `is_smooth`: whether l is infinitely differentiable in f; None if the class does not say.
    - `has_constant_hessian`: whether the Hessian is the same at all outputs.
    - `is_squared_distance`: whether L = ||f - y||^2/(2N), so that N g = f - y.
    - `has_users_value`: whether the value is a function of the user's, which is then tried out before it is believed.
    - `takes_labels`: whether targets that are whole numbers are class labels.
    - `targets_may_be_rescaled`: True for a loss of f - y alone, so that targets may be shifted and scaled, and outputs with
      them; False for one whose targets are classes or probabilities; None if the class does not say.
    - `prediction`: how an output is read as a class (see `correct`), in a few words; "" for a loss without classes.
    """

    fisher_is_hessian: ClassVar[bool] = False
    gradient_in_hessian_image: ClassVar[bool] = False
    is_smooth: ClassVar[bool | None] = None
    has_constant_hessian: ClassVar[bool] = False
    is_squared_distance: ClassVar[bool] = False
    has_users_value: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    targets_may_be_rescaled: ClassVar[bool | None] = None
    prediction: ClassVar[str] = ""

    def correct(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, "..."]:
        """Whether outputs and targets stand for the same class, for each sample or for each of its labels.

        **Raises:** `DataError` for a loss whose targets are not classes.
        """
        raise self._without_classes()

    def probabilities(self, f: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The probabilities that the outputs stand for. **Raises:** `DataError` for a loss whose targets are not classes."""
        raise self._without_classes()

    def classes(self, f: Float[Array, "N C"]) -> Int[Array, "..."]:
        """The classes that the outputs stand for. **Raises:** `DataError` for a loss whose targets are not classes."""
        raise self._without_classes()

    def _without_classes(self) -> DataError:
        return DataError(f"{type(self).__name__} has no classes; take SoftmaxCrossEntropy or LogisticLoss for them.")

    @abc.abstractmethod
    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """The user's targets, checked and converted to the canonical form (N, C), float64, that the other methods take.

        Arrays that JAX traces (inside `jax.jit`) have no numbers yet: only their shapes and dtypes are checked.

        **Arguments:**

        - `y_train`: array of N targets.
        - `y_test`: array of n targets, or None without test data.

        **Returns:** the two canonical arrays; None stays None.

        **Raises:** `DataError` for targets that do not suit the loss; `PrecisionError` unless JAX runs in float64.
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
        # H = R R^T, so H^+ = (R^T)^+ R^+. Here R is symmetric, so that both factors are the same.
        factor = BlockFactor.of(self._hessian_blocks(f, y))
        return factor.whiten(factor.whiten(v))

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T = H, the Hessian of L at f: a `BlockFactor` of C products with the Hessian."""
        return BlockFactor.of(self._hessian_blocks(f, y))

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T the Fisher metric of the output distribution exp(-l(f, y)): blocks E[grad l grad l^T]/N.

        The whitened gradient in this metric is `fisher_factor(f, y).whiten(gradient(f, y))`. The base class returns the
        Hessian's factor if `fisher_is_hessian`. Otherwise the metric is an integral over targets, which no derivative of the
        value gives, and the class must override this method.

        **Raises:** `ConfigError` for a class that does neither.
        """
        if not self.fisher_is_hessian:
            raise ConfigError(
                f"the Fisher metric of {type(self).__name__} is not known; write its `fisher_factor`, set `fisher_is_hessian = "
                'True` if it is the Hessian of the loss, or take another metric, such as metric="hessian".'
            )
        return self.hessian_factor(f, y)

    def strong_convexity(self, num_samples: int) -> float:
        """The largest mu >= 0 such that L is mu-strongly convex in f for all targets.

        The base class returns 0, which promises no rate.
        """
        return 0.0

    def smoothness(self, num_samples: int) -> float:
        """The smallest lambda such that L is lambda-smooth in f for all targets.

        The base class returns infinity, which promises nothing.
        """
        return math.inf

    @abc.abstractmethod
    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """L* = inf over all outputs f of L(f), which need not be attained.

        Stop rules, controllers and theorems use L - L*. A number that is too small makes a run look far from its end.
        """

    def _hessian_blocks(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C C"]:
        # L is a mean over samples, so H is block diagonal: one product with the same unit vector for every sample gives a
        # column of every block.
        columns = jax.vmap(lambda unit: self.hessian_product(f, y, jnp.broadcast_to(unit, f.shape)))(
            jnp.eye(f.shape[1])
        )
        return jnp.moveaxis(columns, 0, 2)
