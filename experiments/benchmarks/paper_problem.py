"""The problem, model and flow of Arbel et al. 2023 (arXiv 2302.02904, Section 5) at the paper's size."""

from typing import Any

import jax

import gnflow as gn


def paper_problem(n_train: int = 500, width: int = 5000, init_scale: float = 1.0) -> tuple[Any, Any, Any]:
    """(problem, model, Gauss-Newton flow) with d = 10, SiLU, a teacher of 5 units, damping max(1e-7, sigma_min)."""
    key = jax.random.key(0)
    problem = gn.problems.teacher_student(
        n_train=n_train, n_test=2000, input_dim=10, teacher_width=5, activation="silu", key=key
    )
    model = gn.models.MeanFieldNetwork(input_dim=10, width=width, init_scale=init_scale, key=key)
    flow = gn.flows.GaussNewtonFlow(damping=gn.damping.SmallestEigenvalue(factor=1.0, floor=1e-7))
    return problem, model, flow
