"""A mobility for each group of weights: dense formulas, what becomes of a flow's laws, runs, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree
from oracles import dense
from scipy.integrate import solve_ivp

import gnflow as gn
from gnflow.flows import (
    Frozen,
    GaussNewtonFlow,
    GradientFlow,
    ReversibleGaussNewtonFlow,
    Scaled,
    SpectralFlow,
    WeightDecay,
)
from gnflow.geometry import Decomposition
from gnflow.geometry.damping import Constant
from gnflow.theory import Evidence, Verdict, theorem_kinds

SCALE = {"output": 0.01, "hidden_bias": 4.0}
INNER = {
    "gradient": (GradientFlow(2.0), lambda gram: 2.0 * np.eye(len(gram))),
    "gauss-newton": (
        GaussNewtonFlow(damping=Constant(0.05)),
        lambda gram: np.linalg.inv(gram + 0.05 * np.eye(len(gram))),
    ),
    "spectral": (SpectralFlow(power=0.5, damping=Constant(0.05)), lambda gram: dense.symmetric_power(gram, -0.5, 0.05)),
}


class Dense:
    """A small network with its Jacobian, and D for each entry of the weights in their order."""

    def __init__(self, num_outputs=2):
        self.problem, self.model = make_problem(num_outputs=num_outputs), trained(num_outputs)
        self.system = GradientFlow().system(self.problem, self.model)
        self.weights = self.system.weights(self.model)
        flat, self.unravel = ravel_pytree(self.weights)

        def outputs(vector):
            return self.system.outputs(self.unravel(vector)).reshape(-1)

        self.jacobian = np.asarray(jax.jacfwd(outputs)(flat))
        f, y = self.system.outputs(self.weights), self.problem.y_train
        self.gradient = np.asarray((f - y) / len(y)).reshape(-1)
        self.scales = self.flat(
            self.weights.__class__.from_arrays(
                np.ones_like(self.model.hidden_weight),
                np.full_like(self.model.hidden_bias, 4.0),
                np.full_like(self.model.output_weight, 0.01),
                "silu",
            )
        )

    def flat(self, model):
        return np.asarray(ravel_pytree(self.system.weights(model))[0])


def trained(num_outputs=2):
    """A network whose output layer is not zero."""
    model = mean_field(num_outputs=num_outputs)
    drawn = np.random.default_rng(0).normal(size=model.output_weight.shape)
    return gn.models.MeanFieldNetwork.from_arrays(model.hidden_weight, model.hidden_bias, drawn, "silu")


CASE = Dense()


@pytest.mark.parametrize("name", INNER)
def test_the_velocity_is_that_of_the_dense_formula(name):
    flow, gain = INNER[name]
    jac, scales = CASE.jacobian, CASE.scales
    for where, gram in (("velocity", jac @ jac.T), ("metric", jac @ np.diag(scales) @ jac.T)):
        expected = -scales * (jac.T @ gain(gram) @ CASE.gradient)
        got = Scaled(flow, SCALE, where).velocity(0.0, CASE.weights, CASE.system)
        np.testing.assert_allclose(ravel_pytree(got)[0], expected, rtol=1e-9, atol=1e-12)


def test_for_gradient_flow_velocity_and_metric_are_the_same():
    for inner in (GradientFlow(2.0), WeightDecay(GradientFlow(2.0), {"hidden": 0.3})):
        one, other = (
            ravel_pytree(Scaled(inner, SCALE, where).velocity(0.0, CASE.weights, CASE.system))[0]
            for where in ("velocity", "metric")
        )
        np.testing.assert_allclose(one, other, rtol=1e-13)
    newton = [Scaled(GaussNewtonFlow(damping=Constant(0.05)), SCALE, where) for where in ("velocity", "metric")]
    one, other = (ravel_pytree(flow.velocity(0.0, CASE.weights, CASE.system))[0] for flow in newton)
    assert np.abs(one - other).max() > 0.1 * np.abs(one).max()


@pytest.mark.parametrize("name", INNER)
def test_in_the_metric_it_is_the_flow_of_other_weights(name):
    """In z = D^(-1/2) w: the network with these weights, scaled back before it is used."""

    class Rescaled(gn.models.MeanFieldNetwork):
        def __call__(self, x):
            u, b, v = self.hidden_weight, 2.0 * self.hidden_bias, 0.1 * self.output_weight
            return self.output_factor * (self.activation(u @ x + b) @ v)

    model = CASE.model
    other = Rescaled.from_arrays(model.hidden_weight, model.hidden_bias / 2, model.output_weight / 0.1, "silu")
    flow, options = INNER[name][0], {"t1": 3.0, "stop": None, "rtol": 1e-6}
    run = gn.simulate(CASE.problem, model, Scaled(flow, SCALE, "metric"), **options)
    plain = gn.simulate(CASE.problem, other, flow, **options)
    np.testing.assert_allclose(run.data.train_loss[-1], plain.data.train_loss[-1], rtol=1e-4)
    np.testing.assert_allclose(run.model.output_weight, 0.1 * plain.model.output_weight, atol=1e-4)
    np.testing.assert_allclose(run.model.hidden_bias, 2.0 * plain.model.hidden_bias, atol=1e-4)


def test_undamped_gauss_newton_keeps_its_rate_in_the_metric_and_not_in_the_velocity():
    """f' = -(f - y) with H the Hessian, for every D in the metric: the loss falls by e^-2 in a unit of time."""
    problem, model = make_problem(num_outputs=1), trained(1)
    flow = GaussNewtonFlow("hessian", Constant(0.0))
    options = {"t1": 1.0, "stop": None, "rtol": 1e-6}
    for where, same in (("metric", True), ("velocity", False)):
        loss = gn.simulate(problem, model, Scaled(flow, SCALE, where), **options).data.train_loss.to_numpy()
        assert np.isclose(loss[-1] / loss[0], np.exp(-2), rtol=1e-4) == same


@pytest.mark.parametrize("name", INNER)
def test_the_linearisation_is_that_of_the_scaled_flow(name):
    flow, gain = Scaled(INNER[name][0], SCALE, "metric"), INNER[name][1]
    jac, scales = CASE.jacobian, CASE.scales
    gram = jac @ np.diag(scales) @ jac.T
    assert flow.linearised is not None
    tangent = flow.tangent(CASE.weights, CASE.system)
    np.testing.assert_allclose(tangent.gram(), gram, rtol=1e-10, atol=1e-13)
    vector = jnp.asarray(np.random.default_rng(1).normal(size=tangent.outputs.shape))
    np.testing.assert_allclose(tangent.gram_operator()(vector).reshape(-1), gram @ np.ravel(vector), rtol=1e-9)
    blocks = gram.reshape(*vector.shape, *vector.shape)
    np.testing.assert_allclose(tangent.sample_blocks(), np.einsum("ncnd->ncd", blocks), rtol=1e-9, atol=1e-13)
    projected = np.einsum("nc,ncmd,md->nm", vector, blocks, vector)
    np.testing.assert_allclose(tangent.projected_gram(vector[None]), projected, rtol=1e-9, atol=1e-12)
    line = flow.linearised.linearisation(jnp.zeros(()), tangent, CASE.system, Decomposition())
    product = np.asarray(line.right) @ gram @ np.asarray(line.left)
    np.testing.assert_allclose(product, np.diag(line.rates), atol=1e-10)
    expected = scales[:, None] * (jac.T @ gain(gram) @ jac) / len(CASE.problem.y_train)
    got = scales[:, None] * (jac.T @ np.asarray(line.left) @ np.asarray(line.right) @ jac)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["exponential", "kvaerno5", "tsit5"])
def test_runs_agree_with_scipy(solver):
    flow = Scaled(WeightDecay(GradientFlow(2.0), {"hidden": 0.1}), SCALE)
    slope = jax.jit(jax.grad(lambda vector: CASE.system.train_loss(CASE.unravel(vector))))
    decayed = 0.1 * (CASE.scales != 0.01)

    def velocity(_, w):
        return CASE.scales * (-2 * np.asarray(slope(w)) - decayed * w)

    found = solve_ivp(velocity, (0, 2.0), CASE.flat(CASE.model), "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    run = gn.simulate(CASE.problem, CASE.model, flow, t1=2.0, stop=None, solver=solver, rtol=1e-6)
    np.testing.assert_allclose(CASE.flat(run.model), found, atol=2e-5)


def test_what_the_flows_say_of_themselves():
    newton = GaussNewtonFlow(damping=Constant(0.1))
    flows = [  # falls, has a linearisation, rests with the gradient
        (Scaled(GradientFlow(), SCALE), True, True, True),
        (Scaled(newton, SCALE, "metric"), True, True, True),
        (Scaled(newton, SCALE), False, False, True),
        (Scaled(WeightDecay(GradientFlow(), 0.1), SCALE), True, True, False),
        (Scaled(WeightDecay(newton, 0.1), SCALE, "metric"), False, True, False),
        (WeightDecay(Scaled(GradientFlow(), SCALE), 0.1), False, True, False),
    ]
    for flow, falls, linear, rests in flows:
        assert flow.never_ascends(CASE.system) == falls
        assert (flow.linearised is not None) == linear
        assert flow.rests_with_gradient == rests
        assert flow.gain(CASE.system) is None
        assert not flow.has_real_spectrum(CASE.system)
    inside, outside = flows[3][0], flows[5][0]
    np.testing.assert_allclose(inside.decay(CASE.weights, CASE.system).output_weight, 0.001)
    np.testing.assert_allclose(outside.decay(CASE.weights, CASE.system).output_weight, 0.1)


def test_gauss_newton_scaled_in_the_velocity_can_rise():
    """Two samples, two weights: J^T g and D v may be at an obtuse angle for a D far from a number."""
    rng = np.random.default_rng(2)
    slopes = []
    for _ in range(50):
        jac, gradient = rng.normal(size=(2, 2)), rng.normal(size=2)
        velocity = -np.array([1.0, 100.0]) * np.linalg.solve(jac, gradient)
        slopes.append(gradient @ jac @ velocity)
    assert max(slopes) > 0


def test_frozen_and_scaled_may_wrap_each_other():
    one = Frozen(Scaled(GradientFlow(), {"output": 0.5}), "output")
    other = Scaled(Frozen(GradientFlow(), "output"), {"output": 0.5})
    assert one.trainable == other.trainable == "output"
    assert one.dynamics == other.dynamics
    runs = [gn.simulate(CASE.problem, CASE.model, flow, t1=1.0, stop=None) for flow in (one, other)]
    np.testing.assert_array_equal(runs[0].data.train_loss, runs[1].data.train_loss)
    np.testing.assert_array_equal(runs[0].model.hidden_weight, CASE.model.hidden_weight)


@pytest.mark.slow
def test_no_theorem_about_other_flows_claims_anything():
    """Those of the start and of the order of steps hold for any flow."""
    evidence = Evidence(gn.simulate(CASE.problem, CASE.model, Scaled(GradientFlow(), SCALE), t1=1.0, stop=None))
    verdicts = {name: kind().certify(evidence).verdict for name, kind in theorem_kinds.items()}
    found = {name for name, verdict in verdicts.items() if verdict != Verdict.ASSUMPTIONS_NOT_MET}
    assert found == {"feature Gram", "discretisation"}, verdicts
    assert {verdicts[name] for name in found} <= {Verdict.HOLDS, Verdict.UNDECIDED}


def test_it_is_saved_and_loaded(tmp_path):
    flow = Scaled(GaussNewtonFlow(), SCALE, "metric")
    gn.simulate(CASE.problem, CASE.model, flow, t1=0.1, stop=None).save(tmp_path / "run")
    assert gn.load(tmp_path / "run").flow == flow


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scaled(GradientFlow(), 0.0), "scale = 0.0; expected a finite number above 0.*Frozen"),
        (lambda: Scaled(GradientFlow(), {"output": -1.0}), r"scale\['output'\] = -1.0"),
        (lambda: Scaled(GradientFlow(), {}), r"scale = \{\}; expected a number, or one for each group"),
        (lambda: Scaled(GradientFlow(), 0.1, "outputs"), "where = 'outputs'; expected 'velocity' or 'metric'"),
        (lambda: Scaled(GradientFlow, 0.1), "flow of Scaled is the class GradientFlow"),
        (lambda: Scaled(Scaled(GradientFlow(), 0.1), 0.2), "scaled already"),
        (lambda: Scaled(WeightDecay(Scaled(GradientFlow(), 0.1), 0.1), 0.2), "scaled already"),
        (lambda: Scaled(ReversibleGaussNewtonFlow(), 0.1, "metric"), "ReversibleGaussNewtonFlow.*where = 'velocity'"),
    ],
)
def test_scales_that_are_none(make, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(gn.ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (Scaled(GradientFlow(), {"hiden": 0.1}), "no weights called 'hiden' that move; did you mean 'hidden'"),
        (Scaled(Frozen(GradientFlow(), "output"), {"hidden": 0.1}), "no weights called 'hidden' that move"),
        (Scaled(GradientFlow(), {"hidden": 0.1, "hidden_bias": 0.2}), "two numbers.*'hidden'.*'hidden_bias'"),
    ],
)
def test_names_that_are_none_are_refused(flow, message):
    with pytest.raises(gn.ModelError, match=message):
        gn.simulate(CASE.problem, CASE.model, flow, t1=1.0)
