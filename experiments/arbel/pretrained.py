"""What a pre-trained start does to the a priori theorem: is its condition met, and is there anything left to train?

Theorem T of docs/theorems/a_priori.md asks that the path's bound l is less than the ball's radius R. Fitting the output layer
makes the loss at the start small, and l goes with its root.
"""

import dataclasses
import functools
from typing import Any

import jax

import gnflow as gn
from gnflow.theory._a_priori import APriori
from gnflow.theory._evidence import Evidence

_FLOWS = {
    "gauss_newton": gn.flows.GaussNewtonFlow(damping=gn.damping.SmallestEigenvalue(1.0, 1e-7)),
    "gradient_flow": gn.flows.GradientFlow(),
}


def row_of(problem: gn.Problem, model: gn.models.MeanFieldNetwork) -> dict[str, Any]:
    """A row: the loss of the fitted start relative to that of v = 0, its test loss, and l/R of both starts for both flows."""
    fitted = gn.geometry.fit_output_layer(model, problem)
    row: dict[str, Any] = {}
    for start, name in ((model, "zero"), (fitted, "fitted")):
        system = _FLOWS["gradient_flow"].system(problem, start)
        weights = system.weights(start)
        row |= {
            f"{name}_train_loss": float(system.train_loss(weights)),
            f"{name}_test_loss": float(system.test_loss(weights)),
        }
        for flow_name, flow in _FLOWS.items():
            constants = _constants(problem, start, flow)
            row |= {f"{name}_{flow_name}_{key}": constants.get(of, float("nan")) for key, of in _CONSTANTS.items()}
    return row


_CONSTANTS = {"sigma_0": "sigma_0", "R": "R", "path_over_radius": "length of the path/R"}


def _constants(problem: gn.Problem, start: Any, flow: gn.flows.AbstractFlow) -> dict[str, float]:
    """What the theorem's hypotheses come to at the start.

    They ask a trajectory for its parts alone, and need no integration: a tiny run lends its form.
    """
    parts = {
        "problem": gn.Problem(problem.x_train, problem.y_train),
        "initial_model": start,
        "model": start,
        "flow": flow,
    }
    return dict(APriori().hypotheses(Evidence(dataclasses.replace(_form(), **parts))).constants)


@functools.cache
def _form() -> gn.Trajectory:
    problem = gn.problems.teacher_student(n_train=3, n_test=0, input_dim=2, key=jax.random.key(0))
    model = gn.models.MeanFieldNetwork(2, 4, key=jax.random.key(0))
    return gn.simulate(problem, model, _FLOWS["gradient_flow"], t1=1e-6, stop=None, saveat=[0.0])
