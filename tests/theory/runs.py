"""What the tests of theorems share: small runs, and runs whose record has been tampered with."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.theory import Certificate, Evidence, Verdict


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


def as_if(trajectory: gn.Trajectory, change: Callable[[gn.Trajectory], gn.Trajectory]) -> Evidence:
    """The evidence of a run if the flow itself went another way: both reruns changed, the record not."""
    evidence = Evidence(trajectory)
    assert evidence.reference is not None
    assert evidence.replicate is not None
    vars(evidence).update(reference=change(evidence.reference), replicate=change(evidence.replicate))
    return evidence


def failing(certificate: Certificate) -> list[str]:
    """The theorem's conclusions that are violated."""
    return [claim.name for claim in certificate.claims if claim.verdict == Verdict.VIOLATED]


def failing_record(certificate: Certificate) -> list[str]:
    """The comparisons that show the record to be no run of its flow."""
    return [claim.name for claim in certificate.record if claim.verdict == Verdict.VIOLATED]
