"""The reversible direction with a ridge in each half-block, and the minimum-norm direction by conjugate gradients."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.config import Specification
from gnflow.flows import GaussNewtonFlow, ReversibleGaussNewtonFlow, SpectralFlow
from gnflow.geometry.damping import Constant, Exponential, LargestEigenvalue, PredictedDecrease
from gnflow.geometry.directions import Cholesky, ConjugateGradients
from gnflow.losses import SoftmaxCrossEntropy
from gnflow.models import ReversibleMLP

D, H, L, C = 8, 7, 2, 3
FEW, MANY = 5, 12  # samples for which all half-blocks have full row rank, and for which none has
SHARES = (0.3, 0.9)


@functools.cache
def network():
    return ReversibleMLP(D, H, L, C, activation="silu", init_scale=0.3, key=jr.key(0))


def problem(samples):
    rng = np.random.default_rng(0)
    targets = np.eye(C)[rng.integers(C, size=samples)]
    return gn.Problem(rng.normal(size=(samples, D)), targets, loss=SoftmaxCrossEntropy())


@eqx.filter_jit
def _velocity(flow, system, weights, time):
    return flow.velocity_and_diagnostics(time, weights, system)


def velocity_of(data, flow, time=0.0):
    system = flow.system(data, network())
    # Numbers as arrays: flows that differ in them share a program.
    flow = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, flow)
    return _velocity(flow, system, system.weights(network()), jnp.asarray(time))


def damped(data, rule, time=0.0):
    return velocity_of(data, ReversibleGaussNewtonFlow(damping=rule), time)


def half(model, block, which):
    """F or G of a block as a function of one z, from its definition, and its features [s(zC), 1]."""

    def features(z):
        before = z @ model.frozen_weight[block, which]
        return before if block in model.linear_blocks else jax.nn.silu(before)

    def function(z):
        return features(z) @ model.weight[block, which].T + model.bias[block, which]

    return function, lambda z: np.column_stack([np.asarray(features(z)), np.ones(len(z))])


def after(model, block):
    """The last features as a function of the outputs of a block, for one sample."""

    def function(y):
        left, right = jnp.split(y, 2)
        for later in range(block + 1, model.num_blocks):
            left = left + half(model, later, 0)[0](right)
            right = right + half(model, later, 1)[0](left)
        return jnp.concatenate([left, right])

    return function


def term(data, model):
    """What the last features are asked for, e u^T (N, d)."""
    p = jax.nn.softmax(jax.vmap(model)(data.x_train))
    return np.asarray((p - data.y_train) @ model.output_projection.T)


@functools.cache
def dense_blocks(samples):
    """Of each block A_F, A_G, what its outputs are asked for, the derivatives of G and of the blocks behind it, dense."""
    data, model = problem(samples), network()
    left, right = jnp.split(data.x_train, 2, axis=1)
    found = []
    for block in range(model.num_blocks):
        (f, f_features), (g, g_features) = half(model, block, 0), half(model, block, 1)
        whole_f = f_features(right)
        left = left + jax.vmap(f)(right)
        whole_g = g_features(left)
        slopes = np.asarray(jax.vmap(jax.jacfwd(g))(left))
        right = right + jax.vmap(g)(left)
        ends = jax.jit(jax.vmap(jax.jacfwd(after(model, block))))(jnp.concatenate([left, right], axis=1))
        asked = np.linalg.solve(np.asarray(ends), term(data, model)[:, :, None])[:, :, 0]
        found.append((whole_f, whole_g, asked, slopes, np.asarray(ends)))
    return found


def ridge_blocks(samples, ridges):
    """Of each block (A, T, eps, X, T - A X) of F and of G, and what the block leaves of e u^T, (N, d).

    `ridges`: eps of each half-block, or a function of A that gives it.
    """
    found = []
    for block, (whole_f, whole_g, asked, slopes, ends) in enumerate(dense_blocks(samples)):
        parts, fitted = [], np.zeros((samples, D // 2))
        for which, whole in enumerate((whole_f, whole_g)):
            target = asked[:, D // 2 :] - np.einsum("nij,nj->ni", slopes, fitted) if which else asked[:, : D // 2]
            eps = ridges(whole) if callable(ridges) else float(ridges[2 * block + which])
            update = np.linalg.solve(whole.T @ whole + eps * np.eye(H + 1), whole.T @ target)
            fitted = whole @ update
            parts.append((whole, target, eps, update, target - fitted))
        left = np.concatenate([parts[0][-1], parts[1][-1]], axis=1)
        found.append((parts, np.einsum("nij,nj->ni", ends, left)))
    return found


def assert_is(velocity, blocks, rtol=1e-9):
    for block, (parts, _) in enumerate(blocks):
        for which, (_, _, _, update, _) in enumerate(parts):
            scale = np.abs(update).max() / L
            for got, expected in ((velocity.weight, update[:-1].T), (velocity.bias, update[-1])):
                np.testing.assert_allclose(got[block, which], -expected / L, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize(
    ("samples", "rule", "ridge"),
    [
        (FEW, Constant(0.3), lambda whole: 0.3),
        (MANY, Constant(0.3), lambda whole: 0.3),
        (MANY, LargestEigenvalue(0.01), lambda whole: 0.01 * np.linalg.norm(whole, 2) ** 2),
    ],
    ids=["few", "many", "largest"],
)
def test_each_half_block_solves_its_ridge_problem(samples, rule, ridge):
    velocity, solve = damped(problem(samples), rule)
    blocks = ridge_blocks(samples, ridge)
    assert_is(velocity, blocks)
    flat = [part for parts, _ in blocks for part in parts]
    np.testing.assert_allclose(solve.half_block_damping, [part[2] for part in flat], rtol=1e-12)
    assert float(solve.damping) == np.max(solve.half_block_damping)
    missed = [np.linalg.norm(rest) / np.linalg.norm(target) for _, target, _, _, rest in flat]
    np.testing.assert_allclose(solve.half_block_residual, missed, rtol=1e-9)


@pytest.mark.parametrize("samples", [FEW, MANY])
@pytest.mark.parametrize("share", SHARES)
def test_each_half_block_keeps_the_share_of_its_predicted_decrease(share, samples):
    velocity, solve = damped(problem(samples), PredictedDecrease(share))
    blocks = ridge_blocks(samples, solve.half_block_damping)
    assert_is(velocity, blocks)
    for parts, _ in blocks:
        for whole, target, eps, _, rest in parts:
            assert eps > 0
            least = target - whole @ np.linalg.lstsq(whole, target)[0]
            attainable = np.sum(target**2) - np.sum(least**2)
            np.testing.assert_allclose(np.sum(target**2) - np.sum(rest**2), share * attainable, rtol=1e-9)


@pytest.mark.parametrize("samples", [FEW, MANY])
def test_what_the_features_do_is_what_the_blocks_leave(samples):
    """J w' = -e u^T + (1/L) sum_b D_b rho_b, and the loss falls at least by (1 - residual) |e|^2/N."""
    data, model = problem(samples), network()
    velocity, solve = damped(data, PredictedDecrease(0.5))
    blocks = ridge_blocks(samples, solve.half_block_damping)
    left = sum(missed for _, missed in blocks) / L

    def outputs(pair):
        return eqx.tree_at(lambda m: (m.weight, m.bias), model, pair).hidden_features(data.x_train)

    moved = jax.jvp(outputs, ((model.weight, model.bias),), ((velocity.weight, velocity.bias),))[1]
    asked = term(data, model)
    np.testing.assert_allclose(moved, left - asked, rtol=0, atol=1e-10)
    residual = np.linalg.norm(left) / np.linalg.norm(asked)
    np.testing.assert_allclose(solve.relative_residual, residual, rtol=1e-9)
    slope = np.sum(asked * np.asarray(moved)) / samples  # <e, f'>/N, because u has orthonormal columns
    assert residual < 1
    assert slope <= -(1 - residual) * np.sum(asked**2) / samples


@pytest.mark.parametrize("rule", [PredictedDecrease(1.0), Constant(0.0)])
def test_without_a_ridge_it_is_the_direction_as_it_was(rule):
    for samples in (FEW, MANY):
        plain, undamped = velocity_of(problem(samples), ReversibleGaussNewtonFlow())
        velocity, solve = damped(problem(samples), rule)
        np.testing.assert_array_equal(velocity.weight, plain.weight)
        np.testing.assert_array_equal(velocity.bias, plain.bias)
        np.testing.assert_array_equal(np.asarray(solve.half_block_damping), np.zeros(2 * L))
        assert bool(solve.truncated) == bool(undamped.truncated) == (samples == MANY)


def test_a_large_ridge_is_the_gradient_of_each_half_blocks_model():
    data, eps = problem(MANY), 1e7
    velocity, solve = damped(data, Constant(eps))
    for block, (parts, _) in enumerate(ridge_blocks(MANY, lambda whole: eps)):
        for which, (whole, target, *_) in enumerate(parts):
            gradient = whole.T @ target
            got = -L * eps * np.column_stack([velocity.weight[block, which], velocity.bias[block, which]]).T
            np.testing.assert_allclose(got, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())
    assert float(solve.relative_residual) > 0.999


def test_a_share_that_falls_to_nothing_ends_there_too():
    small, large = (damped(problem(MANY), rule)[0] for rule in (PredictedDecrease(1e-6), Constant(1e7)))
    for block in range(L):
        for which in range(2):
            a, b = (np.asarray(v.weight[block, which]).reshape(-1) for v in (small, large))
            assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 1 - 1e-9


def test_a_rule_sees_the_flow_time():
    data = problem(FEW)
    early, late = (damped(data, Exponential(1.0, 1.0), time)[1] for time in (0.0, 2.0))
    np.testing.assert_allclose(early.half_block_damping, 1.0)
    np.testing.assert_allclose(late.half_block_damping, np.exp(-2))


def test_result_and_data_and_stats_say_that_it_is_damped():
    flow = ReversibleGaussNewtonFlow(damping=PredictedDecrease(0.5))
    run = gn.iterate(problem(FEW), network(), flow, step_size=0.1, num_steps=2)
    assert "the direction was damped, residual" in run.result.message
    assert "the half-blocks have a ridge" in run.result.message
    assert run.data["half_block_damping"].dims[1:] == ("half_block",)
    assert np.all(run.data["half_block_damping"] > 0)
    assert run.stats["final_truncated"]
    assert run.stats["final_damping"] == float(run.data["half_block_damping"][-1].max())


def test_a_configuration_states_the_damping():
    table = {
        "problem": {"kind": "digits", "n_train": 10, "n_test": 10},
        "model": {"kind": "reversible", "width": 64, "bottleneck": 8, "num_blocks": 1},
        "flows": {"a": {"kind": "reversible_gauss_newton", "damping": {"kind": "predicted_decrease", "share": 0.7}}},
        "integration": {"method": "iterate", "step_size": 0.1, "num_steps": 1},
    }
    (cell,) = Specification.from_dict(table).cells
    assert cell.prepare().flow == ReversibleGaussNewtonFlow(damping=PredictedDecrease(0.7))


class TestRefused:
    @pytest.mark.parametrize(
        "flow",
        [
            GaussNewtonFlow(damping=PredictedDecrease()),
            GaussNewtonFlow(damping=PredictedDecrease(), solver=Cholesky()),
            GaussNewtonFlow(damping=PredictedDecrease(), solver=ConjugateGradients()),
            SpectralFlow(power=0.5, damping=PredictedDecrease()),
        ],
        ids=["eigh", "cholesky", "conjugate gradients", "spectral"],
    )
    def test_flows_that_give_the_rule_the_eigenvalues_alone(self, flow):
        with pytest.raises(
            gn.ConfigError, match=r"is for the half-blocks of ReversibleGaussNewtonFlow.*LargestEigenvalue"
        ):
            velocity_of(problem(FEW), flow)

    @pytest.mark.parametrize("share", [0.0, 1.5, -1.0, float("nan")])
    def test_shares(self, share):
        with pytest.raises(gn.ConfigError, match=r"PredictedDecrease: share = .*above 0 and of at most 1"):
            PredictedDecrease(share)

    def test_what_is_no_rule(self):
        with pytest.raises(gn.ConfigError, match=r"damping = 0\.1; expected a damping rule"):
            ReversibleGaussNewtonFlow(damping=0.1)


@pytest.mark.parametrize("metric", ["identity", "hessian"])
def test_the_minimum_norm_direction_across_blocks_by_conjugate_gradients(metric):
    """Of more samples than a half-block carries, against the dense Jacobian of all weights: -J^T (H A + eps)^-1 g."""
    data, model, eps = problem(MANY), network(), 1e-4
    solver = ConjugateGradients(rtol=1e-12)
    velocity, solve = velocity_of(data, GaussNewtonFlow(metric, Constant(eps), solver))

    def outputs(pair):
        moved = eqx.tree_at(lambda m: (m.weight, m.bias), model, pair)
        return (moved.hidden_features(data.x_train) @ model.output_projection).reshape(-1)

    jacobian = np.concatenate(
        [np.asarray(part).reshape(MANY * C, -1) for part in jax.jit(jax.jacrev(outputs))((model.weight, model.bias))],
        axis=1,
    )
    p = np.asarray(jax.nn.softmax(jax.vmap(model)(data.x_train)))
    hessian = np.eye(MANY * C)
    if metric == "hessian":
        for n, own in enumerate(p):
            block = slice(n * C, (n + 1) * C)
            hessian[block, block] = (np.diag(own) - np.outer(own, own)) / MANY
    gradient = (p - np.asarray(data.y_train)).reshape(-1) / MANY
    coefficients = np.linalg.solve(hessian @ jacobian @ jacobian.T + eps * np.eye(MANY * C), gradient)
    expected = -jacobian.T @ coefficients
    got = np.concatenate([np.asarray(part).reshape(-1) for part in (velocity.weight, velocity.bias)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert solve.success
