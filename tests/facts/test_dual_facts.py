"""The clock of dual Gauss-Newton flow: a mode lam of a linear model decays at the rate (1 + gamma) lam/(N + gamma lam)."""

import jax.random as jr
import numpy as np
from facts.recording import INPUT_DIM, NUM_TRAIN, State, jacobian, make_problem, residuals

import gnflow as gn

TIMES = (0.3, 1.0, 2.5)


def test_modes_of_a_linear_model_decay_as_the_table_of_time_units_says():
    problem, gamma = make_problem(5), 3.0
    model = gn.models.RandomFeatures(INPUT_DIM, 12, 2, "tanh", output_init_scale=1.0, output_scale=9.0, key=jr.key(3))
    flow = gn.flows.DualGaussNewtonFlow(gamma)
    trajectory = gn.simulate(
        problem, model, flow, stop=None, t1=TIMES[-1], saveat=list(TIMES), metrics=(State(),), solver="exponential"
    )
    jac = jacobian(model, problem.x_train)
    eigenvalues, vectors = np.linalg.eigh(jac @ jac.T)
    found = residuals(trajectory)
    rates = (1 + gamma) * eigenvalues / (NUM_TRAIN + gamma * eigenvalues)
    for time, residual in zip(trajectory.data.time.values, found, strict=True):
        expected = vectors @ (np.exp(-rates * time) * (vectors.T @ found[0]))
        np.testing.assert_allclose(residual, expected, rtol=0, atol=1e-9 * np.abs(found[0]).max())
    assert rates.max() > 2 * rates.min()  # neither Gauss-Newton's clock nor gradient flow's
    assert np.all(np.diff(trajectory.data.train_loss.values) < 0)
    assert trajectory.stats["num_accepted_steps"] <= 3  # one step to any time, but for the controller's first ones
    assert trajectory.stats["final_damping"] == 1 / gamma
