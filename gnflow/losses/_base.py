"""The extension point of losses."""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Bool, Float

from .._core import DataError
from ._factors import AbstractOutputFactor


class AbstractLoss(eqx.Module):
    """A convex loss of the outputs, L(f) = (1/N) sum_n l(f_n, y_n) (docs/theory.md, Objects).

    `f` are the outputs on the N samples, `y` the canonical targets (what `canonical_targets` returns), both (N, C) in
    float64. The mean over the samples is in the value and in every derivative.

    **Attributes:** `fisher_is_hessian`: whether the Fisher metric of the output distribution is the Hessian of the loss, as it
    is for exponential families in their natural parameters; `gradient_in_hessian_image`: whether g is in the image of the
    Hessian at all outputs and targets, so that a Gauss-Newton direction in its metric needs no more than the Hessian sees;
    `is_smooth`: whether l is infinitely differentiable in f, None where the class does not say; `has_constant_hessian`: whether
    the Hessian is the same at all outputs; `is_squared_distance`: whether L = ||f - y||^2/(2N), so that N g = f - y;
    `takes_labels`: whether whole numbers as targets are class labels; `prediction`: how an output is read as a class, a word or
    two, "" for a loss of numbers (`correct`).
    """

    fisher_is_hessian: ClassVar[bool]
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

    @abc.abstractmethod
    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """g = grad L(f)."""

    @abc.abstractmethod
    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """H v with the Hessian H of L at f."""

    @abc.abstractmethod
    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """H^+ v with the Moore-Penrose inverse of the Hessian. Infinite where the true number overflows; never nan."""

    @abc.abstractmethod
    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T = H, the Hessian of L at f."""

    @abc.abstractmethod
    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """R with R R^T the Fisher metric of the output distribution exp(-l(f, y)): blocks E[grad l grad l^T]/N.

        The whitened gradient in this metric is `fisher_factor(f, y).whiten(gradient(f, y))`.
        """

    @abc.abstractmethod
    def strong_convexity(self, num_samples: int) -> float:
        """The largest mu such that L is mu-strongly convex in f for all targets; 0 where there is no positive one."""

    @abc.abstractmethod
    def smoothness(self, num_samples: int) -> float:
        """The smallest lambda such that L is lambda-smooth in f for all targets."""

    @abc.abstractmethod
    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """L* = inf over all outputs f of L(f); it need not be attained."""

    @abc.abstractmethod
    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """l*(alpha_n) = sup_f <alpha_n, f> - l(f, y_n) for each sample: the Fenchel conjugate, infinite outside its domain.

        **Arguments:** `alpha`: dual variables of the samples, in the units of grad l(f_n): N times a gradient of L.
        """

    @abc.abstractmethod
    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The outputs f at which l* attains its supremum, so that grad l(f) = alpha: the inverse of the gradient.

        Of several such outputs one is taken (each class says which). Infinite where the supremum is only approached, on
        the boundary of the domain; nan for samples outside it, for which there are no such outputs.
        """

    @abc.abstractmethod
    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """Whether l* is finite, for each sample: the closure of the values of grad l, up to rounding."""
