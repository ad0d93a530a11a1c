"""What the tests of exact facts and of `simulate` share: one small problem, runs that record the state, a dense Jacobian.

Sizes, flows' parts and the number of saves are few on purpose: a run with other numbers uses the same compiled program.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow.geometry import Snapshot, System
from gnflow.metrics import AbstractMetric, PathLength, Variable
from gnflow.models import trainable_weights

NUM_TRAIN, NUM_TEST, INPUT_DIM, WIDTH = 4, 6, 2, 8
TIMES = (0.3, 1.0, 2.5)


class State(AbstractMetric):
    """The outputs and the weights, whole: what a user would write to see more than the losses."""

    def variables(self, system: System) -> tuple[Variable, ...]:
        return (
            Variable("train_outputs", "outputs on the training inputs", "1", "test", ("sample", "output")),
            Variable("test_outputs", "outputs on the test inputs", "1", "test", ("test_sample", "output")),
            Variable("weights", "all trained weights", "1", "test", ("weight",)),
        )

    def evaluate(self, snapshot: Snapshot, memory: Any) -> dict[str, jax.Array]:
        return {
            "train_outputs": snapshot.train_outputs,
            "test_outputs": snapshot.test_outputs,
            "weights": ravel_pytree(snapshot.weights)[0],
        }


def make_problem(seed: int = 0, num_outputs: int = 2, loss: Any = None) -> gn.Problem:
    """Random data; for a loss of labels, class 0 or 1."""
    keys = jr.split(jr.fold_in(jr.key(7), seed), 4)
    x_train, x_test = jr.normal(keys[0], (NUM_TRAIN, INPUT_DIM)), jr.normal(keys[1], (NUM_TEST, INPUT_DIM))
    y_train, y_test = jr.normal(keys[2], (NUM_TRAIN, num_outputs)), jr.normal(keys[3], (NUM_TEST, num_outputs))
    if isinstance(loss, gn.losses.SoftmaxCrossEntropy):
        y_train, y_test = (jax.nn.one_hot(jnp.argmax(y, axis=1), num_outputs) for y in (y_train, y_test))
    return gn.Problem(x_train, y_train, x_test, y_test, loss=gn.losses.SquaredLoss() if loss is None else loss)


def mean_field(seed: int = 0, activation: str = "silu", width: int = WIDTH, num_outputs: int = 2) -> Any:
    """A two-layer network with output weights that are not zero."""
    key = jr.fold_in(jr.key(8), seed)
    return gn.models.MeanFieldNetwork(INPUT_DIM, width, num_outputs, activation, output_init_scale=1.0, key=key)


def mlp(seed: int = 0, activation: str = "tanh", bias: bool = True, depth: int = 2) -> gn.models.MLP:
    """A deep network in the NTK parametrisation."""
    key = jr.fold_in(jr.key(9), seed)
    return gn.models.MLP(INPUT_DIM, WIDTH, depth, 2, activation, bias=bias, key=key)


def equinox_mlp(seed: int = 0) -> eqx.nn.MLP:
    """A module that gnflow knows nothing about, with one output of shape ()."""
    return eqx.nn.MLP(INPUT_DIM, "scalar", WIDTH, 1, activation=jnp.tanh, key=jr.fold_in(jr.key(10), seed))


class Warped(eqx.Module):
    """f(x) = (w_0 tanh(w_1 x_0 + w_2 x_1), w_3 w_1 x_0) with w = theta + curvature theta^3 / 3, a bijection.

    It has fewer weights than there are outputs: then undamped Gauss-Newton is the same flow in any coordinates.
    """

    theta: jax.Array
    curvature: jax.Array  # integer, so it is not trained, and no other program for another value

    @classmethod
    def at(cls, weights: Any, curvature: int) -> "Warped":
        """The module whose w are `weights`."""
        theta = np.array(weights, dtype=float)
        for _ in range(60):
            theta -= (theta + curvature * theta**3 / 3 - np.asarray(weights)) / (1 + curvature * theta**2)
        return cls(jnp.asarray(theta), jnp.asarray(curvature))

    @property
    def weights(self) -> jax.Array:
        return self.theta + self.curvature * self.theta**3 / 3

    def __call__(self, x: jax.Array) -> jax.Array:
        w = self.weights
        return jnp.stack([w[0] * jnp.tanh(w[1] * x[0] + w[2] * x[1]), w[3] * w[1] * x[0]])


def record(problem: gn.Problem, model: Any, flow: Any, times: Any = TIMES, **options: Any) -> gn.Trajectory:
    """A run to times[-1] that saves the state at `times`; accurate to about 1e-9 unless told otherwise."""
    settings = {"solver": "dopri8", "rtol": 1e-10, "stop": None, "t1": float(times[-1]), "saveat": list(times)}
    return gn.simulate(problem, model, flow, **(settings | {"metrics": (State(), PathLength())} | options))


def steps(
    problem: gn.Problem, model: Any, flow: Any, step_size: float, num_steps: int, **options: Any
) -> gn.Trajectory:
    """Euler steps that record the state."""
    metrics = (State(), PathLength())
    return gn.iterate(problem, model, flow, step_size=step_size, num_steps=num_steps, metrics=metrics, **options)


def weights_along(trajectory: gn.Trajectory) -> list[list[np.ndarray]]:
    """The trained arrays at each saved time, in the order of the model's leaves."""
    system = trajectory.flow.system(trajectory.problem, trajectory.model)
    _, unravel = ravel_pytree(system.weights(trajectory.model))
    return [[np.asarray(a) for a in jax.tree.leaves(unravel(row))] for row in trajectory.data.weights.values]


def jacobian(model: Any, x: Any) -> np.ndarray:
    """J (nC, P) by forward mode, with the trained weights in the order of the model's leaves."""
    weights, structure = trainable_weights(model)
    vector, unravel = ravel_pytree(weights)

    def outputs(vector: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(unravel(vector), structure))(x).reshape(-1)

    return np.asarray(jax.jit(jax.jacfwd(outputs))(vector))


def residuals(trajectory: gn.Trajectory) -> np.ndarray:
    """f_t - y at the saved times, (times, NC)."""
    difference = trajectory.data.train_outputs.values - np.asarray(trajectory.problem.y_train)
    return difference.reshape(len(difference), -1)
