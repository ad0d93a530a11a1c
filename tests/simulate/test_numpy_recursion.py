"""Steps of gradient descent, Gauss-Newton and random features against recursions in NumPy that share nothing with gnflow."""

import jax.random as jr
import numpy as np
import pytest

import gnflow as gn

# Differences that were seen are at most 3e-12, relative to the largest entry, where the Gram matrix is well conditioned.
RTOL = 3e-12
SAMPLES, INPUTS, WIDTH, STEPS = 12, 4, 60, 25
PROBLEM = gn.problems.teacher_student(n_train=SAMPLES, n_test=30, input_dim=INPUTS, teacher_width=3, key=jr.key(0))
DAMPING = gn.damping.SmallestEigenvalue(factor=1.0, floor=1e-7)


class Numpy:
    """A mean-field network of SiLU units as three arrays, with J written out."""

    def __init__(self, model):
        self.u, self.b, self.v = (
            np.array(part) for part in (model.hidden_weight, model.hidden_bias, model.output_weight[:, 0])
        )

    def __call__(self, x):
        z = x @ self.u.T + self.b
        return z / (1 + np.exp(-z)) @ self.v / len(self.v)

    def jacobian(self, x, hidden):
        z = x @ self.u.T + self.b
        sigmoid = 1 / (1 + np.exp(-z))
        features = z * sigmoid / len(self.v)
        slopes = sigmoid * (1 + z * (1 - sigmoid)) * self.v / len(self.v)
        weights = (slopes[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        return np.hstack([weights, slopes, features]) if hidden else features

    def move(self, change):
        width, size = len(self.v), self.u.size
        if change.size > width:
            self.u += change[:size].reshape(self.u.shape)
            self.b += change[size : size + width]
        self.v += change[-width:]


def recursion(model, method, step_size, hidden=True):
    """The losses on training and test data, from step 0 on, and the last network."""
    x, y, x_test, y_test = (
        np.asarray(a) for a in (PROBLEM.x_train, PROBLEM.y_train[:, 0], PROBLEM.x_test, PROBLEM.y_test[:, 0])
    )
    network, losses = Numpy(model), []
    for _ in range(STEPS + 1):
        losses.append((0.5 * np.mean((network(x) - y) ** 2), 0.5 * np.mean((network(x_test) - y_test) ** 2)))
        gradient, jacobian = (network(x) - y) / len(y), network.jacobian(x, hidden)
        if method == "gauss_newton":
            values, modes = np.linalg.eigh(jacobian @ jacobian.T)
            gradient = modes @ (modes.T @ gradient / (values + max(1e-7, values[0])))
        last = Numpy.__new__(Numpy)
        last.u, last.b, last.v = network.u.copy(), network.b.copy(), network.v.copy()
        network.move(-step_size * jacobian.T @ gradient)
    return np.array(losses), last


CASES = {
    "gradient descent": ("gradient", gn.flows.GradientFlow(mobility=1.0), 10.0, True),
    "Gauss-Newton": ("gauss_newton", gn.flows.GaussNewtonFlow(damping=DAMPING), 2.0, True),
    "random features": (
        "gauss_newton",
        gn.flows.Frozen(gn.flows.GaussNewtonFlow(damping=DAMPING), "output"),
        3.0,
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_recursion(case):
    method, flow, step_size, hidden = CASES[case]
    model = gn.models.MeanFieldNetwork(INPUTS, WIDTH, init_scale=1.0, output_init_scale=1.0, key=jr.key(1))
    run = gn.iterate(PROBLEM, model, flow, step_size=step_size, num_steps=STEPS, stop=None)
    losses, network = recursion(model, method, step_size, hidden)
    np.testing.assert_allclose(run.data.train_loss, losses[:, 0], rtol=RTOL)
    np.testing.assert_allclose(run.data.test_loss, losses[:, 1], rtol=RTOL)
    for found, expected in (
        (run.model.hidden_weight, network.u),
        (run.model.hidden_bias, network.b),
        (run.model.output_weight[:, 0], network.v),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=RTOL * np.abs(expected).max())
    assert losses[-1, 0] < 0.7 * losses[0, 0]  # something was trained
    moved = np.abs(network.u - np.asarray(model.hidden_weight)).max()
    assert (moved > 1e-3) == hidden
