"""Dual directions with gamma that adapts and with blocks of weights, as a transformation and in `iterate`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracles import dense
from oracles.cases import Case

import gnflow as gn
from gnflow import ConfigError, ModelError
from gnflow.flows import GradientFlow
from gnflow.optimisers import SGD, AdaptiveGamma, DualGaussNewton, dual_gauss_newton

GAMMA = 30.0
CASE = Case("mean field silu", "softmax", 3, seed=51)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@functools.cache
def joined():
    system = gn.System(CASE.problem, CASE.model)
    return system, system.weights(CASE.model)


@functools.cache
def direction(gamma=GAMMA, **options):
    """d, and the state after it."""
    system, weights = joined()
    transformation = dual_gauss_newton(gamma, **options)
    update = jax.jit(
        lambda state: transformation.update(weights, state, weights, system=system), compiler_options=dense.QUICK
    )
    pseudo, state = update(transformation.init(weights))
    return jax.tree.map(jnp.negative, pseudo), state


@functools.cache
def the_case():
    """J (NC, P), g and H, dense."""
    oracle = dense.dense_case(CASE)
    return (
        oracle.jacobian,
        oracle.gradient,
        dense.hessian_matrix(CASE.problem.loss, oracle.outputs, CASE.problem.y_train),
    )


def the_objective(displacement, gamma=GAMMA):
    """P(d) - P(0) of the quadratic model of all weights."""
    jacobian, gradient, hessian = the_case()
    moved = jacobian @ displacement
    return gradient @ moved + moved @ hessian @ moved / 2 + displacement @ displacement / (2 * gamma)


@pytest.mark.parametrize("blocks", ["layers", ("output", "hidden_weight", "hidden_bias")])
def test_each_block_has_the_direction_of_its_own_jacobian(blocks):
    """d_b = -(J_b^T H J_b + 1/gamma)^-1 J_b^T g, dense, and the length at which P is smallest along their sum."""
    jacobian, gradient, hessian = the_case()
    system, weights = joined()
    expected, minima = np.zeros(jacobian.shape[1]), []
    for name in ("hidden", "output") if blocks == "layers" else blocks:
        named = system.named(weights, name)
        own = jacobian * dense.flat(CASE.leaves(jax.tree.map(lambda w, here: jnp.full(w.shape, here), weights, named)))
        part = -np.linalg.solve(own.T @ hessian @ own + np.eye(jacobian.shape[1]) / GAMMA, own.T @ gradient)
        minima.append(the_objective(part))
        expected += part
    displacement, state = direction(blocks=blocks, products="dense")
    got = dense.flat(CASE.leaves(displacement))
    length = got @ expected / (expected @ expected)
    np.testing.assert_allclose(got, length * expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    at_length, beside = the_objective(got), [the_objective(factor * got) for factor in (0.99, 1.01)]
    assert at_length < min(beside)
    assert length < 0.95  # each block alone takes the decrease on itself
    assert at_length <= np.mean(minima) < 0
    assert bool(state.success)


def test_one_block_is_the_direction_of_all_weights():
    whole, _ = direction(products="dense")
    one, _ = direction(blocks=("all",), products="dense")
    np.testing.assert_allclose(flat(one), flat(whole), rtol=1e-9, atol=1e-12)


def test_blocks_of_the_exact_model_descend_in_it():
    system, weights = joined()
    displacement, state = direction(1e3, model="exact", blocks="layers")
    tangent, targets = system.tangent(weights), CASE.problem.y_train
    change = tangent.jvp(displacement)

    def objective(t):
        ridge = t**2 * jnp.sum(ravel_pytree(displacement)[0] ** 2) / 2e3
        return system.loss.value(tangent.outputs + t * change, targets) + ridge

    assert objective(1.0) < objective(0.0)
    assert abs(jax.grad(objective)(1.0)) < 0.2 * abs(jax.grad(objective)(0.0))
    assert bool(state.success)
    assert int(state.iterations) > 0


@pytest.mark.parametrize("model", ["quadratic", "exact"])
@pytest.mark.parametrize("gamma", [0.1, 1e4])
def test_gamma_follows_the_ratio_of_the_decreases(model, gamma):
    system, weights = joined()
    rule = AdaptiveGamma(gamma, factor=3.0, reject=False)
    displacement, state = direction(rule, model=model)
    outputs, targets = system.outputs(weights), CASE.problem.y_train
    change = np.asarray(system.tangent(weights).jvp(displacement)).reshape(-1)
    _, gradient, hessian = the_case()
    promised = -gradient @ change - change @ hessian @ change / 2
    if model == "exact":
        promised = system.loss.value(outputs, targets) - system.loss.value(
            outputs + change.reshape(outputs.shape), targets
        )
    gained = system.train_loss(weights) - system.train_loss(jax.tree.map(jnp.add, weights, displacement))
    np.testing.assert_allclose(state.ratio, gained / promised, rtol=1e-7)
    np.testing.assert_allclose(state.gamma, gamma)
    factor = 3.0 if float(state.ratio) > 0.75 else 1 / 3.0 if float(state.ratio) < 0.25 else 1.0
    np.testing.assert_allclose(state.next_gamma, gamma * factor)
    if model == "quadratic":
        assert factor == (3.0 if gamma == 0.1 else 1 / 3.0)


def test_the_bounds_hold_and_a_step_that_raises_the_loss_is_not_made():
    rule = AdaptiveGamma(2.0, smallest=1.0, largest=5.0)
    one, number = jnp.ones(()), lambda value: jnp.asarray(value, dtype=float)
    assert float(rule.next(number(4.0), number(0.9))) == 5.0
    assert float(rule.next(number(1.5), number(-1.0))) == 1.0
    assert float(rule.next(number(4.0), number(0.5))) == 4.0
    assert float(rule.next(number(4.0), number(jnp.nan))) == 2.0
    assert float(rule.ratio(number(1e-17), number(2e-17), one)) == 0.5  # rounding of the loss says nothing
    assert not bool(rule.accepts(number(-0.1)))
    assert not bool(rule.accepts(number(jnp.nan)))
    assert bool(AdaptiveGamma(reject=False).accepts(number(-0.1)))
    # Quadratic steps from a large gamma: where one would raise the loss of its samples there is none.
    problem, model = CASE.problem, CASE.model
    optimiser = DualGaussNewton(AdaptiveGamma(1e8, factor=10.0))
    run = gn.iterate(
        problem, model, GradientFlow(1.0), optimiser=optimiser, num_steps=12, batch_size=problem.num_train, key=0
    )
    before, after = run.data.batch_loss.values, run.data.batch_loss_after.values
    assert np.all(after <= before)
    assert np.any(after == before)
    assert after[-1] < 0.5 * before[0]
    gammas = 1 / run.data.batch_damping.values
    rejected = np.flatnonzero(after[:-1] == before[:-1])
    np.testing.assert_allclose(gammas[rejected + 1], gammas[rejected] / 10)


def test_with_fixed_gamma_the_optimiser_takes_the_steps_of_the_flow():
    along = gn.flows.DualGaussNewtonFlow(GAMMA, max_iterations=3)
    options = {"num_steps": 3, "batch_size": 2, "key": 1}
    flow = gn.iterate(CASE.problem, CASE.model, along, step_size=GAMMA / (1 + GAMMA), **options)
    optimiser = DualGaussNewton(GAMMA, max_iterations=3, then=SGD(1.0))
    steps = gn.iterate(CASE.problem, CASE.model, GradientFlow(1.0), optimiser=optimiser, **options)
    np.testing.assert_allclose(steps.data.batch_loss_after, flow.data.batch_loss_after, rtol=1e-10)
    np.testing.assert_allclose(steps.data.batch_damping, flow.data.batch_damping)
    np.testing.assert_allclose(steps.data.batch_duality_gap, flow.data.batch_duality_gap, rtol=1e-6)
    assert steps.stats["solver"] == "dual_gauss_newton"


def test_layers_are_the_models_own_groups_or_its_modules():
    from gnflow.models._weight_groups import layers_of

    deep = gn.models.MLP(4, 8, 2, 3, key=0)
    paths = ["layers[0].weight", "layers[0].bias", "layers[2].weight"]
    assert layers_of(deep, paths) == ["layers[0]", "layers[0]", "layers[2]"]
    assert layers_of(CASE.model, ["hidden_weight", "output_weight"]) == ["hidden", "output"]
    assert layers_of(eqx.nn.Linear(2, 2, key=jax.random.key(0)), ["weight", "bias"]) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveGamma(factor=1.0), "AdaptiveGamma: factor = 1"),
        (lambda: AdaptiveGamma(1.0, largest=0.5), "initial = 1 is not between"),
        (lambda: AdaptiveGamma(shrink_below=0.8), "shrink_below = 0.8 is above grow_above = 0.75"),
        (lambda: AdaptiveGamma(grow_above=2.0), "grow_above = 2"),
        (lambda: DualGaussNewton(0.0), "DualGaussNewton: gamma = 0"),
        (lambda: DualGaussNewton(blocks=3), 'blocks = 3; expected "layers"'),
        (lambda: DualGaussNewton(blocks="layer"), "blocks = 'layer'; expected"),
        (lambda: DualGaussNewton(then="adam"), "then = 'adam'; expected an optimiser"),
        (lambda: DualGaussNewton(products="free"), "products = 'free'"),
        (lambda: dual_gauss_newton(warm_start=(4, 3), blocks="layers"), "dual variables of its own"),
    ],
)
def test_numbers_and_names_that_make_no_direction(make, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("output",), "hidden_weight belongs to none"),
        (("all", "output"), "belongs to 'all' and to 'output'"),
        (("hidden", "outputs"), "no weights called 'outputs'"),
    ],
)
def test_blocks_that_are_not_the_models_weights(blocks, message):
    system, weights = joined()
    transformation = dual_gauss_newton(blocks=blocks)
    with pytest.raises(ModelError, match=message):
        transformation.update(weights, transformation.init(weights), weights, system=system)


@pytest.mark.parametrize("blocks", ["layers", ["hidden", "output"]])
def test_a_configuration_names_all_of_it(blocks):
    from gnflow.config._forms import form_of

    form = form_of("optimiser", gn.optimisers.AbstractOptimiser)
    table = {
        "kind": "dual_gauss_newton",
        "gamma": {"kind": "adaptive", "initial": 4.0, "reject": False},
        "blocks": blocks,
        "then": {"kind": "adam", "learning_rate": 0.25},
    }
    made = form.build(form.check(table, "optimiser"), "optimiser")
    assert isinstance(made, DualGaussNewton)
    assert made.gamma.initial == 4.0
    assert made.gamma.reject is False
    assert made.then == gn.optimisers.Adam(0.25)
    assert made.blocks == (blocks if isinstance(blocks, str) else tuple(blocks))
    with pytest.raises(ConfigError, match="unknown option 'start'"):
        form.check({**table, "gamma": {"kind": "adaptive", "start": 1.0}}, "optimiser")
