"""The a posteriori sandwich: the loss decays within a band of rates that the NTK's extreme eigenvalues set."""

import dataclasses
from typing import ClassVar

import numpy as np

from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, worst_claim
from ._continuity import continuity
from ._convolution import cumulative_integral, monotone_between
from ._evidence import Evidence
from ._invertible import invertibility
from ._rate_band import has_band
from ._solve_accuracy import largest_residual, solve_accuracy

# How finely agreement must be known: to a hundredth of a rate; to five of the logarithm by which the loss has fallen.
_RATE_RESOLUTION = 0.01
_LOSS_RESOLUTION = 0.05
_BAND = ("rate", "low", "high", "low_error", "high_error", "smallest", "eigenvalue_error", "damping")


@dataclasses.dataclass(frozen=True)
class Sandwich(AbstractTheorem):
    """Theorem P of docs/theorems/sandwich.md, from [A] (arXiv 2302.02904), without its a priori constants.

    Along any run with A invertible and J continuous, (L_0 - L*) exp(-int rho_high) <= L_t - L* <= (L_0 - L*) exp(-int rho_low),
    and the instantaneous rate -d/dt log(L - L*) lies in [rho_low, rho_high] at every time. For the squared loss and undamped
    Gauss-Newton flow the band has no width: the rate is exact.
    """

    name: ClassVar[str] = "sandwich"
    statement: ClassVar[str] = "rho_low <= -d/dt log(L - L*) <= rho_high, with rates from the extreme NTK eigenvalues"
    reference: ClassVar[str] = "docs/theorems/sandwich.md, Theorem P; Arbel et al. 2023 (arXiv 2302.02904)"

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Strong convexity, an invertible Gram matrix at every measured time, a band that is known."""
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact(
                "the flow has a gain that increases (gradient, Gauss-Newton, spectral, dual with the quadratic model)",
                has_band(evidence.flow, evidence.system),
            ),
        ]
        loss, count = evidence.system.loss, evidence.system.problem.num_train
        convexity, smoothness = loss.strong_convexity(count), loss.smoothness(count)
        checks.append(Check("mu > 0 (strong convexity)", convexity, ">", 0.0, remark=type(loss).__name__))
        checks += solve_accuracy(evidence)
        constants = {"mu": convexity, "lambda": smoothness}
        if not all(check.met for check in checks):
            return Hypotheses(tuple(checks), constants)
        found, spectrum = invertibility(evidence)
        if found[0].met:
            spectrum["largest damping"] = float(evidence.flow_run.data.band_damping.max())
            if all(check.met for check in found):
                found.append(continuity(evidence))
            found.append(monotone_between("rho"))
        return Hypotheses((*checks, *found), constants | spectrum)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Both sides, for the loss and for the instantaneous rate."""
        data = {name: evidence.flow_run.data[f"band_{name}"].to_numpy() for name in _BAND}
        data["solve_error"] = _solve_error(evidence, data)
        times = evidence.times
        places = [f"at t = {time:.4g}" for time in times]
        return Conclusion(
            claims=(*_integrated(evidence, data, times, places), *_pointwise(data, places)),
            constants={"smallest rho_low": float(data["low"].min()), "largest rho_high": float(data["high"].max())},
            curves=_curves(evidence, data, times),
        )


def _integrated(evidence: Evidence, data: dict[str, np.ndarray], times: np.ndarray, places: list[str]) -> list[Claim]:
    logs = evidence.log_excess
    fallen = (logs[0] - logs)[1:]
    claims = []
    for side, name, sign in (
        ("low", "the loss falls at least by exp(-int rho_low)", 1.0),
        ("high", "the loss falls at most by exp(-int rho_high)", -1.0),
    ):
        integral, error, at_worst = cumulative_integral(times, data[side])
        uncertain, _, _ = cumulative_integral(times, data[f"{side}_error"] + data["solve_error"])
        # Of what is predicted: an error beyond it leaves nothing that could fail.
        resolution = _LOSS_RESOLUTION * integral[1:]
        # The worst of the integration where that is fine enough: as measured it leaves out what is interpolated between saves.
        known = np.where(evidence.error_bound[1:] <= resolution, evidence.error_bound[1:], evidence.tolerance[1:])
        tolerance = known + (error + uncertain)[1:]
        error_bound = np.maximum(tolerance, (evidence.error_bound + at_worst + uncertain)[1:])
        slack = sign * (fallen - integral[1:])
        claims.append(worst_claim(name, fallen, integral[1:], slack, tolerance, error_bound, resolution, places[1:]))
    return claims


def _pointwise(data: dict[str, np.ndarray], places: list[str]) -> list[Claim]:
    known = np.flatnonzero(np.isfinite(data["rate"]))
    rate, resolution = data["rate"][known], _RATE_RESOLUTION * data["rate"][known]
    rounding = 1e-9 * rate  # of the outputs' products and of L - L*
    where = [places[index] for index in known]
    claims = []
    for side, name, sign in (("low", "rate >= rho_low", 1.0), ("high", "rate <= rho_high", -1.0)):
        bound = data[side][known]
        tolerance = (data[f"{side}_error"] + data["solve_error"])[known] + rounding
        claims.append(worst_claim(name, rate, bound, sign * (rate - bound), tolerance, tolerance, resolution, where))
    return claims


def _solve_error(evidence: Evidence, data: dict[str, np.ndarray]) -> np.ndarray:
    """By how much the solves for the direction may change the rate, (k,); 0 for gradient flow, which does not solve.

    A backward stable solver solves with A + E, ||E|| <= e: relative error e/(sigma_min + eps - e). A residual of relative norm
    p, which iterative solvers leave, moves g^T A K g by at most p kappa_high ||g||^2, the rate by p rho_high, that of a dual
    direction by 1 + gamma lambda_H sigma_max times as much. eps is that of H A; for H <= 1, as the metrics of gnflow are, that
    of A is no smaller.
    """
    if evidence.gain is not None and evidence.gain.constant is not None:
        return np.zeros(len(data["rate"]))
    error = data["eigenvalue_error"]
    relative = error / np.maximum(data["smallest"] + data["damping"] - error, np.finfo(float).tiny)
    rate = np.where(np.isfinite(data["rate"]), data["rate"], 0.0)
    residual = largest_residual(evidence)
    return rate * relative + (residual * data["high"] if residual > 0 else 0.0)


def _curves(evidence: Evidence, data: dict[str, np.ndarray], times: np.ndarray) -> tuple[Curves, ...]:
    logs = evidence.log_excess
    low, high = (cumulative_integral(times, data[side])[0] for side in ("low", "high"))
    later = slice(1, None)
    return (
        Curves(
            times[later],
            "flow time",
            "L - L*",
            np.exp(logs[later]),
            np.exp(logs[0] - high[later]),
            np.exp(logs[0] - low[later]),
        ),
        Curves(
            times[later],
            "flow time",
            "decay rate of the loss [1/flow time]",
            data["rate"][later],
            data["low"][later],
            data["high"][later],
        ),
    )
