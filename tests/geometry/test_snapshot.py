"""Snapshots: the Gram matrix's speed, and that nothing is computed twice or unasked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import CASES, random_like

from gnflow.geometry import Snapshot, SolveDiagnostics, System
from gnflow.problems import Problem


def case_of(kind, num_outputs):
    return next(case for case in CASES if (case.kind, case.num_outputs) == (kind, num_outputs))


def snapshot_of(case, velocity):
    system = System(case.problem, case.model, case.trainable)
    return Snapshot(jnp.asarray(0.5), system.weights(case.model), system, velocity)


@pytest.mark.parametrize(
    ("kind", "num_outputs"),
    [
        ("mean field silu", 3),
        ("mlp depth 2, mean field", 1),
        ("equinox mlp", 1),
        ("frozen mean field: hidden", 1),
        ("random features", 1),
        ("linearised mlp", 3),
    ],
)
def test_gram_velocity_is_the_derivative_of_the_dense_gram(kind, num_outputs):
    case = case_of(kind, num_outputs)
    system = System(case.problem, case.model, case.trainable)
    weights = system.weights(case.model)
    velocity = random_like(weights, seed=1)

    def gram_velocity(w, v):
        return Snapshot(jnp.zeros(()), w, system, lambda: (v, None)).gram_velocity()

    got = np.asarray(dense.quickly(gram_velocity, weights, velocity))
    jacobian = dense.jacobian_function(case.model, case.leaves, case.problem.x_train)
    at, along = dense.flat(case.leaves(weights)), dense.flat(case.leaves(velocity))

    def dense_gram(step):
        matrix = np.asarray(jacobian(jnp.asarray(at + step * along))[0])
        return matrix @ matrix.T

    def central(step):
        return (dense_gram(step) - dense_gram(-step)) / (2 * step)

    expected = (4 * central(5e-4) - central(1e-3)) / 3  # fourth order
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-8 * max(1.0, np.abs(expected).max()))
    linear_in_the_weights = kind in ("random features", "linearised mlp")
    assert (np.abs(got).max() == 0) == linear_in_the_weights


def test_every_quantity_of_a_snapshot():
    case = case_of("mean field silu", 3)
    oracle = dense.dense_case(case)
    velocity = random_like(System(case.problem, case.model).weights(case.model), seed=1)
    diagnostics = SolveDiagnostics(jnp.asarray(0.1), jnp.asarray(3), jnp.asarray(0.0), jnp.asarray(True))
    snapshot = snapshot_of(case, lambda: (velocity, diagnostics))
    gram = oracle.jacobian @ oracle.jacobian.T
    np.testing.assert_allclose(snapshot.gram, gram, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(snapshot.eigenvalues, np.linalg.eigvalsh(gram), rtol=1e-9)
    np.testing.assert_allclose(snapshot.train_outputs, oracle.outputs, rtol=1e-12)
    np.testing.assert_allclose(snapshot.test_outputs, oracle.test_outputs, rtol=1e-12)
    value = case.problem.loss.value
    np.testing.assert_allclose(snapshot.train_loss, value(jnp.asarray(oracle.outputs), case.problem.y_train))
    np.testing.assert_allclose(snapshot.test_loss, value(jnp.asarray(oracle.test_outputs), case.problem.y_test))
    assert snapshot.velocity is velocity
    assert snapshot.diagnostics is diagnostics
    np.testing.assert_array_equal(snapshot.model.hidden_weight, case.model.hidden_weight)


def test_nothing_is_computed_unasked_or_twice():
    calls = []

    def velocity():
        calls.append("velocity")
        return None, None

    snapshot = snapshot_of(case_of("mean field silu", 3), velocity)
    assert snapshot.gram is snapshot.gram
    assert snapshot.tangent is snapshot.tangent
    assert snapshot.train_outputs is snapshot.train_outputs
    assert calls == []
    assert snapshot.velocity is None
    assert snapshot.diagnostics is None
    assert calls == ["velocity"]


def test_test_outputs_without_test_data_are_not_the_training_outputs():
    case = case_of("mean field silu", 3)
    problem = Problem(case.problem.x_train, case.problem.y_train, loss=case.problem.loss)
    system = System(problem, case.model)
    snapshot = Snapshot(jnp.zeros(()), system.weights(case.model), system, lambda: (None, None))
    with pytest.raises(AssertionError):
        _ = snapshot.test_outputs
    with pytest.raises(AssertionError):
        _ = snapshot.test_loss
    with pytest.raises(AssertionError):
        system.test_loss(system.weights(case.model))


def test_a_snapshot_inside_a_compiled_function():
    case = case_of("frozen mean field: hidden", 1)
    system = System(case.problem, case.model, case.trainable)

    def losses(weights):
        snapshot = Snapshot(jnp.zeros(()), weights, system, lambda: (weights, None))
        return snapshot.train_loss, snapshot.test_loss

    weights = system.weights(case.model)
    train, test = jax.vmap(losses)(jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf, leaf])), weights))
    np.testing.assert_allclose(train, [float(system.train_loss(weights))] * 2, rtol=1e-13)
    np.testing.assert_allclose(test, [float(system.test_loss(weights))] * 2, rtol=1e-13)
