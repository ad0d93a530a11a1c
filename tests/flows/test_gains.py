"""The law that a flow carries is the flow: w' = -J^T R k(B) h, with bounds that hold."""

import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.flows import (
    DualGaussNewtonFlow,
    GaussNewtonFlow,
    GradientFlow,
    ReversibleGaussNewtonFlow,
    SpectralFlow,
    WeightDecay,
    flow_kinds,
)
from gnflow.geometry.damping import Constant, LargestEigenvalue, SmallestEigenvalue
from gnflow.geometry.directions import decomposed_spectrum
from gnflow.theory._rate_band import block_bounds

SOFTMAX = gn.losses.SoftmaxCrossEntropy()
CASES = {
    "gradient": (GradientFlow(), None),
    "gradient, number": (GradientFlow(0.3), SOFTMAX),
    "gauss_newton": (GaussNewtonFlow(), None),
    "gauss_newton, hessian": (GaussNewtonFlow("hessian", Constant(0.05)), SOFTMAX),
    "gauss_newton, fisher": (GaussNewtonFlow("fisher", LargestEigenvalue(0.1)), gn.losses.HuberLoss(0.4)),
    "spectral": (SpectralFlow(0.4, SmallestEigenvalue(2.0)), None),
    "spectral of power 1": (SpectralFlow(1.0), None),
    "dual_gauss_newton": (DualGaussNewtonFlow(2.0), SOFTMAX),
}


def parts(case):
    """The flow's gain at a state, with A, R, B and eps as dense matrices."""
    flow, loss = CASES[case]
    problem = make_problem(loss=loss)
    system = flow.system(problem, mean_field())
    weights = system.weights(mean_field())
    tangent = system.tangent(weights)
    gain = flow.gain(system)
    factor = gain.metric.factor(system.loss, tangent.outputs, problem.y_train)
    basis = jnp.eye(problem.y_train.size).reshape(-1, *problem.y_train.shape)
    root = np.stack([np.asarray(factor.product(one)).reshape(-1) for one in basis], axis=1)
    gram = np.asarray(tangent.gram())
    whitened = root.T @ gram @ root
    spectrum = decomposed_spectrum(jnp.asarray(gram), factor, jnp.asarray(np.linalg.eigvalsh(whitened)))
    damping = gain.damping(jnp.zeros(()), spectrum)
    return flow, system, weights, tangent, gain, gram, root, whitened, float(damping)


@pytest.mark.parametrize("case", CASES)
def test_the_velocity_is_the_gains(case):
    flow, system, weights, tangent, gain, _, root, whitened, damping = parts(case)
    values, vectors = np.linalg.eigh(whitened)
    k = vectors @ np.diag(np.asarray(gain(jnp.asarray(values), damping))) @ vectors.T
    gradient = np.asarray(system.loss.gradient(tangent.outputs, system.problem.y_train)).reshape(-1)
    coefficients = root @ k @ (np.linalg.pinv(root) @ gradient)
    expected = tangent.vjp(jnp.asarray(-coefficients).reshape(tangent.outputs.shape))
    found = flow.velocity(0.0, weights, system)
    scale = float(max(jnp.max(jnp.abs(leaf)) for leaf in (expected.hidden_weight, expected.output_weight)))
    for name in ("hidden_weight", "output_weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-7 * scale)


@pytest.mark.parametrize("case", CASES)
def test_the_bounds_hold(case):
    """Of the eigenvalues of A K, from those of A and H alone; and of ||w'||/||g|| where H = h I."""
    _, system, _, tangent, gain, gram, root, whitened, damping = parts(case)
    values, vectors = np.linalg.eigh(whitened)
    k = vectors @ np.diag(np.asarray(gain(jnp.asarray(values), damping))) @ vectors.T
    factor = gain.metric.factor(system.loss, tangent.outputs, system.problem.y_train)
    metric = block_bounds(factor, tangent.outputs.shape)
    sigma = np.linalg.eigvalsh(gram)
    low, high = gain.bounds(jnp.asarray(max(sigma[0], 0.0)), jnp.asarray(sigma[-1]), damping, metric)
    rates = np.linalg.eigvals(gram @ root @ k @ np.linalg.pinv(root)).real
    seen = rates[np.abs(rates) > 1e-9 * rates.max()]
    assert float(low) <= seen.min() * (1 + 1e-7)
    assert seen.max() <= float(high) * (1 + 1e-7) or np.isinf(float(high))
    np.testing.assert_allclose(gain.rate(jnp.asarray(2.0), damping), 2.0 * gain.value(jnp.asarray(2.0), damping))
    assert gain.rate(jnp.zeros(()), 0.0) == 0
    if np.allclose(root, root[0, 0] * np.eye(len(root))):
        singular = np.sqrt(np.maximum(sigma, 0.0))
        speed = np.linalg.norm(
            np.diag(singular) @ np.diag(np.asarray(gain(jnp.asarray(root[0, 0] ** 2 * sigma), damping))), 2
        )
        assert speed <= gain.speed(singular[0], singular[-1], root[0, 0] ** 2) * (1 + 1e-9)


def test_every_kind_of_flow_says_whether_it_has_one():
    system = gn.System(make_problem(), mean_field())
    assert {name.split(",")[0].split(" of")[0] for name in CASES} == set(flow_kinds) - {
        "frozen",
        "reversible_gauss_newton",
        "weight_decay",
        "scaled",
    }
    assert WeightDecay(GradientFlow(), 0.1).gain(system) is None
    assert ReversibleGaussNewtonFlow().gain(system) is None
    assert DualGaussNewtonFlow(1.0, "exact").gain(system) is None
