"""The leading modes: against all of them, what they say of their error, and what they keep in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from simulate.linear import Linear

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry import Decomposition, numerical_rank
from gnflow.geometry.damping import Constant
from gnflow.geometry.directions import ConjugateGradients, dense_modes
from gnflow.losses import DiagonalFactor, HuberLoss, LogisticLoss, ScaledIdentity

NUM_TRAIN, DECAY = 40, 10 ** (-1 / 3)


@pytest.fixture(scope="module")
def tangent():
    """Of f = w . x with the known spectrum lam_i = DECAY^i, i = 0 .. 39: three modes a decade."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(NUM_TRAIN, NUM_TRAIN)))[0] for _ in range(2))
    inputs = left * np.sqrt(DECAY ** np.arange(NUM_TRAIN)) @ right
    system = gn.System(gn.Problem(inputs, rng.normal(size=NUM_TRAIN)), Linear.at(np.zeros(NUM_TRAIN)))
    return system.tangent(system.weights(Linear.at(np.zeros(NUM_TRAIN))))


FACTORS = {
    "identity": ScaledIdentity(0.3),
    "diagonal": DiagonalFactor(jnp.asarray(np.linspace(0.5, 1.5, NUM_TRAIN)[:, None])),
}


def leading(tangent, factor, **numbers):
    decomposition = Decomposition(dense_limit=0, **numbers)
    return dense.quickly(lambda *parts: decomposition.modes(*parts), tangent, factor)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_leading_modes_are_those_of_the_whole_matrix(tangent, factor):
    whole = dense.quickly(dense_modes, tangent, FACTORS[factor])
    found = leading(tangent, FACTORS[factor], rank=8, power=2)
    assert found.gram is None
    assert found.matrix is None
    assert found.eigenvectors.shape == (NUM_TRAIN, 8)
    np.testing.assert_allclose(found.eigenvalues, whole.eigenvalues[-8:], rtol=1e-9)
    alignment = np.abs(np.sum(np.asarray(found.eigenvectors * whole.eigenvectors[:, -8:]), axis=0))
    np.testing.assert_allclose(alignment, 1, rtol=1e-9)
    # The whole matrix is what the oracle says, and the mode before the leading ones is the largest left out.
    assert float(whole.left_out) == float(whole.relative_residual) == 0
    np.testing.assert_allclose(found.left_out, whole.eigenvalues[-9], rtol=1e-6)
    if factor == "identity":
        np.testing.assert_allclose(whole.eigenvalues[::-1][:30], 0.3 * DECAY ** np.arange(30), rtol=1e-5)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_what_it_says_of_itself_is_true(tangent, power):
    """Also where the subspace has not converged: Ritz pairs are exact in it, and the residual is what was missed."""
    factor = FACTORS["diagonal"]
    matrix = np.asarray(dense.quickly(dense_modes, tangent, factor).matrix)
    found = leading(tangent, factor, rank=8, power=power)
    vectors, values = np.asarray(found.eigenvectors), np.asarray(found.eigenvalues)
    assert np.all(np.diff(values) > 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-13)
    np.testing.assert_allclose(vectors.T @ matrix @ vectors, np.diag(values), atol=1e-14)
    residual = np.linalg.norm(matrix @ vectors - vectors * values, axis=0).max() / values[-1]
    np.testing.assert_allclose(found.relative_residual, residual, rtol=1e-6, atol=1e-15)
    # Ten more columns than modes: an iteration gains a factor of about DECAY^(2 * 10).
    assert residual < [1e-3, 1e-7, 1e-11][power]
    # Ritz values of what is left out are below the eigenvalue that they stand for.
    exact = np.linalg.eigvalsh(matrix)[-9]
    assert (1 - [0.5, 1e-3, 1e-6][power]) * exact < float(found.left_out) <= exact * (1 + 1e-12)


def test_a_subspace_of_all_outputs_is_exact(tangent):
    """35 modes and ten columns more are all there are."""
    whole = dense.quickly(dense_modes, tangent, FACTORS["identity"])
    found = leading(tangent, FACTORS["identity"], rank=35, power=0)
    np.testing.assert_allclose(found.eigenvalues, whole.eigenvalues[-35:], rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.left_out, whole.eigenvalues[-36], rtol=1e-3)
    assert float(found.relative_residual) < 1e-14


def test_singular_values_resolve_what_squares_cannot():
    """J with singular values down to 1e-10 of the largest: their squares are at 1e-20, far below machine epsilon."""
    rng = np.random.default_rng(1)
    left, right = np.linalg.qr(rng.normal(size=(NUM_TRAIN, 6)))[0], np.linalg.qr(rng.normal(size=(6, 6)))[0]
    values, targets = 10.0 ** np.arange(0, -12, -2), rng.normal(size=NUM_TRAIN)
    system = gn.System(gn.Problem(left * values @ right, targets), Linear.at(np.zeros(6)))
    weights = system.weights(Linear.at(np.zeros(6)))
    modes = dense.quickly(dense_modes, system.tangent(weights), FACTORS["identity"])
    np.testing.assert_allclose(modes.eigenvalues[::-1], 0.3 * values**2, rtol=1e-4)
    assert int(modes.rank) == 6
    assert bool(jnp.all(modes.kept(jnp.zeros(()))))
    assert int(numerical_rank(jnp.linalg.eigvalsh(modes.gram))) < 6
    # The undamped direction moves all six, and its damping is read there too.
    flow = GaussNewtonFlow(damping=Constant(0.0))
    direction = flow.direction(jnp.zeros(()), system.tangent(weights), system)
    assert int(direction.diagnostics.rank) == int(direction.diagnostics.kept) == 6
    moved = flow.velocity(jnp.zeros(()), weights, system)
    fitted = (left.T @ targets) / values / NUM_TRAIN  # the metric is H = I, and g has 1/N
    turned = right @ np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)])
    # To rounding of the weights that move the most: J^T a alone would leave 1e4 times as much in the first.
    np.testing.assert_allclose(turned, fitted, rtol=1e-4, atol=1e-12 * np.abs(fitted).max())


def test_the_same_modes_each_time(tangent):
    """A solver that linearises at each step must not see noise."""
    first, second = (leading(tangent, FACTORS["identity"], rank=5, power=0) for _ in range(2))
    np.testing.assert_array_equal(first.eigenvectors, second.eigenvectors)


@pytest.mark.parametrize(
    ("numbers", "size", "dense"),
    [
        ({}, 4096, True),
        ({}, 4097, False),
        ({"dense_limit": 10, "rank": 5}, 10, True),
        ({"dense_limit": 10, "rank": 5}, 11, False),
        ({"dense_limit": 0, "rank": 20}, 20, True),
        ({"dense_limit": 0, "rank": 20}, 21, False),
    ],
)
def test_when_it_takes_all_modes(numbers, size, dense):
    assert Decomposition(**numbers).is_dense(size) is dense


@pytest.mark.parametrize(
    ("numbers", "match"),
    [({"rank": 0}, "rank"), ({"dense_limit": -1}, "dense_limit = -1"), ({"power": -2}, "power = -2")],
)
def test_impossible_numbers_are_named(numbers, match):
    with pytest.raises(gn.ConfigError, match=match):
        Decomposition(**numbers)


def test_numbers_that_are_no_whole_ones():
    with pytest.raises(Exception, match=r"dense_limit|int"):  # beartype's error in these tests
        Decomposition(dense_limit=1.5)


def shapes_in(jaxpr):
    """The shapes of all intermediate results, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


FLOWS = {
    "gradient": GradientFlow(),
    "conjugate gradients": GaussNewtonFlow("identity", Constant(0.1), ConjugateGradients()),
    "conjugate gradients, hessian": GaussNewtonFlow("hessian", Constant(0.1), ConjugateGradients()),
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("loss", [LogisticLoss(), HuberLoss()], ids=["logistic", "huber"])
def test_memory_is_bounded(name, loss):
    """300 outputs, 5 + 10 columns: nothing of the size of a Gram matrix, nor of the whole Jacobian."""
    rng = np.random.default_rng(0)
    problem = gn.Problem(rng.normal(size=(100, 2)), rng.integers(2, size=(100, 3)).astype(float), loss=loss)
    model = gn.models.MLP(2, 20, 1, 3, key=jax.random.key(0))  # P = 123
    system = FLOWS[name].system(problem, model)

    def linearise(weights, decomposition):
        line = FLOWS[name].linearisation(jnp.zeros(()), system.tangent(weights), system, decomposition)
        return line.left, line.right, line.rates

    def largest(decomposition):
        program = jax.make_jaxpr(lambda weights: linearise(weights, decomposition))(system.weights(model))
        shapes = list(shapes_in(program.jaxpr))
        assert len(shapes) > 50
        gram_like = [shape for shape in shapes if sorted(shape)[-2:] == [300, 300]]
        return gram_like, max(int(np.prod(shape)) for shape in shapes)

    bounded, size = largest(Decomposition(dense_limit=0, rank=5))
    assert bounded == []
    assert size <= 300 * 16 * 20  # a block of columns on the hidden layer of all samples
    # What is counted is there where the matrix is.
    whole, size = largest(Decomposition(dense_limit=300, rank=300))
    assert whole != []
    assert size >= 300**2


@pytest.mark.parametrize("name", FLOWS)
def test_a_partial_linearisation(name):
    """Its factors diagonalise A as the whole one's do, with the leading rates, and it names the first that is missing."""
    flow = FLOWS[name]
    rng = np.random.default_rng(1)
    problem = gn.Problem(rng.normal(size=(30, 2)), rng.integers(2, size=30).astype(float), loss=LogisticLoss())
    model = gn.models.MLP(2, 20, 1, 1, key=jax.random.key(0))
    system = flow.system(problem, model)

    def linearise(weights, decomposition):
        tangent = system.tangent(weights)
        line = flow.linearisation(jnp.zeros(()), tangent, system, decomposition)
        return line.left, line.right, line.rates, line.left_out, line.relative_residual, tangent.gram()

    weights = system.weights(model)
    partial = Decomposition(dense_limit=0, rank=4, power=3)
    left, right, rates, left_out, residual, gram = dense.quickly(lambda w: linearise(w, partial), weights)
    np.testing.assert_allclose(right @ gram @ left, np.diag(rates), rtol=0, atol=1e-12 * rates.max())
    assert 0 < float(residual) < 1e-6
    assert 0 < float(left_out) < float(rates.min())
    whole = np.sort(dense.quickly(lambda w: linearise(w, Decomposition(rank=30)), weights)[2])
    # With another metric than the Hessian, W takes a multiple of it: what the rates are then is an estimate.
    rtol = 0.5 if name == "conjugate gradients" else 1e-5
    np.testing.assert_allclose(rates, whole[-4:], rtol=rtol)
    np.testing.assert_allclose(left_out, whole[-5], rtol=0.5)
