"""Hypotheses that several theorems share, about the flow, the loss, the model and the Gram matrix along a run."""

from typing import Any

import numpy as np
from jaxtyping import PyTree

from .._core import is_own_class
from ..flows import AbstractFlow, AbstractOutputFlow
from ..geometry import System
from ..losses import ScaledIdentity
from ..models import MLP, Centred, Linearised, MeanFieldNetwork, RandomFeatures, has_kinks, kinked_activations
from ..problems import AbstractProblem
from ._claim import Check
from ._evidence import Evidence
from ._rate_band import has_band

# The largest relative residual at which the direction of an iterative solver counts as that of Gauss-Newton.
_LARGEST_RESIDUAL = 1e-6
LARGEST_FLOAT = float(np.finfo(np.float64).max)  # a threshold for "finite": inf - inf would be undecided
ANY_GAIN = "the flow has a gain (gradient, Gauss-Newton, spectral, dual with the quadratic model)"
_INCREASING_GAIN = (
    "the flow has a gain that increases (gradient, Gauss-Newton, spectral, dual with the quadratic model)"
)


def continuous_time(evidence: Evidence) -> Check:
    """The run is a flow, and not a sequence of steps."""
    return Check.fact("the run is a flow in continuous time", evidence.is_continuous)


def has_length(evidence: Evidence) -> Check:
    """The record goes on after its start."""
    times = evidence.recorded_times
    return Check.fact("the run has a length", len(times) > 1 and float(times[-1]) > 0)


def squared_loss(evidence: Evidence) -> Check:
    """L is 1/(2N) times a squared distance."""
    loss = evidence.system.loss
    return Check.fact("the loss is the squared loss", loss.is_squared_distance, type(loss).__name__)


def strong_convexity(evidence: Evidence) -> tuple[Check, dict[str, float]]:
    """mu > 0 in the outputs; with mu and lambda, the constants of strong convexity and of smoothness."""
    loss, count = evidence.system.loss, evidence.system.problem.num_train
    convexity = loss.strong_convexity(count)
    check = Check("mu > 0 (strong convexity)", convexity, ">", 0.0, remark=type(loss).__name__)
    return check, {"mu": convexity, "lambda": loss.smoothness(count)}


def increasing_gain(evidence: Evidence) -> Check:
    """Bounds of the eigenvalues of A are bounds of the flow's rates."""
    return Check.fact(_INCREASING_GAIN, has_band(evidence.flow, evidence.system))


def along_jacobian(flow: AbstractFlow, name: str = "the flow has the form w' = -J^T a", remark: str = "") -> Check:
    """The flow has the form w' = -J^T a.

    This is decided by its class, because a class with its own velocity could do anything. Weight decay is checked for all
    theorems at once (`AbstractTheorem.allows_decay`).
    """
    own = type(flow).velocity_and_diagnostics is not AbstractOutputFlow.velocity_and_diagnostics
    return Check.fact(name, isinstance(flow, AbstractOutputFlow) and not own, remark)


def scale_of_metric(evidence: Evidence, outputs: Any) -> float | None:
    """c if the flow's output metric H is c I at these outputs (N, C); None for another metric."""
    system = evidence.system
    factor = evidence.law.metric.factor(system.loss, outputs, system.problem.y_train)
    return float(factor.scale) if isinstance(factor, ScaledIdentity) else None


def metric_scale(evidence: Evidence) -> tuple[float | None, bool]:
    """c of H = c I and whether it is known to be constant; None for a metric that is not a multiple of the identity.

    This is for flows with the squared loss, whose Hessian is I/N. A metric of the user is only compared at the first and the
    last outputs.
    """
    scales = [scale_of_metric(evidence, evidence.system.outputs(weights)) for weights in (evidence.start, evidence.end)]
    if None in scales or scales[0] != scales[1]:
        return None, True
    return scales[0], is_own_class(type(evidence.law.metric))


def accurate_solves(evidence: Evidence) -> list[Check]:
    """The check that an iterative solver found the direction of Gauss-Newton. No check for other solvers."""
    if not evidence.flow.solves_iteratively:
        return []
    accuracy = evidence.accuracy
    remark = "at the measured times"
    if accuracy.is_amplified:
        remark += ', times 1 + gamma ||H A||; a smaller tol or products="dense" lowers it'
    name = "the direction is Gauss-Newton's (relative residual of the solve)"
    return [Check(name, accuracy.solve_residual, "<=", _LARGEST_RESIDUAL, rigorous=False, remark=remark)]


def invertible(evidence: Evidence) -> tuple[Check, dict[str, float]]:
    """A is invertible at every measured time of the reference, by its computed eigenvalues; and the extreme eigenvalues."""
    band = evidence.band
    least = int(np.argmin(band.smallest - band.eigenvalue_error))
    check = Check(
        "sigma_min > 0 along the run",
        float(band.smallest[least]),
        ">",
        0.0,
        error=float(band.eigenvalue_error[least]),
        rigorous=False,
        remark=f"least at t = {float(band.times[least]):.4g}, of {len(band.times)} measured times; "
        "error NC eps sigma_max of the eigendecomposition",
    )
    return check, {"least sigma_min": float(band.smallest.min()), "largest sigma_max": float(band.largest.max())}


def monotone_between(what: str) -> Check:
    """The assumption behind the error of `cumulative_integral`, for the certificate to name."""
    name = f"{what} is monotone between the measured times"
    return Check.fact(name, True, "assumed; nothing is measured there", rigorous=False)


def is_linear(system: System, weights: PyTree) -> bool:
    """Whether the structure of the model shows that it is linear (affine) in its trained weights. False means not known."""
    # Residuals of a linear model need not be linear.
    return system.problem.has_samples and _is_linear(system.structure, weights)


def _is_linear(structure: Any, weights: PyTree) -> bool:
    if isinstance(structure, Centred):
        return _is_linear(structure.model, weights.model)
    if isinstance(structure, RandomFeatures | Linearised):
        return True
    if isinstance(structure, MeanFieldNetwork):
        return weights.hidden_weight is None and weights.hidden_bias is None
    if isinstance(structure, MLP):
        return all(layer.weight is None and layer.bias is None for layer in weights.layers[:-1])
    return False


def smooth_velocity(problem: AbstractProblem, model: Any, flow: AbstractFlow, promised: bool | None = None) -> Check:
    """Whether w -> velocity(w) is infinitely differentiable, as far as the parts show it.

    **Arguments:**

    - `problem`, `model`, `flow`: the parts.
    - `promised`: what the user promises for parts that gnflow does not know; None without a promise.

    **Returns:** a `Check` that is met, not met, or unclear (for models and flows of the user without a promise).
    """
    name = "the velocity is a smooth function of the weights"
    system = flow.system(problem, model)
    kinked = False if is_linear(system, system.weights(model)) else has_kinks(model)
    if kinked is False and not problem.has_samples:  # derivatives of a model may have kinks that it has not
        kinked = system.has_kinks
    loss = type(problem.loss).__name__
    if problem.loss.is_smooth is False:
        return Check.fact(name, False, f"the Hessian of {loss} jumps")
    if kinked:
        return Check.fact(name, False, f"the activation {kinked_activations(model)[0]} has a kink")
    smooth = flow.dynamics.is_smooth(system)
    if kinked is False and smooth is not None and problem.loss.is_smooth:
        remark = "model, loss and flow" + ("" if smooth else "; where the damping does not switch")
        return Check.fact(name, True, remark, rigorous=smooth)
    unknown = type(model).__name__ if kinked is None else type(flow.dynamics).__name__ if smooth is None else loss
    if promised is None:
        return Check.unknown(name, f"not known of {unknown}; pass smooth=True if it is")
    return Check.fact(name, promised, f"on the caller's word for {unknown}", rigorous=False)
