"""A row of the table of truth as functions of all its weights in one vector."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from truth_field import FIELDS, State
from truth_problems import Row, build

from gnflow.simulate._measure import numbers_as_arrays

_ATOL_SHARE = 1e-3  # of rtol times the scale of a leaf


class Field:
    """A row's velocity, losses and Jacobians as functions of all weights in one vector."""

    def __init__(self, row: Row):
        problem, model, flow = build(row)
        self.system = flow.system(problem, model)
        weights = self.system.weights(model)
        self.arrays, static = eqx.partition((weights, numbers_as_arrays(flow), self.system), eqx.is_array)
        self.programs = programs_of(row.combination.name, row.combination.flow, static)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]
        self.start = np.concatenate([leaf.ravel() for leaf in leaves])
        self.sizes = [leaf.size for leaf in leaves]
        self.minimum = float(self.system.loss.minimum(problem.y_train))
        self.never_ascends = flow.dynamics.never_ascends(self.system)
        self.evaluations = 0

    def velocity(self, time: float, vector: np.ndarray) -> np.ndarray:
        """w' (P,)."""
        self.evaluations += 1
        return np.asarray(self.programs.velocity(self.arrays, time, vector))

    def jacobian(self, time: float, vector: np.ndarray) -> np.ndarray:
        """Dw' (P, P), exact where the derivative of the decomposition is finite, else by forward differences."""
        exact = np.asarray(self.programs.jacobian(self.arrays, time, vector))
        if np.all(np.isfinite(exact)):
            return exact
        middle = self.velocity(time, vector)
        step = np.sqrt(np.finfo(float).eps) * np.maximum(np.abs(vector), 1e-3 * np.max(np.abs(vector)))
        return np.stack(
            [
                (self.velocity(time, vector + step[i] * unit) - middle) / step[i]
                for i, unit in enumerate(np.eye(vector.size))
            ],
            axis=1,
        )

    def measured(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Loss, test loss, test outputs, rank and floor at one state."""
        return jax.tree.map(np.asarray, self.programs.measured(self.arrays, vector))

    def residual(self, loss: Any) -> np.ndarray:
        """r = sqrt(2 (L - L*))."""
        return np.sqrt(2 * np.maximum(np.asarray(loss, dtype=float) - self.minimum, 0.0))

    @property
    def time_scale(self) -> float:
        """(L - L*)/|dL/dt| at the start: the time in which the loss would vanish at its first rate."""
        loss, rate = self.programs.loss_and_rate(self.arrays, 0.0, self.start)
        return float((loss - self.minimum) / abs(rate))

    @property
    def fingerprint(self) -> np.ndarray:
        """The velocity's norm at the start and beside it, which tells a stored reference of another field."""
        beside = self.start + 0.1 * np.random.default_rng(0).standard_normal(self.start.size)
        return np.asarray([np.linalg.norm(self.velocity(0.0, vector)) for vector in (self.start, beside)])

    def difference_from_flow(self) -> float:
        """How far gnflow's own velocity is from this one at the start, relative."""
        own = np.asarray(self.programs.velocity_of_flow(self.arrays, 0.0, self.start))
        velocity = self.velocity(0.0, self.start)
        return float(np.linalg.norm(own - velocity) / np.linalg.norm(velocity))

    def atol(self, rtol: float, time_scale: float) -> np.ndarray:
        """Absolute tolerances (P,): a thousandth of rtol times the size of a leaf or of its first movement."""
        moved = np.abs(self.velocity(0.0, self.start)) * time_scale
        ends = np.cumsum(self.sizes)
        scales = [
            np.full(size, max(np.max(np.abs(self.start[end - size : end])), np.max(moved[end - size : end])))
            for size, end in zip(self.sizes, ends, strict=True)
        ]
        scale = np.concatenate(scales)
        return _ATOL_SHARE * rtol * np.where(scale > 0, scale, np.max(scale))


class Programs:
    """Compiled functions of (arrays, time, vector) of one combination, whose rows share everything but arrays.

    Plain `jax.jit` on arrays alone: one call takes a third of the time that it takes with whole modules as arguments.
    """

    def __init__(self, kind: str, static: Any):
        self.kind = kind
        self.static = static
        self.velocity = jax.jit(self._velocity)
        self.jacobian = jax.jit(jax.jacfwd(self._velocity, argnums=2))
        self.velocity_of_flow = jax.jit(self._velocity_of_flow)
        self.advanced = jax.jit(self._advanced)
        self.loss = jax.jit(self._loss)
        self.loss_and_rate = jax.jit(self._loss_and_rate)
        self.measured = jax.jit(self._measured)

    def _parts(self, arrays: Any, vector: Any) -> tuple[Any, Any, Any]:
        template, flow, system = eqx.combine(arrays, self.static)
        leaves, structure = jax.tree.flatten(template)
        ends = np.cumsum([leaf.size for leaf in leaves])
        split = [vector[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)]
        return jax.tree.unflatten(structure, split), flow, system

    def _outputs(self, arrays: Any, vector: Any) -> Any:
        weights, _, system = self._parts(arrays, vector)
        return system.outputs(weights).reshape(-1)

    def _velocity(self, arrays: Any, time: Any, vector: Any) -> Any:
        if self.kind not in FIELDS:
            return self._velocity_of_flow(arrays, time, vector)
        _, flow, system = self._parts(arrays, vector)
        targets = system.problem.y_train

        def evaluate(at: Any) -> Any:
            return self._outputs(arrays, at)

        outputs = evaluate(vector).reshape(targets.shape)
        now = jnp.asarray(time, dtype=jnp.float64)
        state = State(now, evaluate, vector, outputs, targets, system.loss, system.mobility)
        return FIELDS[self.kind](state, flow.dynamics)

    def _velocity_of_flow(self, arrays: Any, time: Any, vector: Any) -> Any:
        weights, flow, system = self._parts(arrays, vector)
        velocity = flow.velocity(jnp.asarray(time, dtype=jnp.float64), weights, system)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(velocity)])

    def _advanced(self, arrays: Any, time: Any, vector: Any, step: Any, count: Any) -> Any:
        """`count` midpoint steps from `time`."""

        def advance(number: Any, at: Any) -> Any:
            now = time + number * step
            middle = at + step / 2 * self._velocity(arrays, now, at)
            return at + step * self._velocity(arrays, now + step / 2, middle)

        return jax.lax.fori_loop(0, count, advance, vector)

    def _loss(self, arrays: Any, vector: Any) -> Any:
        weights, _, system = self._parts(arrays, vector)
        return system.train_loss(weights)

    def _loss_and_rate(self, arrays: Any, time: Any, vector: Any) -> tuple[Any, Any]:
        loss, slope = jax.value_and_grad(lambda at: self._loss(arrays, at))(vector)
        return loss, slope @ self._velocity(arrays, time, vector)

    def _measured(self, arrays: Any, vector: Any) -> dict[str, Any]:
        """`floor`: what a relative change of every weight by one rounding unit may do to L - L*, and that of L* itself."""

        weights, _, system = self._parts(arrays, vector)
        targets, epsilon = system.problem.y_train, jnp.finfo(jnp.float64).eps
        jacobian = jax.jacrev(lambda at: self._outputs(arrays, at))(vector)
        eigenvalues = jnp.linalg.eigvalsh(jacobian @ jacobian.T)
        moved = epsilon * (jnp.abs(jacobian) @ jnp.abs(vector))
        gradient = system.loss.gradient(system.outputs(weights), targets).reshape(-1)
        curvature = system.loss.smoothness(targets.shape[0]) / 2 * moved @ moved
        return {
            "loss": system.train_loss(weights),
            "test_loss": system.test_loss(weights),
            "test_outputs": system.outputs(weights, system.problem.x_test),
            "rank": jnp.sum(eigenvalues > eigenvalues.size * epsilon * jnp.max(jnp.abs(eigenvalues))),
            "floor": jnp.abs(gradient) @ moved + curvature + epsilon * jnp.abs(system.loss.minimum(targets)),
        }


_compiled: dict[str, Programs] = {}


def programs_of(name: str, kind: str, static: Any) -> Programs:
    """The combination's programs; those of another static part would be wrong, so that it is compared."""
    programs = _compiled.setdefault(name, Programs(kind, static))
    assert eqx.tree_equal(programs.static, static), name
    return programs
