"""The movement of the kernel along a run, and the run that measures it, for bounds of the linearised model."""

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError
from ..flows import AbstractFlow
from ..geometry import Snapshot, System
from ..geometry.directions import decomposed_spectrum
from ..losses import ScaledIdentity
from ..metrics import AbstractMetric, Variable
from ..simulate import Trajectory
from ._evidence import Evidence
from ._measured import Measured, Quantity
from ._reruns import filled, spread_over

_NUM_TIMES = 40
_GAIN, _SPEED = "N/flow time", "outputs/flow time"


@dataclasses.dataclass(frozen=True)
class Movement(Measured):
    """The distance of the gain B_t of f' = -(1/N) B_t (f - y) from B_0, and its effect on the residual (squared loss).

    **Attributes:** at `times` (k,), with A_0 = Q diag(lam) Q^T and r = f - y:

    - `gain`: ||B_t - B_0|| in the operator norm (k,).
    - `residual`: Q^T r (k, NC).
    - `drive`: Q^T (B_t - B_0) r (k, NC).
    """

    prefix: ClassVar[str] = "movement"
    source: ClassVar[str] = "docs/theorems/linearised_distance.md"

    gain: Annotated[np.ndarray, Quantity("operator norm of the change of the gain", _GAIN)]
    residual: Annotated[np.ndarray, Quantity("residual in the modes of A_0", "outputs", ("kernel_mode",))]
    drive: Annotated[np.ndarray, Quantity("(B_t - B_0) r in those modes", f"outputs {_GAIN}", ("kernel_mode",))]


@dataclasses.dataclass(frozen=True)
class Interpolation(Measured):
    """The distance of the test outputs from those that the first kernel predicts from the training outputs, and its growth.

    **Attributes:** arrays (k,) over `times`, with S_0 = K_0(x, X) A_0^-1 and test inputs x:

    - `gap`: ||f_t(x) - f_0(x) - S_0 (f_t - f_0)||.
    - `mismatch`: ||f'_t(x) - S_0 f'_t||.
    - `speed`: ||f'_t||.
    - `movement`: ||f_t(x) - f_0(x)||.
    """

    prefix: ClassVar[str] = "interpolation"
    source: ClassVar[str] = "docs/theorems/kernel_limit.md"

    gap: Annotated[np.ndarray, Quantity("distance of the test outputs to the kernel's", "outputs")]
    mismatch: Annotated[np.ndarray, Quantity("||f'(x) - S_0 f'|| on test inputs", _SPEED)]
    speed: Annotated[np.ndarray, Quantity("||f'|| on training inputs", _SPEED)]
    movement: Annotated[np.ndarray, Quantity("change of the test outputs", "outputs")]


class GainMovement(AbstractMetric):
    """`Movement` at one state, as a metric for any run of the flow."""

    flow: AbstractFlow

    def variables(self, system: System) -> tuple[Variable, ...]:
        """The variables of `Movement`. **Raises:** `ConfigError` if no gain is known."""
        if not has_gain(self.flow, system):
            raise ConfigError(f"no gain B with f' = -(1/N) B (f - y) is known for {self.flow!r} with {system.loss!r}.")
        return Movement.variables()

    def prepare(self, start: Snapshot) -> PyTree:
        """Q and B_0, (NC, NC) each."""
        _, vectors, matrix = gain(self.flow, start.system, start.gram, start.time)
        return vectors, matrix

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """One Gram matrix and, for flows that solve, its eigendecomposition; the eigenvalues of a difference."""
        vectors, start = memory
        system = snapshot.system
        residual = (snapshot.train_outputs - system.problem.y_train).reshape(-1)
        change = gain(self.flow, system, snapshot.gram, snapshot.time)[2] - start
        # At the start itself two compilations of one matrix may round differently.
        change = jnp.where(snapshot.time > 0, change, 0.0)
        return Movement.named(
            gain=jnp.max(jnp.abs(jnp.linalg.eigvalsh(change))),
            residual=vectors.T @ residual,
            drive=vectors.T @ (change @ residual),
        )


class InterpolationMismatch(AbstractMetric):
    """`Interpolation` at one state.

    **Attributes:** `operator`: S_0, (nC, NC), from `interpolation_operator`.
    """

    operator: Float[Array, "test_rows rows"]

    def variables(self, system: System) -> tuple[Variable, ...]:
        """The variables of `Interpolation`. **Raises:** `ConfigError` without test inputs."""
        if system.problem.x_test is None:
            raise ConfigError("interpolation_gap compares test outputs; give the problem x_test and y_test.")
        return Interpolation.variables()

    def prepare(self, start: Snapshot) -> PyTree:
        """f_0 on training and test inputs."""
        return start.train_outputs, start.test_outputs

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """One velocity and two J products."""
        train, test = memory
        system, velocity = snapshot.system, snapshot.velocity
        speed = snapshot.tangent.jvp(velocity).reshape(-1)
        test_speed = system.tangent(snapshot.weights, system.problem.x_test).jvp(velocity).reshape(-1)
        change = (snapshot.train_outputs - train).reshape(-1)
        test_change = (snapshot.test_outputs - test).reshape(-1)
        return Interpolation.named(
            gap=jnp.linalg.norm(test_change - self.operator @ change),
            mismatch=jnp.linalg.norm(test_speed - self.operator @ speed),
            speed=jnp.linalg.norm(speed),
            movement=jnp.linalg.norm(test_change),
        )


def interpolation_operator(system: System, weights: PyTree) -> Float[Array, "test_rows rows"]:
    """S = K(x, X) A^-1 (nC, NC), which maps a change of the training outputs to that of the test outputs by the kernel."""
    tangent = system.tangent(weights)
    cross = system.tangent(weights, system.problem.x_test).cross_gram(tangent)
    return jnp.linalg.solve(tangent.gram(), cross.T).T


def movement_run(evidence: Evidence) -> Trajectory | None:
    """A run like the reference at `measured_times`, with those of both metrics above that are defined.

    None if it fails or has no length. It is made once for each `evidence`, so that two theorems share it.
    """
    return evidence.once("movement", lambda: _movement_run(evidence))


def _movement_run(evidence: Evidence) -> Trajectory | None:
    if not evidence.is_continuous or evidence.recorded_times[-1] <= 0:
        return None
    system = evidence.system
    metrics: list[AbstractMetric] = []
    if has_gain(evidence.flow, system):
        metrics.append(GainMovement(evidence.flow))
    if system.problem.x_test is not None:
        metrics.append(InterpolationMismatch(interpolation_operator(system, evidence.start)))
    return evidence.repeat(measured_times(evidence), tuple(metrics))


def measured_times(evidence: Evidence) -> np.ndarray:
    """The 40 times at which `movement_run` measures.

    These are up to 40 saved times spread over the record, including the first and the last; if there are fewer, also times
    between them. Their number is fixed, so that runs of one problem share a compiled program.
    """
    return filled(spread_over(evidence.recorded_times, _NUM_TIMES), _NUM_TIMES)


def has_gain(flow: AbstractFlow, system: System) -> bool:
    """Whether f' = -(1/N) B (f - y) with a B that `gain` computes.

    This needs the squared loss, a flow with a gain in a metric that is a multiple of the identity, and exact direction solves.
    """
    law = flow.gain(system)
    if law is None or flow.solves_iteratively or not system.loss.is_squared_distance:
        return False
    targets = system.problem.y_train
    return isinstance(law.metric.factor(system.loss, targets, targets), ScaledIdentity)


def gain(
    flow: AbstractFlow, system: System, gram: Float[Array, "rows rows"], time: Float[Array, ""]
) -> tuple[Float[Array, " rows"], Float[Array, "rows rows"], Float[Array, "rows rows"]]:
    """b, Q and B = Q diag(b) Q^T = beta(A): the gain of f' = -(1/N) B (f - y), for A = Q diag(lam) Q^T.

    beta(lam) = lam k(h lam) with the flow's gain k and H = h I. It is 0 on modes that the flow leaves out.
    """
    law = flow.gain(system)
    assert law is not None
    targets = system.problem.y_train
    factor = law.metric.factor(system.loss, targets, targets)
    assert isinstance(factor, ScaledIdentity)
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    positive = jnp.maximum(eigenvalues, 0.0)
    shift = law.damping.shift(time, decomposed_spectrum(gram, factor, factor.scale * eigenvalues))
    gains = positive * law(factor.scale * eigenvalues, shift)
    return gains, vectors, (vectors * gains[None, :]) @ vectors.T
