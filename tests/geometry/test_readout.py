"""The output layer solved exactly: against NumPy's least squares, for several kinds of models, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.geometry import Readout, TruncatedInverse, require_linear


def linear_problem(system, weights, group):
    """The columns of the output layer's Jacobian and y - f_0, by automatic differentiation of all weights."""
    leaves, tree = jax.tree.flatten(weights)
    here = jax.tree.leaves(group)

    def outputs(parts):
        filled = iter(parts)
        return system.outputs(
            jax.tree.unflatten(tree, [next(filled) if own else leaf for own, leaf in zip(here, leaves, strict=True)])
        )

    zero = [jnp.zeros_like(leaf) for own, leaf in zip(here, leaves, strict=True) if own]
    jacobians = jax.jacfwd(outputs)(zero)
    rest = np.asarray(system.problem.y_train - outputs(zero)).reshape(-1)
    return np.concatenate([np.asarray(part).reshape(rest.size, -1) for part in jacobians], axis=1), rest


MODELS = {
    "mean field": (lambda: mean_field(num_outputs=2), "output"),
    "deep, with a bias": (lambda: gn.models.MLP(2, 7, 2, 2, "tanh", key=jax.random.key(0)), "output"),
    "one particle layer by its path": (lambda: mean_field(num_outputs=2), "output_weight"),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_minimum_norm_least_squares_solution(name):
    make, readout = MODELS[name]
    problem, model = make_problem(num_outputs=2), make()
    system = gn.System(problem, model)
    weights = system.weights(model)
    group = require_linear(system, weights, readout)
    columns, rest = linear_problem(system, weights, group)
    for cutoff in (1e-12, 1e-3):
        solved = Readout.of(system, weights, group).solve(cutoff)
        # NumPy cuts singular values, which are roots of the eigenvalues.
        expected = np.linalg.lstsq(columns, rest, rcond=np.sqrt(cutoff))[0]
        flat = [
            np.ravel(leaf) for leaf, own in zip(jax.tree.leaves(solved), jax.tree.leaves(group), strict=True) if own
        ]
        np.testing.assert_allclose(np.concatenate(flat), expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())
        for leaf, other, own in zip(*map(jax.tree.leaves, (solved, weights, group)), strict=True):
            assert own or np.array_equal(leaf, other)
        residual = np.asarray(problem.y_train - system.outputs(solved)).reshape(-1)
        np.testing.assert_allclose(residual, rest - columns @ expected, atol=1e-8)


def test_it_agrees_with_the_metric_of_hidden_learning():
    """Which refits the features that the model gives, instead of the output weights."""
    problem, model = make_problem(num_outputs=2), mean_field(num_outputs=2)
    system = gn.System(problem, model)
    weights = system.weights(model)
    solved = Readout.of(system, weights, system.named(weights, "output")).solve(1e-10)
    run = gn.simulate(problem, model, gn.flows.GradientFlow(), t1=1e-9, metrics=(gn.metrics.HiddenLearning(),))
    np.testing.assert_allclose(system.train_loss(solved), run.data.refit_train_loss[0], rtol=1e-5, atol=1e-14)


def test_eigenvalues_up_to_the_cutoff_count_as_zero():
    inverse = TruncatedInverse.of(jnp.diag(jnp.asarray([4.0, 1.0, 1e-3])))
    assert [int(inverse.rank(cutoff)) for cutoff in (0.0, 1e-3, 0.25, 0.3)] == [3, 2, 1, 1]
    found = inverse.solve(jnp.ones((3, 1)), 1e-3)
    np.testing.assert_allclose(found, [[0.25], [1.0], [0.0]], atol=1e-12)


def test_layers_without_an_exact_solution_are_refused():
    system = gn.System(make_problem(num_outputs=2), mean_field(num_outputs=2))
    weights = system.weights(mean_field(num_outputs=2))
    moved = jax.tree.map(lambda leaf: leaf + 1.0, weights)  # with v = 0 the hidden layer has no effect
    with pytest.raises(gn.ModelError, match="not linear in the weights called 'hidden'"):
        require_linear(system, moved, "hidden")
    with pytest.raises(gn.ModelError, match=r"no weights called 'ouput'.*did you mean 'output'"):
        require_linear(system, weights, "ouput")
