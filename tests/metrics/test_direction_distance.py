"""The weighted direction distance: formula, exactness near zero, edges and invariances."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import ortho_group

from gnflow._core import ConfigError, DataError
from gnflow.geometry import System
from gnflow.metrics import DirectionDistance, direction_distance
from gnflow.models import MLP, MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

_X, _Y = jr.normal(jr.key(0), (4, 3)), jr.normal(jr.key(1), (4, 1))


# Compiled once for each pair of shapes.
_COMPILED = jax.jit(direction_distance)


def _distance(u, r):
    return float(_COMPILED(jnp.asarray(u), jnp.asarray(r)))


def _formula(u, r):
    """[A]'s formula as it is written."""
    weights = np.sum(u**2, axis=1) / np.sum(u**2)
    total = 0.0
    for weight, row in zip(weights, u, strict=True):
        cosines = [row @ other / (np.linalg.norm(row) * np.linalg.norm(other)) for other in r]
        total += weight * min(np.sqrt(2 * max(1 - cosine, 0.0)) for cosine in cosines)
    return total


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.sampled_from([(1, 1, 2), (7, 4, 3), (3, 9, 5), (6, 6, 1)]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_formula_and_invariances(seed, sizes, scale):
    """The formula; the order of particles and references, a common scale, each reference's own length, a rotation."""
    particles, references, dim = sizes
    rng = np.random.default_rng(seed)
    u, r = rng.normal(size=(particles, dim)), rng.normal(size=(references, dim))
    value = _distance(u, r)
    # In one dimension cosines are +-1, and the formula itself is rounding where they are 1.
    assert value == pytest.approx(_formula(u, r), rel=1e-12, abs=3e-8)
    rotation = ortho_group.rvs(dim, random_state=rng) if dim > 1 else -np.eye(1)
    lengths = rng.uniform(0.1, 10, size=(references, 1))
    variants = [
        (rng.permutation(u), rng.permutation(r)),
        (scale * u, r),
        (u, scale * lengths * r),
        (u @ rotation, r @ rotation),
    ]
    for other_u, other_r in variants:
        other = _distance(other_u, other_r)
        assert other == pytest.approx(value, rel=1e-10, abs=1e-14)


def test_long_particles_weigh_more():
    """Lengths 2 and 1 at right angles to and along the reference: (4 sqrt 2 + 1 * 0)/5."""
    found = direction_distance(jnp.asarray([[0.0, 2.0], [1.0, 0.0]]), jnp.asarray([[3.0, 0.0]]))
    np.testing.assert_allclose(found, 4 * np.sqrt(2) / 5, rtol=1e-15)
    np.testing.assert_allclose(direction_distance(jnp.asarray([[-1.0]]), jnp.asarray([[5.0]])), 2, rtol=1e-15)


@pytest.mark.parametrize("angle", [1e-5, 1e-9, 1e-14])
def test_exact_near_zero(angle):
    """The square root of 2 (1 - cos) is off by 1e-6, 100% and 100% at these angles."""
    reference = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    particles = jnp.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(direction_distance(particles, reference), 2 * np.sin(angle / 2), rtol=1e-12)


def test_vectors_without_a_direction():
    u, r = jnp.asarray([[0.0, 0.0], [1.0, 0.0]]), jnp.asarray([[0.0, 0.0], [-1.0, 0.0]])
    # The zero particle has no weight, and the zero reference is not nearer than the opposite one.
    np.testing.assert_allclose(direction_distance(u, r), 2, rtol=1e-15)
    assert np.isnan(direction_distance(jnp.zeros((2, 2)), r))
    assert np.isnan(direction_distance(u, jnp.zeros((2, 2))))


def test_memory_is_bounded():
    """All cosines of 5000 particles at once would be 200 MB."""
    spec = jax.ShapeDtypeStruct((5000, 10), jnp.float64)
    compiled = jax.jit(direction_distance).lower(spec, spec).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 12 * 2**20


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    u, r = (jnp.asarray(rng.normal(size=(size, 3))) for size in (11, 4))
    whole = float(direction_distance(u, r))
    # Three particles at a time, and two left over.
    monkeypatch.setattr("gnflow.metrics._direction_distance._CHUNK_BYTES", 3 * 8 * 4)
    assert float(direction_distance(u, r)) == pytest.approx(whole, rel=1e-14)


def test_metric_compares_hidden_weights_without_biases(measure):
    start, later, teacher = (
        MeanFieldNetwork(3, width, output_init_scale=1.0, key=jr.key(seed)) for seed, width in ((2, 5), (3, 5), (4, 2))
    )
    system = System(Problem(_X, _Y, teacher=teacher), start)
    weights, first = system.weights(later), system.weights(start)
    for reference, network in (("initial", start), ("teacher", teacher)):
        found = measure(DirectionDistance(reference), system, weights, first)
        expected = _formula(np.asarray(later.hidden_weight), np.asarray(network.hidden_weight))
        np.testing.assert_allclose(found[f"direction_distance_to_{reference}"], expected, rtol=1e-12)


def test_random_features_never_turn(measure):
    """Their particles are a part of the model that is not trained."""
    model = RandomFeatures(3, 5, key=jr.key(2))
    system = System(Problem(_X, _Y, teacher=MeanFieldNetwork(3, 2, key=jr.key(4))), model)
    start = system.weights(model)
    weights = jax.tree.map(lambda leaf: leaf + 1, start)
    assert float(measure(DirectionDistance(), system, weights, start)["direction_distance_to_initial"]) < 1e-15
    expected = _formula(np.asarray(model.features.hidden_weight), np.asarray(system.problem.teacher.hidden_weight))
    found = measure(DirectionDistance("teacher"), system, weights, start)
    np.testing.assert_allclose(found["direction_distance_to_teacher"], expected, rtol=1e-12)


def test_unknown_reference():
    with pytest.raises(ConfigError, match="did you mean 'teacher'"):
        DirectionDistance("teachers")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (None, "the problem has none"),
        (lambda x: x[:1], "no hidden_weight"),
        (MLP(3, 2, 1, key=jr.key(0)), "no hidden_weight"),
        (MeanFieldNetwork(2, 2, key=jr.key(0)), r"expected \(m, 3\)"),
        (MeanFieldNetwork.from_arrays(jnp.zeros((2, 3)), None, jnp.zeros(2)), "0 nonzero entries"),
    ],
    ids=["none", "function", "mlp", "other inputs", "zero"],
)
def test_teachers_without_directions_are_refused(teacher, message):
    system = System(Problem(_X, _Y, teacher=teacher), MeanFieldNetwork(3, 4, key=jr.key(2)))
    with pytest.raises(DataError, match=message):
        DirectionDistance("teacher").variables(system)
    assert len(DirectionDistance("initial").variables(system)) == 1
