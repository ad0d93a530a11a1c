"""Output metrics H, in which Gauss-Newton measures a step."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .._core import look_up
from ..losses import AbstractLoss, AbstractOutputFactor, ScaledIdentity


class AbstractOutputMetric(eqx.Module):
    """A symmetric positive semi-definite H on outputs, given by a factor R with H = R R^T."""

    @abc.abstractmethod
    def factor(
        self, loss: AbstractLoss, outputs: Float[Array, "samples outputs"], targets: Float[Array, "samples outputs"]
    ) -> AbstractOutputFactor:
        """R at the given outputs (N, C)."""

    def is_hessian(self, loss: AbstractLoss) -> bool:
        """Whether H is the Hessian of `loss` at all outputs."""
        return False

    def is_constant(self, loss: AbstractLoss) -> bool:
        """Whether H is the same at all outputs. False by default, which is always safe."""
        return False

    def sees_gradient(self, loss: AbstractLoss) -> bool:
        """Whether the gradient of `loss` (and every column of its Hessian) is in the image of H at all outputs and targets.

        It is if H is regular. False by default, which is always safe: flows then compute the part outside.
        """
        return False

    def has_jumps(self, loss: AbstractLoss) -> bool:
        """Whether H may jump along a run. True by default, which is always safe."""
        return True


class IdentityMetric(AbstractOutputMetric):
    """H = I, as in the experiments of [A]. With the squared loss the flow's rate is 1/N."""

    def is_constant(self, loss: AbstractLoss) -> bool:
        """True."""
        return True

    def factor(
        self, loss: AbstractLoss, outputs: Float[Array, "samples outputs"], targets: Float[Array, "samples outputs"]
    ) -> AbstractOutputFactor:
        """R = I."""
        return ScaledIdentity(1.0)

    def sees_gradient(self, loss: AbstractLoss) -> bool:
        """True."""
        return True

    def has_jumps(self, loss: AbstractLoss) -> bool:
        """False."""
        return False


class HessianMetric(AbstractOutputMetric):
    """H is the Hessian of the loss: generalised Gauss-Newton. For the squared loss H = I/N, and the flow's rate is 1."""

    def is_constant(self, loss: AbstractLoss) -> bool:
        """True if the loss is quadratic."""
        return loss.has_constant_hessian

    def factor(
        self, loss: AbstractLoss, outputs: Float[Array, "samples outputs"], targets: Float[Array, "samples outputs"]
    ) -> AbstractOutputFactor:
        """A factor of the Hessian, which is singular for the softmax cross-entropy."""
        return loss.hessian_factor(outputs, targets)

    def is_hessian(self, loss: AbstractLoss) -> bool:
        """True."""
        return True

    def sees_gradient(self, loss: AbstractLoss) -> bool:
        """As the loss says; False for Huber's."""
        return loss.gradient_in_hessian_image

    def has_jumps(self, loss: AbstractLoss) -> bool:
        """True unless the loss is smooth: Huber's Hessian jumps where |f - y| = delta."""
        return not loss.is_smooth


class FisherMetric(AbstractOutputMetric):
    """H is the Fisher information of the output distribution: natural gradient (Amari 1998)."""

    def is_constant(self, loss: AbstractLoss) -> bool:
        """True if H is the Hessian of a quadratic loss."""
        return loss.fisher_is_hessian and loss.has_constant_hessian

    def factor(
        self, loss: AbstractLoss, outputs: Float[Array, "samples outputs"], targets: Float[Array, "samples outputs"]
    ) -> AbstractOutputFactor:
        """A factor of the Fisher information, which is the Hessian for exponential families."""
        return loss.fisher_factor(outputs, targets)

    def is_hessian(self, loss: AbstractLoss) -> bool:
        """True for exponential families in their natural parameters."""
        return loss.fisher_is_hessian

    def sees_gradient(self, loss: AbstractLoss) -> bool:
        """True. A direction v orthogonal to the image has v^T E[grad l grad l^T] v = 0. So v^T grad l = 0 for (almost) every
        target that the output distribution can draw, and for mixtures of these."""
        return True

    def has_jumps(self, loss: AbstractLoss) -> bool:
        """True if H is a Hessian that may jump; an expectation over the targets is smooth."""
        return self.is_hessian(loss) and not loss.is_smooth


output_metrics: dict[str, AbstractOutputMetric] = {
    "identity": IdentityMetric(),
    "hessian": HessianMetric(),
    "fisher": FisherMetric(),
}


def get_output_metric(metric: Any) -> AbstractOutputMetric:
    """The output metric called "identity", "hessian" or "fisher" (or `metric` itself if it is one).

    **Raises:** `ConfigError` for an unknown name, with the nearest valid one.
    """
    if isinstance(metric, AbstractOutputMetric):
        return metric
    return look_up(metric, output_metrics, "output metric")
