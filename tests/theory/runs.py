"""What the tests of theorems share: small runs, and runs whose record has been tampered with."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from facts.recording import make_problem, mean_field

import gnflow as gn


def run(flow: Any, *, problem: Any = None, model: Any = None, **options: Any) -> gn.Trajectory:
    """To a relative loss of 1e-4 unless told otherwise."""
    problem = make_problem() if problem is None else problem
    model = mean_field() if model is None else model
    return gn.simulate(problem, model, flow, **({"stop": gn.RelativeLoss(1e-4)} | options))


def single_sample() -> gn.Problem:
    """One sample with one output: all eigenvalues of the NTK are one number, and bands of rates have no width."""
    return gn.Problem(jnp.array([[0.3, -0.5]]), jnp.array([1.0]))


def tampered(trajectory: gn.Trajectory, **variables: Any) -> gn.Trajectory:
    """The run with other values of some variables in its record."""
    data = trajectory.data.copy(deep=True)
    for name, values in variables.items():
        data[name] = (data[name].dims, np.asarray(values))
    return dataclasses.replace(trajectory, data=data)


def slowed(trajectory: gn.Trajectory, factor: float) -> gn.Trajectory:
    """The run as if its loss had fallen at `factor` times its rate (the infimum of the loss is 0)."""
    loss = trajectory.data.train_loss.to_numpy()
    return tampered(trajectory, train_loss=loss[0] * (loss / loss[0]) ** factor)
