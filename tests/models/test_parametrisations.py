"""What each parametrisation promises over widths from 16 to 1024: speed, spectrum, and how far features and NTK move.

With f' = -m A g the speed of the outputs and the spectrum of m A/N are of order 1 at every width. Features move by
width^(s - 1) and the NTK by its square (docs/theory.md, Deep networks): both by order 1 in the mean-field scaling s = 1, and
less and less in the NTK's, s = 1/2.
"""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import dense
from oracles.cases import random_like

from gnflow.flows import GradientFlow
from gnflow.geometry import System
from gnflow.models import MLP, Linearised, MeanFieldNetwork, RandomFeatures, ReversibleMLP, ScaledLinear
from gnflow.problems import Problem

WIDTHS = (16, 128, 1024)
SEEDS = 3
INPUT_DIM = 4
STEP, NUM_STEPS = 0.25, 16  # of Euler's method: to flow time 4, where a third to a half of the residual is left

X = np.random.default_rng(0).normal(size=(8, INPUT_DIM))
PROBLEM = Problem(X, np.sin(X[:, 0]) + X[:, 1])  # the targets are of the change: see `learning`


def mlp(depth, parametrisation, **options):
    return lambda width, key: MLP(
        INPUT_DIM, width, depth, activation="tanh", parametrisation=parametrisation, key=key, **options
    )


def two_layer(kind, exponent, output_init_scale=1.0):
    return lambda width, key: kind(
        INPUT_DIM,
        width,
        activation="tanh",
        output_init_scale=output_init_scale,
        output_exponent=exponent,
        key=key,
    )


# name: (model of a width and a key, exponent s, or None where nothing of A can move, the weights that move)
MODELS = {
    "mlp, mean field, 1": (mlp(1, "mean_field"), 1.0, "all"),
    "mlp, mean field, 3": (mlp(3, "mean_field"), 1.0, "all"),
    "mlp, mean field, no bias": (mlp(2, "mean_field", bias=False), 1.0, "all"),
    "mlp, ntk, 1": (mlp(1, "ntk"), 0.5, "all"),
    "mlp, ntk, 3": (mlp(3, "ntk"), 0.5, "all"),
    "mean field": (two_layer(MeanFieldNetwork, 1.0), 1.0, "all"),
    "mean field from v = 0": (two_layer(MeanFieldNetwork, 1.0, 0.0), 1.0, "all"),
    "mean field, s = 3/4": (two_layer(MeanFieldNetwork, 0.75), 0.75, "all"),
    "mean field, s = 1/2": (two_layer(MeanFieldNetwork, 0.5), 0.5, "all"),
    "random features": (two_layer(RandomFeatures, 1.0), None, "all"),
    "linearised": (lambda width, key: Linearised(mlp(2, "mean_field")(width, key)), None, "all"),
    "frozen": (mlp(2, "mean_field"), None, "output"),
    # Its width is the number of inputs; what can grow is the bottleneck, which has a scaling of its own in C.
    "reversible": (lambda width, key: ReversibleMLP(INPUT_DIM, width, 2, key=key), 1.0, "all"),
}


def with_bias_factor(model, factor):
    last = model.layers[-1]
    layer = ScaledLinear(last.weight, last.bias, last.factor, factor)
    return eqx.tree_at(lambda network: network.layers[-1], model, layer)


def rms(values):
    return jnp.sqrt(jnp.mean(values**2))


def features_of(model):
    if isinstance(model, Linearised):
        return jax.vmap(model)(PROBLEM.x_train)  # only for a number to be there
    return jax.vmap(model.hidden_features)(PROBLEM.x_train)


def learning(system, weights):
    """The system with targets at the same distance from the outputs at every width and for every seed: f_0 would be noise."""
    return eqx.tree_at(lambda s: s.problem.y_train, system, system.outputs(weights) + PROBLEM.y_train)


def at_start(system, weights):
    """rms of f', and mobility A/N."""
    tangent, flow = system.tangent(weights), GradientFlow()
    speed = rms(tangent.jvp(flow.velocity(0.0, weights, system)))
    return speed, flow.effective_mobility(system) * tangent.gram() / len(X)


def movements(system, weights):
    """Relative movement of the hidden features and of A by Euler's method, and the residual that is left."""
    flow = GradientFlow()

    def step(_, w):
        return jax.tree.map(lambda a, b: a + STEP * b, w, flow.velocity(0.0, w, system))

    moved = jax.lax.fori_loop(0, NUM_STEPS, step, weights)
    before, after = (features_of(system.model(w)) for w in (weights, moved))
    first, last = (system.tangent(w).gram() for w in (weights, moved))
    return (
        rms(after - before) / rms(before),
        jnp.linalg.norm(last - first) / jnp.linalg.norm(first),
        rms(system.outputs(moved) - system.problem.y_train) / rms(PROBLEM.y_train),
    )


def over_widths(make, trainable, function):
    """`function(system, weights)` as arrays (widths, seeds, ...), one program for each width."""
    rows = []
    for width in WIDTHS:
        compiled, values = None, []
        for seed in range(SEEDS):
            model = make(width, jr.key(seed))
            system = System(PROBLEM, model, trainable)
            arrays, rest = eqx.partition((system, system.weights(model)), eqx.is_array)
            if compiled is None:

                def measure(given, rest=rest):
                    system, weights = eqx.combine(given, rest)
                    return function(learning(system, weights), weights)

                compiled = jax.jit(measure, compiler_options=dense.QUICK)
            values.append(compiled(arrays))
        rows.append(values)
    return [np.array([[values[part] for values in row] for row in rows]) for part in range(len(rows[0][0]))]


@functools.cache
def found(name):
    """Speed, matrix, movement of features and kernel, what is left of the residual."""
    make, _, trainable = MODELS[name]
    return over_widths(make, trainable, lambda *parts: (*at_start(*parts), *movements(*parts)))


def exponent_of(values):
    """The slope of the log of the mean over seeds over that of the width."""
    return np.polyfit(np.log(WIDTHS), np.log(values.mean(axis=1)), 1)[0]


def check_speed_and_spectrum(speed, matrix):
    largest = np.linalg.eigvalsh(matrix)[..., -1]
    for values in (speed, largest):
        assert abs(exponent_of(values)) < 0.15
        assert np.all((values > 0.05) & (values < 5))
    # And all of it is the same matrix in the limit, but for fluctuations of order width^(-1/2).
    limit = matrix[-1].mean(axis=0)
    away = np.linalg.norm(matrix - limit, axis=(-2, -1)) / np.linalg.norm(limit)
    assert np.all(away.max(axis=1) < 6 / np.sqrt(WIDTHS))


# Deep and shallow, of either parametrisation; each model is a program of every width.
QUICK = ("mlp, mean field, 3", "mlp, ntk, 1", "mean field", "frozen")


every_model = pytest.mark.parametrize(
    "name", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in MODELS]
)


@every_model
def test_speed_and_spectrum_do_not_depend_on_the_width(name):
    check_speed_and_spectrum(*found(name)[:2])


@every_model
def test_features_and_kernel_move_as_the_parametrisation_promises(name):
    exponent = MODELS[name][1]
    features, kernel, left = found(name)[2:]
    assert np.all((left > 0.05) & (left < 0.95))  # each has learnt something, at every width
    if exponent is None:
        assert np.all(kernel < 1e-12)
        return
    assert abs(exponent_of(features) - (exponent - 1)) < 0.12
    assert abs(exponent_of(kernel) - 2 * (exponent - 1)) < 0.25
    if exponent == 1:
        assert np.all(features > 0.1)
        assert np.all(kernel > 0.1)


@pytest.mark.parametrize("factor", [lambda width: 1.0, lambda width: 1 / width], ids=["1", "1/width"])
def test_another_scale_of_the_output_bias_breaks_the_promise(factor):
    """With the factor 1 its part of m A, m times the matrix of ones, grows with the width; with 1/width it is frozen in the
    limit."""

    def make(width, key):
        return with_bias_factor(MLP(INPUT_DIM, width, 1, parametrisation="mean_field", key=key), factor(width))

    if factor(2) == 1:
        with pytest.raises(AssertionError):
            check_speed_and_spectrum(*over_widths(make, "all", at_start))
    parts = []
    for width in WIDTHS:
        system = System(PROBLEM, make(width, jr.key(0)), "layers[1].bias")
        parts.append(float(at_start(system, system.weights(make(width, jr.key(0))))[1][0, 0]) * len(X))
    np.testing.assert_allclose(parts, [width * factor(width) ** 2 for width in WIDTHS], rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_field_mlp_is_the_ntk_one_over_the_root_of_the_width(bias):
    """f_mf = f_ntk/sqrt(M) at the same weights, bias included, so that M A_mf = A_ntk: the same speed and spectrum."""
    ntk, mean_field = (
        MLP(INPUT_DIM, 9, 2, 2, parametrisation=word, bias=bias, key=jr.key(0)) for word in ("ntk", "mean_field")
    )
    ntk, mean_field = (random_like(model, seed=1) for model in (ntk, mean_field))
    outputs, others = (jax.vmap(model)(PROBLEM.x_train) for model in (ntk, mean_field))
    np.testing.assert_allclose(others, outputs / math.sqrt(9), rtol=1e-13)
    problem = Problem(X, np.stack([X[:, 0], X[:, 1]], axis=1))
    grams = []
    for model in (ntk, mean_field):
        system = System(problem, model)
        grams.append(system.mobility * system.tangent(system.weights(model)).gram())
    np.testing.assert_allclose(grams[1], grams[0], rtol=1e-12)
