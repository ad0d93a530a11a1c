"""What the solvers' tests share: one compiled integration, small nonlinear problems, velocities written out densely."""

import dataclasses
import functools
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from facts.recording import NUM_TRAIN, WIDTH, make_problem, mean_field
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from simulate.linear import Linear

import gnflow as gn
from gnflow.flows import AbstractFlow, GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Exponential, SmallestEigenvalue
from gnflow.solvers import LinearisedTerm


@eqx.filter_jit
def integrate(
    term: LinearisedTerm,
    solver: Any,
    y0: Any,
    t1: Any,
    dt0: Any,
    saveat: diffrax.SaveAt | None = None,
    controller: Any = None,
    max_steps: int = 4096,
    event: Any = None,
) -> diffrax.Solution:
    """`diffrax.diffeqsolve` from t = 0, at fixed steps unless there is a controller; numbers given as arrays are no part of
    the program."""
    return diffrax.diffeqsolve(
        term,
        solver,
        0.0,
        t1,
        dt0,
        y0,
        saveat=diffrax.SaveAt(t1=True) if saveat is None else saveat,
        stepsize_controller=diffrax.ConstantStepSize() if controller is None else controller,
        adjoint=diffrax.ForwardMode(),
        max_steps=max_steps,
        event=event,
    )


def number(value: float) -> jax.Array:
    """A float64 array, which is no part of a compiled program."""
    return jnp.asarray(value, dtype=jnp.float64)


def rows(ys: Any) -> np.ndarray:
    """Saved weights, one vector in a row."""
    return np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(ys))


@dataclasses.dataclass(frozen=True)
class Nonlinear:
    """A flow on the mean-field network of eight particles, four samples and two outputs, to `end`.

    **Attributes:** `damping`: eps(t, sigma_min) of a Gauss-Newton flow with H = I, None for gradient flow; `decay`: rates of
    weight decay, by the field that holds the weights.
    """

    flow: AbstractFlow
    damping: Any
    end: float
    seed: int = 0
    decay: Any = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def term(self) -> LinearisedTerm:
        """What is integrated."""
        return LinearisedTerm(self.flow, self.flow.system(make_problem(self.seed), mean_field(self.seed)))

    @property
    def weights(self) -> Any:
        """The start."""
        return self.term.system.weights(mean_field(self.seed))

    @functools.cached_property
    def field(self) -> Any:
        """(t, vector of weights) -> w' as the whole Jacobian gives it."""
        problem, structure = make_problem(self.seed), self.term.system.structure
        _, unravel = ravel_pytree(self.weights)

        def residuals(vector: jax.Array) -> jax.Array:
            outputs = jax.vmap(eqx.combine(unravel(vector), structure))(problem.x_train)
            return (outputs - problem.y_train).reshape(-1)

        linear = jax.jit(lambda vector: (residuals(vector), jax.jacfwd(residuals)(vector)))
        names = ("hidden_weight", "hidden_bias", "output_weight")
        sizes = [getattr(self.weights, name).size for name in names]
        rates = np.repeat([self.decay.get(name, 0.0) for name in names], sizes)

        def velocity(time: float, vector: np.ndarray) -> np.ndarray:
            residual, jac = map(np.asarray, linear(vector))
            if self.damping is None:
                return -WIDTH * jac.T @ residual / NUM_TRAIN - rates * vector
            gram = jac @ jac.T
            shift = self.damping(time, max(np.linalg.eigvalsh(gram)[0], 0.0))
            pulled = jac.T @ np.linalg.solve(gram + shift * np.eye(len(gram)), residual / NUM_TRAIN)
            return -pulled - rates * vector

        return velocity

    @functools.cached_property
    def reference(self) -> Any:
        """The solution by SciPy's DOP853, as a function of time."""
        start = np.asarray(ravel_pytree(self.weights)[0])
        found = solve_ivp(self.field, (0.0, self.end), start, "DOP853", rtol=1e-12, atol=1e-14, dense_output=True)
        assert found.success
        return found.sol


NONLINEAR = {
    "gradient": Nonlinear(GradientFlow(), None, 2.0),
    "gauss-newton": Nonlinear(
        GaussNewtonFlow("identity", SmallestEigenvalue(1.0, floor=1e-7)),
        lambda _, smallest: max(1e-7, smallest),
        4.0,
    ),
    "gauss-newton, lifted damping": Nonlinear(
        GaussNewtonFlow("identity", Exponential(0.5, 1.0)), lambda time, _: 0.5 * np.exp(-time), 3.0
    ),
}


def errors_at_fixed_steps(case: Nonlinear, solver: Any, counts: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each number of steps the error at the end, and the largest at thirds of the last and the first step."""
    at_end, inside = [], []
    for count in counts:
        step = case.end / count
        times = np.array([step / 3, case.end / 2 + 2 * step / 3, case.end - step / 3, case.end])
        saveat = diffrax.SaveAt(ts=jnp.asarray(times))
        found = rows(integrate(case.term, solver, case.weights, number(case.end), number(step), saveat).ys)
        size = np.abs(found - case.reference(times).T).max(axis=1)
        at_end.append(size[-1])
        inside.append(size[:-1].max())
    return np.array(at_end), np.array(inside)


def slope(counts: Any, errors: np.ndarray) -> float:
    """The exponent of errors ~ counts^-slope."""
    return -np.polyfit(np.log(np.asarray(counts, dtype=float)), np.log(errors), 1)[0]


NUM_LINEAR = 6


def linear_solution(jac: np.ndarray, gain: Any, residual: np.ndarray, time: float) -> np.ndarray:
    """w(t) - w(0) of w' = -J^T psi(A) r / N for f linear in w and the squared loss, by modes; psi = `gain`.

    Modes that A does not have do not move.
    """
    eigenvalues, vectors = np.linalg.eigh(jac @ jac.T)
    there = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues, vectors = eigenvalues[there], vectors[:, there]
    moved = -np.expm1(-gain(eigenvalues) * eigenvalues * time / NUM_LINEAR) / eigenvalues
    return -jac.T @ vectors @ (moved * (vectors.T @ residual))


class Spectrum:
    """Samples on the axes: the weights of f = w . x decay to their limits, each at its own rate_k, exactly."""

    def __init__(self, rates: Any):
        self.rates = np.asarray(rates, dtype=float)
        self.scales = np.sqrt(self.rates * len(self.rates))
        self.limits = np.linspace(1, 2, len(self.rates))
        self.problem = gn.Problem(np.diag(self.scales), self.limits * self.scales)
        self.model = Linear.at(np.zeros(len(self.rates)), edge=10**18)  # stages may overshoot far
        self.flow = GradientFlow(1.0)
        self.system = self.flow.system(self.problem, self.model)
        self.start = self.system.weights(self.model)

    def weights(self, time: Any) -> np.ndarray:
        """w(t), one row for each time."""
        return self.limits * -np.expm1(-self.rates * np.asarray(time)[..., None])

    def loss(self, time: float) -> float:
        """L(t)."""
        return float(np.sum((self.scales * self.limits * np.exp(-self.rates * time)) ** 2) / 2 / len(self.rates))
