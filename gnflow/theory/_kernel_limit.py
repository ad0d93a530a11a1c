"""In the kernel regime all flows generalise alike: test outputs follow the training outputs by the kernel alone."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..flows import AbstractFlow
from ..geometry import rank_cutoff
from ..simulate import RelativeLoss, Trajectory, simulate_once
from ._accuracy import BOUND_RESOLUTION, MOVED_RESOLUTION, ROUNDING, SAFETY, TINY, rms_residual
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, Error, compare, compare_along
from ._continuity import continuity
from ._convolution import Integral, mode_bound
from ._curves import Curves
from ._evidence import Evidence
from ._hypotheses import along_jacobian, continuous_time
from ._movement import Interpolation, interpolation_operator, movement_run
from ._reruns import TIGHTER, reference_rtol

_SOURCE = "docs/theorems/kernel_limit.md"
# The relative loss at which the other flow stops if the record has reached the infimum of the loss to the last digit.
_LEAST_LOSS = 1e-28


@dataclasses.dataclass(frozen=True)
class KernelLimit(AbstractTheorem):
    """Theorem I of docs/theorems/kernel_limit.md; the kernel regime: Jacot et al. 2018, Lee et al. 2019 (arXiv 1902.06720).

    A flow w' = -J^T a, any loss, A_0 invertible, S_0 = K_0(x, X) A_0^-1 and R_t = int_0^t ||f'_s(x) - S_0 f'_s|| ds. Then

        ||f_t(x) - f_0(x) - S_0 (f_t - f_0)|| <= R_t,

    R = 0 where the kernel does not move, and two flows from one start end no further apart on test inputs than
    ||S_0 (f - f~)|| + R + R~: nothing, where both reach the same training outputs in the kernel regime.

    **Arguments:**

    - `other`: a flow to compare with. It is run from the same start to the same relative loss. None checks the run alone, which
      needs one more run like it.
    """

    name: ClassVar[str] = "kernel limit"
    statement: ClassVar[str] = (
        "||f_t(x) - f_0(x) - S_0 (f_t - f_0)|| <= int ||f'(x) - S_0 f'|| ds, with S_0 = K_0(x, X) A_0^-1"
    )
    reference: ClassVar[str] = f"{_SOURCE}, Theorem I; Lee et al. 2019 (arXiv 1902.06720)"
    own_runs: ClassVar[bool] = True

    other: AbstractFlow | None = None

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A flow of the form w' = -J^T a, test inputs, an invertible first Gram matrix; runs that can be made."""
        checks = [
            continuous_time(evidence),
            along_jacobian(evidence.flow),
            Check.fact("the problem has test inputs", evidence.system.problem.x_test is not None),
        ]
        if self.other is not None:
            alike = _names(self.other) == _names(evidence.trajectory.flow)
            checks += [
                along_jacobian(self.other.dynamics, "the other flow has the form w' = -J^T a"),
                Check.fact(
                    "no weights decay along the other flow",
                    self.other.dynamics.decay(evidence.start, evidence.system) is None,
                ),
                Check.fact("the other flow moves the same weights", alike),
            ]
        yield (*checks,)
        eigenvalues = jnp.linalg.eigvalsh(jnp.asarray(evidence.start_gram))
        smallest, error = float(eigenvalues[0]), float(rank_cutoff(eigenvalues))
        remark = "error NC eps sigma_max of the eigendecomposition"
        yield (
            Check("sigma_min(A_0) > 0", smallest, ">", 0.0, error=error, remark=remark),
            {"sigma_min(A_0)": smallest, "sigma_max(A_0)": float(eigenvalues[-1])},
        )
        yield (continuity(evidence),)
        yield (evidence.repeated(movement_run(evidence)),)
        if self.other is not None:
            other = _other_evidence(evidence, self.other)
            reached = other is not None and movement_run(other) is not None
            passes = (continuity(other),) if other is not None and reached else ()
            yield *passes, Check.fact("the other flow reaches the same relative loss, twice", reached)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The run against its own kernel; and the two runs' test outputs against each other."""
        own = _measure(evidence)
        claims, constants = [_within(own)], _constants(own, evidence, "")
        if self.other is not None:
            other_evidence = _other_evidence(evidence, self.other)
            assert other_evidence is not None
            other = _measure(other_evidence)
            claims += [_within(other, " along the other flow"), _apart(own, other)]
            constants |= _constants(other, other_evidence, ", other flow")
            apart = claims[-1]
            movement = min(own.movement[-1], other.movement[-1])
            constants |= {
                "difference of the test outputs/their movement": apart.observed / movement,
                "its bound/their movement": apart.bound / movement,
            }
        later = slice(1, None)
        label = "||f(x) - f_0(x) - S_0 (f - f_0)||"
        curves = Curves(own.times[later], "flow time", label, own.gap[later], upper=own.bound.high[later])
        return Conclusion(tuple(claims), constants, (curves,))


@dataclasses.dataclass(frozen=True)
class _AgainstKernel:
    """A run against its first kernel, at the measured times (n,).

    **Attributes:**

    - `gap`: the distance of the test outputs to those of the kernel.
    - `movement`: how far the test outputs have moved.
    - `bound`: R.
    - `error`: the error of the gap.
    - `operator`: S_0.
    - `train`, `test`: the outputs at the end.
    """

    times: np.ndarray
    gap: np.ndarray
    bound: Integral
    movement: np.ndarray
    error: Error
    operator: np.ndarray
    train: np.ndarray
    test: np.ndarray


def _measure(evidence: Evidence) -> _AgainstKernel:
    again, system = movement_run(evidence), evidence.system
    assert again is not None
    accuracy, measured = dataclasses.replace(evidence.accuracy, reference=again), Interpolation.of(again)
    operator = np.asarray(interpolation_operator(system, evidence.start))
    ends = (evidence.start, system.weights(again.model), evidence.replicated_end)
    first, last, second = ((evidence.outputs(w), evidence.outputs(w, system.problem.x_test)) for w in ends)

    def residue(outputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return outputs[1] - first[1] - operator @ (outputs[0] - first[0])

    times, gap, movement = measured.times, measured.gap, measured.movement
    # The end by the weights themselves.
    gap[-1], movement[-1] = np.linalg.norm(residue(last)), np.linalg.norm(last[1] - first[1])
    bound = mode_bound(times, measured.mismatch[:, None], np.zeros(1))
    length = mode_bound(times, measured.speed[:, None], np.zeros(1)).value
    # Of the differences that S_0 multiplies, and of the mismatch along the path.
    size = np.linalg.norm(first[0]) + np.linalg.norm(last[0]) + length
    rounding = ROUNDING * (np.linalg.norm(first[1]) + movement + np.linalg.norm(operator) * size)
    between = np.linalg.norm(residue(last) - residue(second)) / max(movement[-1], TINY)
    # A step errs relative to the least residual so far.
    norms = np.sqrt(system.problem.num_train) * np.minimum.accumulate(rms_residual(accuracy.log_excess))
    with np.errstate(invalid="ignore"):  # nothing moves at the start
        promised = accuracy.steps * accuracy.relative_steps(norms) * (2 * movement + gap)
    promised = np.where(np.isnan(promised), 0.0, promised) + rounding
    # A difference beyond what the solver allows is no integration error.
    seen = np.maximum(SAFETY * between * movement, accuracy.rtol * gap) + rounding
    seen[0] = promised[0] = rounding[0]
    error = Error(np.minimum(seen, promised), np.maximum(seen, promised))
    return _AgainstKernel(times, gap, bound, movement, error, operator, *last)


def _within(run: _AgainstKernel, whose: str = "") -> Claim:
    bound = run.bound.value
    resolution = np.maximum(MOVED_RESOLUTION * run.movement, BOUND_RESOLUTION * bound)
    name = f"the test outputs follow the first kernel within R{whose}"
    return compare_along(name, run.times, run.gap, "<=", bound, run.error + run.bound.error, resolution)


def _apart(own: _AgainstKernel, other: _AgainstKernel) -> Claim:
    """The two flows' test outputs at their ends."""
    observed = float(np.linalg.norm(own.test - other.test))
    trained = float(np.linalg.norm(own.operator @ (own.train - other.train)))
    bound = trained + float(own.bound.value[-1] + other.bound.value[-1])
    error = own.error[-1] + other.error[-1] + own.bound.error[-1] + other.bound.error[-1]
    movement = min(own.movement[-1], other.movement[-1])
    resolution = max(MOVED_RESOLUTION * movement, BOUND_RESOLUTION * bound)
    name = "the two flows' test outputs differ by at most ||S_0 (f - f~)|| + R + R~"
    where = f"at t = {own.times[-1]:.4g} and {other.times[-1]:.4g}"
    return compare(name, observed, "<=", bound, error, resolution, where)


def _constants(run: _AgainstKernel, evidence: Evidence, whose: str) -> dict[str, float]:
    start, end = evidence.start_gram, np.asarray(evidence.system.tangent(evidence.flow_end).gram())
    sizes = np.linalg.norm(start), np.linalg.norm(end)
    movement = max(run.movement[-1], TINY)
    return {
        f"movement of the test outputs{whose}": float(run.movement[-1]),
        f"distance to the kernel's test outputs/movement{whose}": float(run.gap[-1] / movement),
        f"R/movement{whose}": float(run.bound.value[-1] / movement),
        f"kernel distance{whose}": float(0.5 * np.sum((end / sizes[1] - start / sizes[0]) ** 2)),
        f"relative NTK change{whose}": float(np.linalg.norm(end - start) / sizes[0]),
    }


def _names(flow: AbstractFlow) -> tuple[str, ...]:
    return (flow.trainable,) if isinstance(flow.trainable, str) else tuple(flow.trainable)


def _other_evidence(evidence: Evidence, flow: AbstractFlow) -> Evidence | None:
    """The other flow's run from the same start to the same relative loss, kept; None where it does not get there."""

    def make() -> tuple[AbstractFlow, Evidence | None]:
        run = _other_run(evidence, flow)
        return flow, None if run.result.failed else Evidence(run)

    # The key is the identity, because flows hold arrays, which have no hash. The flow itself is kept, too, so that no other
    # object can get the same identity.
    return evidence.once(("other flow", id(flow)), make)[1]


def _other_run(evidence: Evidence, flow: AbstractFlow) -> Trajectory:
    trajectory, logs = evidence.trajectory, evidence.recorded_log_excess
    return simulate_once(
        trajectory.problem,
        trajectory.initial_model,
        flow,
        stop=RelativeLoss(max(float(np.exp(logs[-1] - logs[0])), _LEAST_LOSS)),
        # As a run whose replicate and reference tell its error.
        rtol=TIGHTER * reference_rtol(trajectory),
        throw=False,
    )
