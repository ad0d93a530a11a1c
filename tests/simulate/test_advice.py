"""What the messages say of data whose scale makes runs slow or inaccurate, and that they are silent of ordinary data."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulate.linear import Axes, Linear

import gnflow as gn
from gnflow.simulate._advice import advice, of_inputs, of_spectrum, of_targets

X = np.random.default_rng(0).standard_normal((12, 3))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X * 1e-4, r"columns of x have a root mean square of [0-9.]+e-05 to [0-9.]+e-0[45]"),
        (X * np.array([1.0, 1e-3, 1.0]), r"columns of x have a root mean square of [0-9.]+e-04 to"),
        (X * 1e6, r"columns of x have .* to [0-9.]+e\+06"),
        (X + np.array([0.0, 50.0, 0.0]), r"column 1 of x has a mean of up to [0-9.]+e\+01 times its spread"),
        (np.where(np.arange(3) == 2, 1e4, X), r"column 2 of x is constant, 1e\+04"),
    ],
    ids=["small", "unequal", "large", "shifted", "constant"],
)
def test_inputs_of_odd_scale(x, said):
    assert any(re.search(said, sentence) for sentence in of_inputs(x))


@pytest.mark.parametrize("x", [X, X * 3 + 1, np.where(np.arange(3) == 2, 1.0, X), np.where(np.arange(3) == 2, 0.0, X)])
def test_ordinary_inputs(x):
    """Standardised, nearly so, with a column of ones or one of zeros."""
    assert of_inputs(x) == []


def test_images_are_ordinary():
    """Pixels at the edge are zero, or nearly always."""
    x = np.random.default_rng(1).random((30, 8, 8))
    x[:, 0] = 0
    x[1:, 1] = 0
    x[0, 1] = 1e-3
    assert of_inputs(x) == []


def test_targets():
    assert of_targets(jnp.asarray(X)) == []
    assert "columns of y have a root mean square of" in of_targets(jnp.asarray(X * 1e5))[0]


def test_rank_and_condition():
    system, weights = _system(Axes(scales=(1.0, 0.0)))
    assert of_spectrum(system, weights, np.array([0.0, 1.0])) == ["the Gram matrix of the NTK has rank 1 of 2"]
    assert "spread over a factor of 1.0e+12" in of_spectrum(system, weights, np.array([1e-12, 1.0]))[0]
    assert "no trained weight changes an output" in of_spectrum(system, weights, np.zeros(2))[0]
    assert of_spectrum(system, weights, np.array([0.1, 1.0])) == []


def test_all_together():
    system, weights = _system(Axes(scales=(1e-3, 0.0), targets=(1e4, 2e4)))
    said = advice(system, weights)
    assert "rank 1 of 2" in said
    assert "standardise x and y, with standardise=True in gnflow.Problem" in said
    assert advice(*_system(Axes())) == ""


def _system(axes):
    model = Linear.at([0.0, 0.0])
    system = gn.flows.GradientFlow().system(axes.problem, model)
    return system, jax.tree.map(jnp.asarray, system.weights(model))
