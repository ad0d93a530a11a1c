import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import softmax

import gnflow as gn
from gnflow import ResultCode
from gnflow.flows import Frozen, GaussNewtonFlow, ReversibleGaussNewtonFlow
from gnflow.losses import SoftmaxCrossEntropy, SquaredLoss
from gnflow.metrics import DirectionDiagnostics, centred_kernel_alignment
from gnflow.models import ReversibleMLP

_FILE = Path(__file__).parents[3] / "shared" / "oracles" / "reversible_random_exact.npz"
# Loss, metric, and what [B]'s mean squared error has more than ours in its output term.
OUTPUT_TERMS = {
    "mse": (SquaredLoss(), "identity", 2),
    "ceid": (SoftmaxCrossEntropy(), "identity", 1),
    "cehess": (SoftmaxCrossEntropy(), "hessian", 1),
}


@pytest.fixture(scope="module")
def oracle():
    if not _FILE.exists():
        pytest.skip("needs the arrays of an independent implementation, ../shared/oracles")
    with np.load(_FILE) as file:
        return dict(file)


class TestIndependentImplementation:
    @staticmethod
    def stacked(oracle, prefix, what):
        return np.array([[oracle[f"{prefix}block{block}_{half}_{what}"] for half in "FG"] for block in range(3)])

    def network(self, oracle, weights_of=""):
        return ReversibleMLP.from_arrays(
            self.stacked(oracle, "", "C"),
            self.stacked(oracle, weights_of, "W"),
            self.stacked(oracle, weights_of, "b"),
            oracle["u_proj"],
        )

    def test_outputs(self, oracle):
        model = self.network(oracle)
        np.testing.assert_allclose(model.hidden_features(jnp.asarray(oracle["x"])), oracle["out"], atol=1e-13)
        np.testing.assert_allclose(jax.vmap(model)(jnp.asarray(oracle["x"])), oracle["logits"], atol=1e-13)

    @pytest.mark.parametrize("term", OUTPUT_TERMS)
    def test_updates(self, oracle, term):
        loss, metric, factor = OUTPUT_TERMS[term]
        velocity, solve = velocity_of(gn.Problem(oracle["x"], oracle["y"], loss=loss), self.network(oracle), metric)
        for name, got in (("W", velocity.weight), ("b", velocity.bias)):
            expected = self.stacked(oracle, f"upd_{term}_", name)
            np.testing.assert_allclose(-3 * factor * got, expected, rtol=0, atol=1e-10 * np.max(np.abs(expected)))
        np.testing.assert_array_equal(solve.half_block_rank, oracle["ranks"])
        assert not solve.truncated
        assert float(solve.relative_residual) < 1e-12

    @pytest.mark.parametrize("rate", range(3))
    @pytest.mark.parametrize("term", ["mse", "ceid"])
    def test_trajectories_of_twenty_steps(self, oracle, term, rate):
        loss, metric, factor = OUTPUT_TERMS[term]
        run = gn.iterate(
            gn.Problem(oracle["x"], oracle["y"], loss=loss),
            self.network(oracle),
            ReversibleGaussNewtonFlow(metric=metric),
            step_size=3 * factor * float(oracle[f"traj_{term}_lr{rate}_value"]),
            num_steps=20,
            throw=False,
        )
        # [B]'s loss is the mean over samples and outputs of the squares.
        ours = run.data["train_loss"].to_numpy() * (2 / 10 if term == "mse" else 1)
        expected = oracle[f"traj_{term}_lr{rate}"]
        if np.all(np.isfinite(expected)):
            np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-28)
        else:  # the mean squared error with a rate above 1/L: rounding grows with the loss
            small = np.flatnonzero(expected < 1e6)
            np.testing.assert_allclose(ours[small], expected[small], rtol=1e-8)
            assert run.result.failed

    @pytest.mark.parametrize("run", ["final_mse_lr2", "final_ceid_lr0", "final_ceid_lr2"])
    def test_kernel_cosine_of_the_outputs(self, oracle, run):
        first, last = self.network(oracle), self.network(oracle, f"{run}_")
        system = gn.System(gn.Problem(oracle["x"], oracle["y"]), first)
        grams = [system.tangent(system.weights(model)).gram() for model in (first, last)]
        cosine = np.sum(grams[0] * grams[1]) / np.prod([np.linalg.norm(gram) for gram in grams])
        np.testing.assert_allclose(cosine, oracle[f"{run}_ntk_exact_cos_projected"], rtol=1e-10)

    @pytest.mark.parametrize("run", ["final_mse_lr2", "final_ceid_lr0", "final_ceid_lr2"])
    def test_alignment_of_every_block(self, oracle, run):
        first, last = self.network(oracle), self.network(oracle, f"{run}_")
        layers = [jax.vmap(model.layer_features)(jnp.asarray(oracle["x"])) for model in (first, last)]
        found = [float(centred_kernel_alignment(now, start)) for start, now in zip(*layers, strict=True)]
        np.testing.assert_allclose(found, oracle[f"{run}_cka_per_block"], rtol=1e-10)


@eqx.filter_jit
def _velocity(flow, system, weights):
    return flow.velocity_and_diagnostics(0.0, weights, system)


def velocity_of(problem, model, metric="identity", rtol=0.0):
    flow = ReversibleGaussNewtonFlow(metric=metric, rtol=rtol)
    system = flow.system(problem, model)
    return _velocity(flow, system, system.weights(model))


D, H, L, C = 8, 7, 2, 3


@functools.cache
def network(activation="silu", blocks=L, seed=0, init_scale=0.3):
    return ReversibleMLP(D, H, blocks, C, activation=activation, init_scale=init_scale, key=jr.key(seed))


def problem(samples, loss="softmax", seed=0, dims=D):
    rng = np.random.default_rng(seed)
    targets = np.eye(C)[rng.integers(C, size=samples)]
    losses = {"softmax": SoftmaxCrossEntropy(), "squared": SquaredLoss()}
    return gn.Problem(rng.normal(size=(samples, dims)), targets, loss=losses[loss])


def block_jacobians(model, x):
    """For each block the Jacobian (N d, P_b) of the last features with respect to its weights, by forward mode."""
    jacobians = jax.jacfwd(lambda pair: _with(model, *pair).hidden_features(x).reshape(-1))((model.weight, model.bias))
    return [
        np.concatenate([np.asarray(part[:, block]).reshape(x.size, -1) for part in jacobians], axis=1)
        for block in range(model.num_blocks)
    ]


def _with(model, weight, bias):
    return eqx.tree_at(lambda tree: (tree.weight, tree.bias), model, (weight, bias))


def output_term(problem, model, metric):
    """e (N, C), from the definitions."""
    logits = np.asarray(jax.vmap(model)(problem.x_train))
    targets = np.asarray(problem.y_train)
    if isinstance(problem.loss, SquaredLoss):
        return logits - targets
    p = softmax(logits, axis=1)
    if metric == "identity":
        return p - targets
    return np.mean(targets / p, axis=1, keepdims=True) - targets / p


@pytest.mark.parametrize(
    ("loss", "metric"),
    [("softmax", "identity"), ("softmax", "hessian"), ("squared", "identity"), ("squared", "hessian")],
)
def test_is_block_diagonal_gauss_newton(loss, metric):
    model, data = network(), problem(5, loss)
    velocity, solve = velocity_of(data, model, metric)
    change = output_term(data, model, metric) @ np.asarray(model.output_projection).T
    moved = 0
    for block, jacobian in enumerate(block_jacobians(model, data.x_train)):
        expected = -np.linalg.pinv(jacobian, rcond=1e-12) @ change.reshape(-1) / L
        got = np.concatenate([np.asarray(part[block]).reshape(-1) for part in (velocity.weight, velocity.bias)])
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
        moved = moved + jacobian @ got
    np.testing.assert_allclose(moved, -change.reshape(-1), rtol=1e-9, atol=1e-10)
    assert not solve.truncated


def test_one_block_is_the_minimum_norm_direction_to_which_the_features_move():
    # The outputs alone ask for less than all features: with C = d, u is square and both are the same.
    model = ReversibleMLP(D, H, 1, D, activation="silu", linear_blocks=(), init_scale=0.3, key=jr.key(1))
    rng = np.random.default_rng(2)
    data = gn.Problem(rng.normal(size=(4, D)), rng.normal(size=(4, D)))
    velocity, _ = velocity_of(data, model)
    flow = GaussNewtonFlow(damping=gn.damping.Constant(0.0))
    system = flow.system(data, model)
    dense = flow.velocity(0.0, system.weights(model), system)
    np.testing.assert_allclose(velocity.weight, 4 * dense.weight, rtol=1e-8, atol=1e-10)  # unit of time: N
    np.testing.assert_allclose(velocity.bias, 4 * dense.bias, rtol=1e-8, atol=1e-10)


class TestTruncated:
    SAMPLES = 12  # more than the linear block's d/2 + 1 = 5, and than h + 1 = 8

    def test_the_residual_is_what_the_direction_misses(self):
        model, data = network(), problem(self.SAMPLES)
        velocity, solve = velocity_of(data, model)
        change = output_term(data, model, "identity") @ np.asarray(model.output_projection).T
        moved = jax.jvp(
            lambda pair: _with(model, *pair).hidden_features(data.x_train),
            ((model.weight, model.bias),),
            ((velocity.weight, velocity.bias),),
        )[1]
        missed = np.linalg.norm(moved + change) / np.linalg.norm(change)
        assert missed > 0.05
        np.testing.assert_allclose(solve.relative_residual, missed, rtol=1e-10)
        assert solve.truncated
        np.testing.assert_array_equal(solve.half_block_rank, [5, 5, 8, 8])
        assert int(solve.rank) == 5
        assert np.all(np.asarray(solve.half_block_residual) > 0.01)

    def test_a_large_rtol_truncates_what_would_be_exact(self):
        exact, cut = (velocity_of(problem(5), network(), rtol=rtol)[1] for rtol in (0.0, 0.5))
        assert not exact.truncated
        assert cut.truncated
        assert int(cut.rank) < int(exact.rank) == 5

    @pytest.mark.parametrize("method", ["iterate", pytest.param("simulate", marks=pytest.mark.slow)])
    def test_result_and_data_and_stats_say_so(self, method):
        def run(rtol):
            parts = problem(5), network(), ReversibleGaussNewtonFlow(rtol=rtol)
            if method == "simulate":
                return gn.simulate(*parts, t1=0.1, stop=None, metrics=(DirectionDiagnostics(),))
            return gn.iterate(*parts, step_size=0.1, num_steps=2, metrics=(DirectionDiagnostics(),))

        truncated, exact = run(0.5), run(0.0)
        assert "the direction was truncated, residual" in truncated.result.message
        assert truncated.stats["final_truncated"]
        assert np.all(truncated.data["truncated"] == 1)
        assert truncated.data["half_block_rank"].dims[1:] == ("half_block",)
        assert "truncated" not in exact.result.message
        assert exact.stats["final_truncated"] is False
        assert np.all(exact.data["relative_residual"] < 1e-8)


def outputs_at(data, model, metric, time):
    """f at flow time `time` from f' = -e alone, which knows nothing of the network."""
    start = np.asarray(jax.vmap(model)(data.x_train))
    targets = np.asarray(data.y_train)

    def rate(_, flat):
        f = flat.reshape(start.shape)
        if isinstance(data.loss, SquaredLoss):
            return (targets - f).reshape(-1)
        p = softmax(f, axis=1)
        term = p - targets if metric == "identity" else np.mean(targets / p, axis=1, keepdims=True) - targets / p
        return -term.reshape(-1)

    solution = solve_ivp(rate, (0, time), start.reshape(-1), method="DOP853", rtol=1e-12, atol=1e-13)
    return solution.y[:, -1].reshape(start.shape)


@pytest.mark.parametrize(
    ("loss", "metric", "seed"),
    [
        *(("softmax", "identity", seed) for seed in range(3)),
        *(pytest.param(*term, 0, marks=pytest.mark.slow) for term in (("softmax", "hessian"), ("squared", "identity"))),
    ],
)
def test_outputs_obey_their_own_equation_whatever_the_network(loss, metric, seed):
    # One sample fewer than the linear block can carry: at the edge its features come close to singular on the way.
    data, model = problem(4, loss, seed), network(seed=seed)
    flow = ReversibleGaussNewtonFlow(metric=metric)
    run = gn.simulate(data, model, flow, t1=2.0, stop=None, saveat=[1.0], rtol=1e-8, atol=1e-11)
    error = np.max(np.abs(np.asarray(jax.vmap(run.model)(data.x_train)) - outputs_at(data, model, metric, 2.0)))
    # Some 40 steps, each with an error of 1e-8 of the residual.
    assert error < 1e-7
    assert not run.stats["final_truncated"]


def test_what_is_not_a_number_is_neither_solved_nor_exact():
    model = eqx.tree_at(lambda tree: tree.bias, network(), jnp.full((L, 2, D // 2), jnp.nan))
    _, solve = velocity_of(problem(5), model)
    assert np.isnan(solve.relative_residual)
    assert solve.truncated
    assert not solve.success


@pytest.mark.slow
def test_with_kinks_too():
    data, model = problem(5), network("relu")
    run = gn.simulate(data, model, ReversibleGaussNewtonFlow(), t1=0.5, stop=None, saveat=[0.5], rtol=1e-7, atol=1e-9)
    error = np.max(np.abs(np.asarray(jax.vmap(run.model)(data.x_train)) - outputs_at(data, model, "identity", 0.5)))
    assert error < 1e-5


def test_memory_does_not_grow_with_depth():
    data = problem(48, dims=8)
    flow = ReversibleGaussNewtonFlow()

    def temporary_bytes(blocks):
        model = ReversibleMLP(8, 200, blocks, C, key=jr.key(0))
        system = flow.system(data, model)
        arrays, rest = eqx.partition((system.weights(model), system), eqx.is_array)

        def velocity(arrays):
            weights, system = eqx.combine(arrays, rest)
            return flow.velocity_and_diagnostics(0.0, weights, system)

        return jax.jit(velocity).lower(arrays).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(32) < 1.2 * temporary_bytes(2)


class TestBadInput:
    def test_another_model(self):
        model = gn.models.MLP(D, 4, 1, C, key=jr.key(0))
        with pytest.raises(gn.ModelError, match="moves a ReversibleMLP, but the model is a MLP"):
            ReversibleGaussNewtonFlow().system(problem(4), model)

    def test_another_model_behind_a_wrapper(self):
        model = gn.models.MLP(D, 4, 1, C, key=jr.key(0))
        with pytest.raises(gn.ModelError, match="moves a ReversibleMLP, but the model is a MLP"):
            gn.iterate(problem(4), model, Frozen(ReversibleGaussNewtonFlow(), "all"), step_size=0.1, num_steps=1)

    def test_all_weights_by_their_names_are_no_part(self):
        flow = Frozen(ReversibleGaussNewtonFlow(), ("weight", "bias"))
        data = problem(4)
        weights = flow.system(data, network()).weights(network())
        velocity, _ = _velocity(flow, flow.system(data, network()), weights)
        np.testing.assert_array_equal(velocity.weight, velocity_of(data, network())[0].weight)

    def test_a_part_of_the_weights(self):
        flow = Frozen(ReversibleGaussNewtonFlow(), "bias")
        with pytest.raises(gn.ModelError, match="moves all weights, but only"):
            gn.iterate(problem(4), network(), flow, step_size=0.1, num_steps=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rtol": -1.0}, r"rtol = -1\.0"),
            ({"rtol": 1.0}, r"rtol = 1\.0; expected a number of at least 0 and below 1"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(gn.ConfigError, match=message):
            ReversibleGaussNewtonFlow(**options)

    def test_probabilities_that_underflow_end_with_a_code(self):
        rng = np.random.default_rng(0)
        x = 1e4 * rng.normal(size=(4, D))
        data = gn.Problem(x, np.eye(C)[[0, 1, 2, 0]], loss=SoftmaxCrossEntropy())
        flow = ReversibleGaussNewtonFlow(metric="hessian")
        run = gn.iterate(data, network(init_scale=1e-3), flow, step_size=0.1, num_steps=2, throw=False)
        assert run.result.code == ResultCode.DIRECTION_FAILED
        assert "at step 0: its numbers are not finite" in run.result.message

    @pytest.mark.slow
    def test_outputs_that_are_not_finite(self):
        data = gn.Problem(1e200 * np.ones((2, D)), np.eye(C)[:2], loss=SquaredLoss())
        run = gn.simulate(data, network(), ReversibleGaussNewtonFlow(), throw=False)
        assert run.result.code == ResultCode.NON_FINITE
