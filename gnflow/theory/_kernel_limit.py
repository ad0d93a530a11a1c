"""In the kernel regime every flow generalises alike: test outputs follow the training outputs through the kernel alone."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..flows import AbstractFlow, AbstractOutputFlow
from ..geometry import rank_cutoff
from ..simulate import RelativeLoss, Trajectory, simulate_once
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, worst_claim
from ._continuity import continuity
from ._convolution import Integral, mode_bound
from ._evidence import Evidence, rms_residual
from ._movement import interpolation_operator, movement_run
from ._reruns import reference_rtol

_SOURCE = "docs/theorems/kernel_limit.md"
_SAFETY = 2.0
_TIGHTER = 16.0  # the other flow as a run whose replicate and reference tell its error
# What a distance of test outputs must be known to: a hundredth of how far they have moved by then, or a tenth of the bound.
_MOVEMENT_RESOLUTION = 0.01
_BOUND_RESOLUTION = 0.1
_EPSILON = float(np.finfo(float).eps)
# A record that has reached the infimum of the loss to the last digit: where the other flow is to stop then.
_LEAST_LOSS = 1e-28


@dataclasses.dataclass(frozen=True)
class KernelLimit(AbstractTheorem):
    """Theorem I of docs/theorems/kernel_limit.md; the kernel regime: Jacot et al. 2018, Lee et al. 2019 (arXiv 1902.06720).

    A flow w' = -J^T a, any loss, A_0 invertible, S_0 = K_0(x, X) A_0^-1 and R_t = int_0^t ||f'_s(x) - S_0 f'_s|| ds. Then

        ||f_t(x) - f_0(x) - S_0 (f_t - f_0)|| <= R_t,

    R = 0 where the kernel does not move, and two flows from one start end no further apart on test inputs than
    ||S_0 (f - f~)|| + R + R~: nothing, where both reach the same training outputs in the kernel regime.

    **Arguments:** `other`: a flow to compare the run's with; it is run from the same start to the same relative loss. None
    checks the run alone, which takes one more run like it.
    """

    name: ClassVar[str] = "kernel limit"
    statement: ClassVar[str] = (
        "||f_t(x) - f_0(x) - S_0 (f_t - f_0)|| <= int ||f'(x) - S_0 f'|| ds, with S_0 = K_0(x, X) A_0^-1"
    )
    reference: ClassVar[str] = f"{_SOURCE}, Theorem I; Lee et al. 2019 (arXiv 1902.06720)"
    own_runs: ClassVar[bool] = True

    other: AbstractFlow | None = None

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """A flow of the form w' = -J^T a, test inputs, an invertible first Gram matrix; runs that can be made."""
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact("the flow has the form w' = -J^T a", isinstance(evidence.flow, AbstractOutputFlow)),
            Check.fact("the problem has test inputs", evidence.system.problem.x_test is not None),
        ]
        if self.other is not None:
            alike = _names(self.other) == _names(evidence.trajectory.flow)
            checks += [
                Check.fact(
                    "the other flow has the form w' = -J^T a",
                    isinstance(self.other.dynamics, AbstractOutputFlow)
                    and self.other.dynamics.decay(evidence.start, evidence.system) is None,
                ),
                Check.fact("the other flow moves the same weights", alike),
            ]
        if not all(check.met for check in checks):
            return Hypotheses(tuple(checks))
        eigenvalues = jnp.linalg.eigvalsh(evidence.system.tangent(evidence.start).gram())
        smallest, error = float(eigenvalues[0]), float(rank_cutoff(eigenvalues))
        remark = "error NC eps sigma_max of the eigendecomposition"
        checks.append(Check("sigma_min(A_0) > 0", smallest, ">", 0.0, error=error, remark=remark))
        constants = {"sigma_min(A_0)": smallest, "sigma_max(A_0)": float(eigenvalues[-1])}
        if not checks[-1].met:
            return Hypotheses(tuple(checks), constants)
        checks.append(continuity(evidence))
        if not checks[-1].met:
            return Hypotheses(tuple(checks), constants)
        checks.append(evidence.repeated(movement_run(evidence)))
        if checks[-1].met and self.other is not None:
            other = _other_evidence(evidence, self.other)
            reached = other is not None and movement_run(other) is not None
            if other is not None and reached:
                checks.append(continuity(other))
            checks.append(Check.fact("the other flow reaches the same relative loss, twice", reached))
        return Hypotheses(tuple(checks), constants)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The run against its own kernel; and the two runs' test outputs against each other."""
        own = _measure(evidence)
        claims, constants = [_within(own)], _constants(own, evidence, "")
        if self.other is not None:
            other_evidence = _other_evidence(evidence, self.other)
            assert other_evidence is not None
            other = _measure(other_evidence)
            claims += [_within(other, " along the other flow"), _apart(evidence, own, other)]
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
class _Measured:
    """A run against its first kernel, at the measured times (n,); `train`, `test`: outputs at the end."""

    times: np.ndarray
    gap: np.ndarray
    bound: Integral
    movement: np.ndarray
    tolerance: np.ndarray
    error_bound: np.ndarray
    operator: np.ndarray
    train: np.ndarray
    test: np.ndarray


def _measure(evidence: Evidence) -> _Measured:
    again, system = movement_run(evidence), evidence.system
    assert again is not None
    data = {name: again.data[f"interpolation_{name}"].to_numpy() for name in ("gap", "mismatch", "speed", "movement")}
    operator = np.asarray(interpolation_operator(system, evidence.start))
    first, last = (_outputs(evidence, weights) for weights in (evidence.start, system.weights(again.model)))
    second = _outputs(evidence, evidence.replicated_end)

    def residue(outputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return outputs[1] - first[1] - operator @ (outputs[0] - first[0])

    times, gap, movement = again.data.time.to_numpy(), data["gap"], data["movement"]
    # The end by the weights themselves.
    gap[-1], movement[-1] = np.linalg.norm(residue(last)), np.linalg.norm(last[1] - first[1])
    bound = mode_bound(times, data["mismatch"][:, None], np.zeros(1))
    length = mode_bound(times, data["speed"][:, None], np.zeros(1)).value
    # Of the differences that S_0 multiplies, and of the mismatch along the path.
    size = np.linalg.norm(first[0]) + np.linalg.norm(last[0]) + length
    rounding = 10 * _EPSILON * (np.linalg.norm(first[1]) + movement + np.linalg.norm(operator) * size)
    between = np.linalg.norm(residue(last) - residue(second)) / max(movement[-1], np.finfo(float).tiny)
    steps = max(again.stats["num_accepted_steps"], 1)
    with np.errstate(invalid="ignore"):  # nothing moves at the start
        worst = steps * _relative_step_errors(evidence, again) * (2 * movement + gap)
    error_bound = np.where(np.isnan(worst), 0.0, worst) + rounding
    # A difference beyond what the solver allows is no integration error.
    measured = np.maximum(_SAFETY * between * movement, again.settings["rtol"] * gap)
    tolerance, error_bound = np.minimum(measured + rounding, error_bound), np.maximum(measured + rounding, error_bound)
    tolerance[0] = error_bound[0] = rounding[0]
    return _Measured(times, gap, bound, movement, tolerance, error_bound, operator, *last)


def _relative_step_errors(evidence: Evidence, again: Trajectory) -> np.ndarray:
    """rtol + atol/r at the measured times, r the least rms residual so far."""
    settings = again.settings
    excess = np.maximum(again.data.train_loss.to_numpy() - evidence.minimum, 0.0)
    with np.errstate(divide="ignore"):
        return settings["rtol"] + settings["atol"] / np.minimum.accumulate(rms_residual(np.log(excess)))


def _outputs(evidence: Evidence, weights: object) -> tuple[np.ndarray, np.ndarray]:
    """Outputs on training and test inputs, (NC,) and (nC,)."""
    system = evidence.system
    test = system.outputs(weights, system.problem.x_test)
    return np.asarray(system.outputs(weights)).reshape(-1), np.asarray(test).reshape(-1)


def _within(run: _Measured, whose: str = "") -> Claim:
    later = slice(1, None)
    bound = run.bound.value
    error, at_worst = _integral_errors(run.bound)
    return worst_claim(
        f"the test outputs follow the first kernel within R{whose}",
        run.gap[later],
        bound[later],
        (bound - run.gap)[later],
        (run.tolerance + error)[later],
        (run.error_bound + at_worst)[later],
        np.maximum(_MOVEMENT_RESOLUTION * run.movement, _BOUND_RESOLUTION * bound)[later],
        [f"at t = {time:.4g}" for time in run.times[later]],
    )


def _apart(evidence: Evidence, own: _Measured, other: _Measured) -> Claim:
    """The two flows' test outputs at their ends."""
    observed = float(np.linalg.norm(own.test - other.test))
    trained = float(np.linalg.norm(own.operator @ (own.train - other.train)))
    bound = trained + float(own.bound.value[-1] + other.bound.value[-1])
    errors = [_integral_errors(run.bound) for run in (own, other)]
    movement = min(own.movement[-1], other.movement[-1])
    return Claim(
        "the two flows' test outputs differ by at most ||S_0 (f - f~)|| + R + R~",
        observed,
        bound,
        bound - observed,
        float(own.tolerance[-1] + other.tolerance[-1] + sum(error[-1] for error, _ in errors)),
        float(own.error_bound[-1] + other.error_bound[-1] + sum(at_worst[-1] for _, at_worst in errors)),
        float(max(_MOVEMENT_RESOLUTION * movement, _BOUND_RESOLUTION * bound)),
        f"at t = {own.times[-1]:.4g} and {other.times[-1]:.4g}",
    )


def _integral_errors(bound: Integral) -> tuple[np.ndarray, np.ndarray]:
    """As estimated, and at worst."""
    error = np.minimum(bound.error, bound.high - bound.low)
    return error, np.maximum(bound.high - bound.value, bound.error)


def _constants(run: _Measured, evidence: Evidence, whose: str) -> dict[str, float]:
    start, end = (np.asarray(evidence.system.tangent(w).gram()) for w in (evidence.start, evidence.flow_end))
    sizes = np.linalg.norm(start), np.linalg.norm(end)
    movement = max(run.movement[-1], np.finfo(float).tiny)
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

    # By identity, for flows hold arrays, which do not hash; the flow is kept, so that no other gets its identity.
    return evidence.once(("other flow", id(flow)), make)[1]


def _other_run(evidence: Evidence, flow: AbstractFlow) -> Trajectory:
    trajectory, logs = evidence.trajectory, evidence.recorded_log_excess
    return simulate_once(
        trajectory.problem,
        trajectory.initial_model,
        flow,
        stop=RelativeLoss(max(float(np.exp(logs[-1] - logs[0])), _LEAST_LOSS)),
        rtol=_TIGHTER * reference_rtol(trajectory),
        throw=False,
    )
