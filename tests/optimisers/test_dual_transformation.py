"""Dual directions in the place of gradients: what the transformation gives, in loops of Optax's own and in `iterate`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from oracles import dense
from oracles.cases import NUM_TRAIN, Case

import gnflow as gn
from gnflow import ConfigError
from gnflow.flows import GradientFlow
from gnflow.optimisers import dual_gauss_newton

GAMMA = 30.0
CASE = Case("mean field silu", "softmax", 3, seed=51)


@functools.cache
def joined():
    system = gn.System(CASE.problem, CASE.model)
    return system, system.weights(CASE.model)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@functools.cache
def compiled(**options):
    """One update of the transformation alone: (weights, state) -> (pseudo-gradient, state)."""
    system, _ = joined()
    transformation = dual_gauss_newton(GAMMA, **options)

    @jax.jit
    def update(weights, state, factor):
        gradient = jax.tree.map(lambda leaf: factor * leaf, jax.grad(system.train_loss)(weights))
        return transformation.update(gradient, state, weights, system=system)

    return transformation, update


def test_the_gradient_is_replaced_by_minus_the_dual_direction():
    """d = -(J^T H J + 1/gamma)^-1 J^T g, dense; whatever the gradient was."""
    _, weights = joined()
    transformation, update = compiled(products="dense")
    oracle = dense.dense_case(CASE)
    hessian = dense.hessian_matrix(CASE.problem.loss, oracle.outputs, CASE.problem.y_train)
    matrix = oracle.jacobian.T @ hessian @ oracle.jacobian + np.eye(oracle.jacobian.shape[1]) / GAMMA
    expected = np.linalg.solve(matrix, oracle.jacobian.T @ oracle.gradient)
    state = transformation.init(weights)
    assert np.isinf(state.duality_gap)
    for factor in (1.0, 0.0):
        pseudo, state = update(weights, state, factor)
        got = dense.flat(CASE.leaves(pseudo))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert int(state.iterations) == 0  # solved for directly
    assert 0 <= float(state.duality_gap) < 1e-20
    assert state.dual_variables is None


def test_a_warm_start_goes_on_where_the_last_step_ended():
    _, weights = joined()
    warm, update = compiled(products="matrix_free", max_iterations=2, warm_start=(NUM_TRAIN, 3))
    state = warm.init(weights)
    gaps = []
    for _ in range(4):
        pseudo, state = update(weights, state, 1.0)
        gaps.append(float(state.duality_gap))
    assert np.all(np.diff(gaps) < 0)
    assert gaps[-1] < 1e-2 * gaps[0]
    assert int(state.iterations) == 2
    system, _ = joined()
    assert flat(pseudo) @ flat(jax.grad(system.train_loss)(weights)) > 0


def test_gamma_may_follow_a_schedule():
    """As Optax injects it, an array in a compiled step."""
    system, weights = joined()
    scheduled = optax.inject_hyperparams(dual_gauss_newton, static_args=("model", "products"))(
        gamma=lambda count: GAMMA * 2.0**count
    )
    state = scheduled.init(weights)
    for gamma in (GAMMA, 2 * GAMMA):
        pseudo, state = scheduled.update(weights, state, weights, system=system)
        plain = dual_gauss_newton(gamma)
        expected, _ = plain.update(weights, plain.init(weights), weights, system=system)
        np.testing.assert_allclose(flat(pseudo), flat(expected), rtol=1e-10)


def test_the_users_loop_and_iterate_take_the_same_steps():
    """Adam on dual directions: Optax's chain in a loop, and given to `iterate`."""
    system, start = joined()
    chained = optax.chain(dual_gauss_newton(GAMMA, max_iterations=3), optax.adam(0.05))

    @jax.jit
    def step(weights, state):
        gradient = jax.grad(system.train_loss)(weights)
        updates, state = chained.update(gradient, state, weights, system=system)
        return optax.apply_updates(weights, updates), state

    weights, state = start, chained.init(start)
    for _ in range(3):
        weights, state = step(weights, state)
    assert int(state[0].iterations) == 3
    along = gn.iterate(CASE.problem, CASE.model, GradientFlow(1.0), optimiser=chained, num_steps=3)
    np.testing.assert_allclose(flat(system.weights(along.model)), flat(weights), rtol=1e-10)
    assert float(along.data.train_loss[-1]) < float(along.data.train_loss[0])


@functools.cache
def looped(model):
    """Adam on dual directions over batches, outside compiled programs and inside in three ways: weights and states."""
    problem, network = CASE.problem, CASE.model
    x, y = problem.x_train, problem.y_train
    batches = jnp.array([[0, 1], [2, 3], [1, 3], [0, 2]])
    chained = optax.chain(dual_gauss_newton(GAMMA, model, warm_start=(2, 3)), optax.adam(0.05))

    def take(weights, state, system):
        updates, state = chained.update(jax.grad(system.train_loss)(weights), state, weights, system=system)
        return optax.apply_updates(weights, updates), state

    def joined(x, y, network):
        return gn.System(gn.Problem(x, y, loss=problem.loss), network)

    start = gn.System(problem, network).weights(network)
    begin = start, chained.init(start)
    ends = {}

    step = jax.jit(take, compiler_options=dense.QUICK)
    weights, state = begin
    for batch in batches:
        weights, state = step(weights, state, joined(x[batch], y[batch], network))
    ends["outside"] = weights, state

    @functools.partial(jax.jit, compiler_options=dense.QUICK)
    def sliced(weights, state, batch):
        return take(weights, state, joined(x[batch], y[batch], network))

    weights, state = begin
    for batch in batches:
        weights, state = sliced(weights, state, batch)
    ends["jit"] = weights, state

    @functools.partial(jax.jit, compiler_options=dense.QUICK)
    def scanned(carry):
        body = lambda carry, batch: (take(*carry, joined(x[batch], y[batch], network)), carry[1][0].success)  # noqa: E731
        return jax.lax.scan(body, carry, batches)

    ends["scan"], successes = scanned(begin)
    assert successes.tolist() == [False, True, True, True]  # of the directions before each step

    @eqx.filter_jit
    def whole(network, state, x, y):
        system = joined(x, y, network)
        weights, state = take(system.weights(network), state, system)
        return system.model(weights), state

    moving, state = network, begin[1]
    for batch in batches:
        moving, state = whole(moving, state, x[batch], y[batch])
    ends["model"] = gn.System(problem, network).weights(moving), state
    return start, ends


@pytest.mark.parametrize("way", ["jit", "scan", "model"])
@pytest.mark.parametrize("model", ["quadratic", "exact"])
def test_a_loop_over_batches_in_a_compiled_program_takes_the_same_steps(model, way):
    start, ends = looped(model)
    weights, state = ends["outside"]
    assert np.abs(flat(weights) - flat(start)).max() > 0.1
    np.testing.assert_allclose(flat(ends[way][0]), flat(weights), rtol=1e-12, atol=1e-14)
    inner, other = state[0], ends[way][1][0]
    assert jax.tree.structure(other) == jax.tree.structure(inner)
    np.testing.assert_allclose(other.dual_variables, inner.dual_variables, rtol=1e-9, atol=1e-12)
    assert bool(other.success)
    assert 0 <= float(other.relative_duality_gap) < 1e-12


def test_the_state_says_whether_the_direction_was_solved_for_and_what_may_be_missing():
    system, weights = joined()
    gaps = []
    for options in ({"max_iterations": 0}, {"max_iterations": 3}, {"max_iterations": 5}, {"tol": 0.0}, {"tol": 1e-9}):
        transformation, update = compiled(products="matrix_free", **options)
        before = transformation.init(weights)
        assert not bool(before.success)
        assert np.isinf(before.relative_duality_gap)
        state = update(weights, before, 1.0)[1]
        assert state.success.dtype == bool
        assert bool(state.success) == (options != {"tol": 0.0})  # a number of iterations is what was asked for
        gaps.append(float(state.relative_duality_gap))
        # The model's decrease from P(0) = L is P(0) - P(d) = most - gap.
        pseudo = update(weights, before, 1.0)[0]
        change = system.tangent(weights).jvp(jax.tree.map(jnp.negative, pseudo))
        oracle = dense.dense_case(CASE)
        hessian = dense.hessian_matrix(CASE.problem.loss, oracle.outputs, CASE.problem.y_train)
        moved = np.asarray(change).reshape(-1)
        value = oracle.gradient @ moved + moved @ hessian @ moved / 2 + flat(pseudo) @ flat(pseudo) / (2 * GAMMA)
        gap = float(state.duality_gap)
        expected = min(1.0, gap / (gap - value))  # the whole gradient step ends above P(0)
        np.testing.assert_allclose(state.relative_duality_gap, expected, rtol=1e-6, atol=1e-14)
    assert gaps[0] == 1 > gaps[1] > gaps[2] > 1e-7
    assert max(gaps[3:]) < 1e-12


def test_with_a_backtracking_line_search_behind_it():
    """The whole direction first, Armijo's condition with the true gradient at the end."""
    system, weights = joined()
    chained = optax.chain(
        dual_gauss_newton(1e3, max_iterations=4),
        optax.sgd(1.0),
        optax.scale_by_backtracking_linesearch(20, slope_rtol=0.3, increase_factor=np.inf),
    )

    @jax.jit
    def step(weights, state):
        value, grad = jax.value_and_grad(system.train_loss)(weights)
        loss = lambda weights, system: system.train_loss(weights)  # noqa: E731
        updates, state = chained.update(grad, state, weights, system=system, value=value, grad=grad, value_fn=loss)
        after = optax.apply_updates(weights, updates)
        slope = ravel_pytree(updates)[0] @ ravel_pytree(grad)[0]
        return after, state, (value, system.train_loss(after), slope)

    state = chained.init(weights)
    for _ in range(4):
        weights, state, (before, after, slope) = step(weights, state)
        assert slope < 0
        assert after <= before + 0.3 * slope + 1e-15


def test_what_update_is_not_given_is_named():
    system, weights = joined()
    transformation = dual_gauss_newton(warm_start=(2, 3))
    gradient = jax.tree.map(jnp.zeros_like, weights)
    state = transformation.init(weights)
    with pytest.raises(ConfigError, match=r"system = None; .*gnflow\.System\(batch_problem, model\)"):
        transformation.update(gradient, state, weights)
    with pytest.raises(ConfigError, match="got no weights"):
        transformation.update(gradient, state, system=system)
    with pytest.raises(ConfigError, match=r"different trees; both are like system\.weights"):
        transformation.update({"w": jnp.zeros(3)}, state, weights, system=system)
    with pytest.raises(ConfigError, match=r"warm_start = \(2, 3\).*shape \(4, 3\)"):
        transformation.update(gradient, state, weights, system=system)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, r"dual_gauss_newton: gamma = 0\.0"),
        ({"model": "exakt"}, "unknown model of a dual direction 'exakt'; did you mean 'exact'"),
        ({"max_iterations": -1}, "max_iterations = -1"),
        ({"products": "free"}, "products = 'free'"),
        ({"tol": "tight"}, "tol = 'tight'"),
        ({"warm_start": 24}, r"warm_start = 24; expected \(N, C\)"),
        ({"warm_start": (0, 3)}, r"warm_start\[0\] = 0; expected an integer"),
    ],
)
def test_numbers_and_names_that_make_no_transformation(options, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ConfigError, match=message):
        dual_gauss_newton(**options)
