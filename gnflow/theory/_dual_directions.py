"""The properties of dual Gauss-Newton directions, at the two ends of a run and along it."""

import dataclasses
import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled, tree_dot, tree_norm, tree_scale
from ..flows import DualGaussNewtonFlow, GaussNewtonFlow
from ..geometry import System
from ..geometry.damping import Constant
from ..geometry.dual import QuadraticOracle
from ._accuracy import ROUNDING
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, compare
from ._continuity import continuity
from ._evidence import Evidence

# Numbers of iterations after which directions are checked, up to the flow's own number.
_ITERATIONS = {"quadratic": (0, 1, 4, 16), "exact": (1, 4)}
_POWER_STEPS = 8
_MOST_OUTPUTS = 4096  # NC up to which a dense matrix is formed
_RESOLUTION = 1e-3  # of each claim's own unit: all are relative


@dataclasses.dataclass(frozen=True)
class DualDirections(AbstractTheorem):
    """Theorem D of docs/theorems/dual_directions.md: Roulet and Blondel 2024 (arXiv 2308.08886), Section 3, with our proof.

    After any number of iterations d(gamma) is a descent direction. After zero iterations it is that of the gradient. The
    objective P of the quadratic model falls in every iteration, and is within the duality gap of its minimum. The full solution
    is the damped Gauss-Newton direction for the squared loss. The exact model bounds the loss from both sides. Along the flow
    the loss does not rise.
    """

    name: ClassVar[str] = "dual directions"
    statement: ClassVar[str] = (
        "after any number of iterations d(gamma) descends, P(d) falls in each and is within the duality gap of its least; the "
        "loss does not rise along the flow"
    )
    reference: ClassVar[str] = (
        "docs/theorems/dual_directions.md, Theorem D; Roulet and Blondel 2024 (arXiv 2308.08886), Section 3"
    )

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A dual flow, on weights that the gradient moves."""
        flow = evidence.flow
        yield (Check.fact("the flow is a dual Gauss-Newton flow", isinstance(flow, DualGaussNewtonFlow)),)
        assert isinstance(flow, DualGaussNewtonFlow)
        slope = _slope(evidence.system, evidence.start)
        yield Check("||grad L|| > 0 at the start", slope, ">", 0.0), {"gamma": float(flow.gamma)}
        if evidence.is_continuous:
            yield continuity(evidence), evidence.repeated()

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The directions at the first and the last weights, and the loss along the reference."""
        flow, system = evidence.flow, evidence.system
        assert isinstance(flow, DualGaussNewtonFlow)
        ends = {"at the start": evidence.start, "at the end": evidence.end}
        ends = {where: weights for where, weights in ends.items() if _slope(system, weights) > 0}
        sequences = [_sequence(flow, system, weights, where) for where, weights in ends.items()]
        found = [one for sequence in sequences for one in sequence]
        claims = [_descent(found), _gap(sequences)]
        if flow.model == "quadratic":
            claims += [_zero_iterations(sequences), _decrease(sequences)]
            if system.loss.is_squared_distance and system.problem.y_train.size <= _MOST_OUTPUTS:
                claims.append(_damped_gauss_newton(flow, system, ends, sequences))
        elif flow.max_iterations is None:
            claims.append(_progress_of_the_loss(sequences))
        if evidence.is_continuous:
            claims.append(_no_ascent(evidence))
        constants = {
            "smallest cosine of a direction with minus the gradient": min(one.cosine for one in found),
            "largest condition number 1 + gamma ||J^T H J|| of the solve": max(one.condition for one in found),
        }
        return Conclusion(tuple(claims), constants)


@dataclasses.dataclass(frozen=True)
class _Found:
    """A direction d with its measured properties.

    **Attributes:**

    - `where`: the state and the number of iterations, in words.
    - `cosine`: the cosine of d and -grad L.
    - `off_gradient`: ||d/gamma + grad L|| / ||grad L||.
    - `objective`: (P(d) - L)/scale.
    - `gap`: the reported duality gap, divided by scale.
    - `progress`: L - ||d||^2/(2 gamma) - L(f + J d), divided by scale.
    - `rounding`: the rounding of these three.
    - `scale`: the size of the terms of the objective.
    - `condition`: 1 + gamma ||J^T H J||.
    - `amplification`: ||J|| ||a|| / ||J^T a||, where d = -gamma J^T a.
    - `gradient_rounding`: the relative rounding of grad L.
    """

    where: str
    cosine: float
    off_gradient: float
    objective: float
    gap: float
    progress: float
    rounding: float
    scale: float
    condition: float
    amplification: float
    gradient_rounding: float


def _slope(system: System, weights: PyTree) -> float:
    """||grad L||."""
    return float(tree_norm(jax.grad(system.train_loss)(weights)))


def _sequence(flow: DualGaussNewtonFlow, system: System, weights: PyTree, where: str) -> list[_Found]:
    """The directions of the flow's oracle after increasing numbers of iterations. The last one is the flow's own."""
    most = np.inf if flow.max_iterations is None else flow.max_iterations
    numbers = [number for number in _ITERATIONS[flow.model] if number < most]
    sequence = []
    for number in (*numbers, None):
        own = flow if number is None else dataclasses.replace(flow, max_iterations=number)
        words = "the flow's own solve" if number is None else f"{number} iteration" + "s" * (number != 1)
        values = jax.device_get(_measure(own, system, weights))
        sequence.append(_Found(f"{where}, {words}", **{name: float(value) for name, value in values.items()}))
    return sequence


@eqx.filter_jit
def _measure(flow: DualGaussNewtonFlow, system: System, weights: PyTree) -> dict[str, Any]:
    """The properties of one direction. Only d itself and its gap are taken from the oracle."""
    loss, targets, gamma = system.loss, system.problem.y_train, flow.gamma
    tangent = system.tangent(weights)
    outputs = tangent.outputs
    solution = flow.oracle.solve(tangent, loss, targets, gamma)
    gap = solution.diagnostics.duality_gap
    assert gap is not None
    direction = solution.displacement(tangent)
    change = tangent.jvp(direction)
    value, slope = system.train_loss(weights), jax.grad(system.train_loss)(weights)
    gradient = loss.gradient(outputs, targets)
    factor = loss.hessian_factor(outputs, targets)
    predicted = jnp.vdot(gradient, change)
    bend = jnp.sum(factor.transpose_product(change) ** 2) / 2
    proximity = tree_dot(direction, direction) / (2 * gamma)
    moved = loss.value(outputs + change, targets) - value
    scale = jnp.abs(predicted) + bend + proximity
    quadratic = flow.model == "quadratic"
    size = tree_norm(slope)
    spread = _norm(tangent.vjp, tangent.jvp, outputs)
    curvature = _norm(
        lambda values: tangent.vjp(factor.product(values)),
        lambda displacement: factor.transpose_product(tangent.jvp(displacement)),
        factor.transpose_product(outputs),
    )
    condition = 1 + gamma * curvature**2
    # The size of terms that cancel in P: those of <g, J d>, and for the exact model the difference of two losses.
    cancelled = spread * jnp.linalg.norm(gradient) * tree_norm(direction)
    if not quadratic:
        cancelled = cancelled + value + jnp.linalg.norm(gradient) * jnp.linalg.norm(outputs)
    return {
        "cosine": -tree_dot(direction, slope) / (tree_norm(direction) * size),
        "off_gradient": tree_norm(tree_add_scaled(tree_scale(1 / gamma, direction), 1.0, slope)) / size,
        "objective": ((predicted + bend if quadratic else moved) + proximity) / scale,
        "gap": gap / scale,
        "progress": -(moved + proximity) / scale,
        "rounding": ROUNDING * (1 + cancelled / scale + jnp.sqrt(condition)),
        "scale": scale,
        "condition": condition,
        "amplification": spread * gamma * jnp.linalg.norm(solution.coefficients) / tree_norm(direction),
        "gradient_rounding": ROUNDING * outputs.size**0.5 * (1 + spread * jnp.linalg.norm(gradient) / size),
    }


def _norm(transpose: Any, forward: Any, like: Float[Array, "..."]) -> Float[Array, ""]:
    """A lower estimate of the largest singular value of a linear map, by a few power steps."""
    vector = jnp.cos(jnp.arange(like.size, dtype=like.dtype)).reshape(like.shape)

    def step(vector: Array, _: None) -> tuple[Array, Array]:
        vector = vector / jnp.maximum(jnp.linalg.norm(vector), jnp.finfo(vector.dtype).tiny)
        again = forward(transpose(vector))
        return again, jnp.sqrt(jnp.abs(jnp.vdot(vector, again)))

    return jax.lax.scan(step, vector, None, length=_POWER_STEPS)[1][-1]


def _claim(name: str, found: list[_Found], observed: Any, relation: Any, bound: Any, error: Any) -> Claim:
    """A claim about one number for each direction."""
    where = [one.where for one in found]
    return compare(name, np.asarray(observed), relation, bound, np.asarray(error), _RESOLUTION, where)


def _descent(found: list[_Found]) -> Claim:
    # a = g + R z cancels by the condition number.
    rounding = [one.gradient_rounding + ROUNDING * one.condition * abs(one.cosine) for one in found]
    name = "cosine of d and -grad L > 0, whatever the number of iterations"
    return _claim(name, found, [one.cosine for one in found], ">=", 0.0, rounding)


def _gap(sequences: list[list[_Found]]) -> Claim:
    """P(d) - min P <= gap, with the smallest P that was found in the place of min P, which is at most that."""
    found, rows = [], []
    for sequence in sequences:
        best = min(sequence, key=lambda one: one.objective * one.scale)
        for one in sequence:
            left = one.objective - best.objective * best.scale / one.scale
            found.append(one)
            rows.append((left, one.gap, _objective_error(one, best)))
    left, gap, error = np.array(rows).T
    name = "P(d) - min P <= the duality gap (over the size of the terms of P)"
    return _claim(name, found, left, "<=", gap, error)


def _decrease(sequences: list[list[_Found]]) -> Claim:
    name = "P falls in every iteration"
    rows, where = [], []
    for sequence in sequences:
        for fewer, more in itertools.pairwise(sequence):
            after = more.objective * more.scale / fewer.scale
            rows.append((after, fewer.objective, _objective_error(fewer, more)))
            where.append(f"{more.where}, after {fewer.where.rpartition(', ')[2]}")
    if not rows:  # a flow of no iterations, the gradient's
        return compare(name, 0.0, "<=", 0.0, 0.0, _RESOLUTION, "there are none")
    after, before, error = np.array(rows).T
    return compare(f"{name} (over the size of its terms)", after, "<=", before, error, _RESOLUTION, where)


def _objective_error(one: _Found, other: _Found) -> float:
    """The error of the difference of two objectives, divided by the scale of the first.

    It is their rounding, plus that of conjugate gradients. Their residual is known to the condition number times the rounding
    of the right-hand side, and P is quadratic in it.
    """
    rounding = one.rounding + other.rounding * other.scale / one.scale
    with np.errstate(over="ignore"):  # an infinite error leaves everything open
        return float(rounding + np.square(ROUNDING * np.float64(one.condition)) * one.condition)


def _zero_iterations(sequences: list[list[_Found]]) -> Claim:
    first = [sequence[0] for sequence in sequences if sequence[0].where.endswith(" 0 iterations")]
    if not first:  # the flow itself takes none
        first = [sequence[0] for sequence in sequences]
    off, rounding = [one.off_gradient for one in first], [one.gradient_rounding for one in first]
    return _claim("d = -gamma grad L after no iteration (relative distance)", first, off, "==", 0.0, rounding)


def _progress_of_the_loss(sequences: list[list[_Found]]) -> Claim:
    own = [sequence[-1] for sequence in sequences]
    progress, rounding = [one.progress for one in own], [one.rounding for one in own]
    name = "L(f + J d) <= L - ||d||^2/(2 gamma) (over the size of the terms of P)"
    return _claim(name, own, progress, ">=", 0.0, rounding)


def _damped_gauss_newton(
    flow: DualGaussNewtonFlow, system: System, ends: dict[str, PyTree], sequences: list[list[_Found]]
) -> Claim:
    """The full solution against the same direction from the eigendecomposition of A, for the squared loss."""
    off = np.array([float(_off_gauss_newton(flow, system, weights)) for weights in ends.values()])
    outputs = system.problem.y_train.size
    own = [sequence[-1] for sequence in sequences]
    rounding = np.array([ROUNDING * outputs * (one.condition + one.amplification) for one in own])
    name = "solved to the end d is that of damped Gauss-Newton, eps = 1/gamma (relative distance)"
    return compare(name, off, "==", 0.0, rounding, _RESOLUTION, list(ends))


@eqx.filter_jit
def _off_gauss_newton(flow: DualGaussNewtonFlow, system: System, weights: PyTree) -> Float[Array, ""]:
    """||d - v|| over ||v||, v the velocity of damped Gauss-Newton flow."""
    tangent = system.tangent(weights)
    oracle = QuadraticOracle(products="dense")
    direction = oracle.solve(tangent, system.loss, system.problem.y_train, flow.gamma).displacement(tangent)
    velocity = GaussNewtonFlow("hessian", Constant(1 / flow.gamma)).velocity(0.0, weights, system)
    return tree_norm(tree_add_scaled(direction, -1.0, velocity)) / tree_norm(velocity)


def _no_ascent(evidence: Evidence) -> Claim:
    logs, times, loss = evidence.log_excess, evidence.times, evidence.accuracy.loss
    with np.errstate(invalid="ignore"):
        fallen, error = logs[:-1] - logs[1:], (loss[:-1] + loss[1:]).ordered()
    where = [f"from t = {first:.4g} to {last:.4g}" for first, last in itertools.pairwise(times)]
    # Only a fall beyond the error shows that there was no rise: a resolution of 0.
    name = "the loss does not rise: log L falls by at least 0"
    return compare(name, fallen, ">=", 0.0, error, 0.0, where)
