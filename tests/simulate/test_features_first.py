"""Features first, the output layer last: the stages, the rules that choose, what is kept, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gnflow as gn
from gnflow.geometry import Readout
from gnflow.simulate.features_first import feature_choice_kinds
from gnflow.theory import Verdict

KEY = jax.random.key(0)


@functools.cache
def parts():
    problem = gn.problems.teacher_student(20, 30, input_dim=3, teacher_width=2, key=KEY)
    return problem, gn.models.MeanFieldNetwork(input_dim=3, width=30, init_scale=0.05, key=KEY)


@functools.cache
def trained(choose, cycles=1):
    return gn.train_features_first(*parts(), choose=choose, cycles=cycles)


SHORT = gn.RelativeLoss(0.9)


def test_it_is_the_flow_to_the_rule_and_then_the_solution():
    problem, model = parts()
    run = trained(SHORT)
    plain = gn.simulate(problem, model, gn.flows.GaussNewtonFlow(), stop=SHORT)
    # Not to the last bit: the rule where the stage ends at the latest makes another program of it.
    np.testing.assert_allclose(run.data.time[:-1], plain.data.time, rtol=1e-12)
    np.testing.assert_allclose(run.data.train_loss[:-1], plain.data.train_loss, rtol=1e-12)
    np.testing.assert_allclose(run.model.hidden_weight, plain.model.hidden_weight, rtol=1e-10)
    system = run.system
    weights = system.weights(plain.model)
    solved = Readout.of(system, weights, system.named(weights, "output")).solve(1e-10)
    np.testing.assert_allclose(run.model.output_weight, solved.output_weight, rtol=1e-4)
    np.testing.assert_allclose(run.data.train_loss[-1], system.train_loss(system.weights(run.model)), rtol=1e-8)
    np.testing.assert_allclose(run.data.test_loss[-1], system.test_loss(system.weights(run.model)), rtol=1e-8)
    assert float(run.data.train_loss[-1]) < 0.1 * float(run.data.train_loss[-2])
    np.testing.assert_array_equal(run.data.readout_solved, [0.0] * (run.data.sizes["time"] - 1) + [1.0])
    assert run.result.code == gn.ResultCode.STOP_RULE_MET
    assert run.result.message.startswith("the output layer was solved; before that the training loss reached 0.9")


def test_the_state_before_the_solve_is_kept_and_all_of_it_is_saved(tmp_path):
    run = trained(SHORT)
    before = run.model_at(run.stats["feature_time"])
    np.testing.assert_array_equal(before.hidden_weight, run.model.hidden_weight)
    assert not np.allclose(before.output_weight, run.model.output_weight)
    run.save(tmp_path / "run")
    again = gn.load(tmp_path / "run")
    assert again.settings["choose"] == SHORT
    np.testing.assert_array_equal(again.data.train_loss, run.data.train_loss)
    np.testing.assert_array_equal(again.model.output_weight, run.model.output_weight)
    np.testing.assert_array_equal(again.model_at(run.stats["feature_time"]).output_weight, before.output_weight)


def test_cycles_begin_at_the_solved_state():
    run = trained(SHORT, cycles=2)
    once = trained(SHORT)
    count = once.data.sizes["time"]
    np.testing.assert_array_equal(run.data.train_loss[:count], once.data.train_loss)
    second = gn.simulate(parts()[0], once.model, gn.flows.GaussNewtonFlow(), stop=SHORT)
    np.testing.assert_allclose(run.data.train_loss[count - 1 : -1], second.data.train_loss, rtol=1e-10)
    assert np.all(np.diff(run.data.time) > 0)
    assert np.flatnonzero(run.data.readout_solved.to_numpy()).tolist() == [count - 1, run.data.sizes["time"] - 1]


@pytest.mark.slow
def test_hold_out_does_not_see_what_it_may_not_see():
    """Neither the test data nor, when it learns features to choose by, the held-out targets."""
    problem, model = parts()
    rule = gn.HoldOut(0.25, seed=3)
    inner = rule.split(problem)
    assert (inner.num_train, len(inner.x_validation), inner.x_test) == (15, 5, None)
    both = np.concatenate([inner.y_train, inner.y_validation])
    np.testing.assert_array_equal(np.sort(both, axis=None), np.sort(problem.y_train, axis=None))
    assert not np.array_equal(inner.y_train, gn.HoldOut(0.25, seed=4).split(problem).y_train)
    other = gn.Problem(problem.x_train, problem.y_train, problem.x_test, problem.y_test + 1.0)
    found = trained(rule)
    again = gn.train_features_first(other, model, choose=rule)
    np.testing.assert_array_equal(found.model.output_weight, again.model.output_weight)


def test_hold_out_takes_the_least_held_out_loss():
    """By hand: the states of the smaller run, each with its output layer solved by NumPy."""
    problem, model = parts()
    rule = gn.HoldOut(0.25, seed=3, cutoffs=(1e-8, 1e-2))
    inner, run = rule.split(problem), gn.train_features_first(problem, model, choose=rule)
    plain = gn.simulate(inner, model, gn.flows.GaussNewtonFlow(), stop=gn.RelativeLoss(0.1))
    times = plain.data.time.to_numpy()
    kept = gn.simulate(inner, model, gn.flows.GaussNewtonFlow(), stop=gn.RelativeLoss(0.1), saveat_weights=times[1:-1])
    losses = np.empty((len(times), 2))
    for row, time in enumerate(times):
        state = kept.model_at(min(time, float(kept.data.time[-1])))
        features = [jax.vmap(state.hidden_features)(x) for x in (inner.x_train, inner.x_validation)]
        for column, cutoff in enumerate((1e-8, 1e-2)):
            solution = np.linalg.lstsq(features[0], inner.y_train, rcond=np.sqrt(cutoff))[0]
            losses[row, column] = np.mean((features[1] @ solution - inner.y_validation) ** 2) / 2
    row, column = np.unravel_index(losses.argmin(), losses.shape)
    np.testing.assert_allclose(run.stats["held_out_loss"], losses.min(), rtol=1e-3)
    assert run.stats["chosen_cutoff"] == (1e-8, 1e-2)[column]
    share = float(plain.data.train_loss[row] / plain.data.train_loss[0])
    np.testing.assert_allclose(run.stats["feature_relative_loss"], share, rtol=1e-4)
    assert run.stats["num_steps_to_choose"] == plain.stats["num_steps"]
    assert run.stats["num_steps"] > run.stats["num_steps_to_choose"]


@pytest.mark.parametrize(
    "choose", [gn.FeatureRank(), gn.AlignmentPeak(), gn.AlignmentPeak(velocity=True), gn.LeaveOneOut()], ids=repr
)
def test_rules_that_score_states_run_to_the_time_that_they_prefer(choose):
    problem, model = parts()
    run = trained(choose)
    plain = gn.simulate(problem, model, gn.flows.GaussNewtonFlow(), stop=gn.RelativeLoss(0.1))
    assert np.isclose(plain.data.time, run.stats.get("feature_time", 0.0), rtol=1e-12).any()
    assert run.stats["num_steps_to_choose"] == plain.stats["num_steps"]


def test_what_the_rules_prefer():
    times = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0])
    assert gn.FeatureRank().prefer(times, np.array([9.0, 5.0, 6.0, 4.0, 7.0, 8.0])) == 3
    assert gn.FeatureRank().prefer(times, np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])) == 5
    assert gn.AlignmentPeak().prefer(times, np.array([0.1, 0.2, 0.5, 0.3, 0.2, 0.1])) == 2
    assert gn.AlignmentPeak(velocity=True).prefer(times, np.array([0.0, 0.1, 0.2, 0.6, 0.7, 0.7])) in (2, 3)
    assert gn.LeaveOneOut().prefer(times, np.array([5.0, 4.0, 3.0, 2.0, 1.0, 2.0])) == 4


def test_the_leave_one_out_error_is_that_of_leaving_one_out():
    problem, model = parts()
    system = gn.System(problem, model)
    weights = system.weights(model)
    metric, ridge = gn.LeaveOneOut().metric("output", 1e-3), 1e-3
    found = metric.of_readout(Readout.of(system, weights, system.named(weights, "output")), system)["leave_one_out"]
    features = np.asarray(jax.vmap(model.hidden_features)(problem.x_train)) * model.output_factor
    targets = np.asarray(problem.y_train)[:, 0]
    shift = ridge * np.linalg.eigvalsh(features @ features.T)[-1]
    errors = []
    for n in range(len(targets)):
        rest = np.delete(np.arange(len(targets)), n)
        gram = features[rest] @ features[rest].T + shift * np.eye(len(rest))
        errors.append(targets[n] - features[n] @ features[rest].T @ np.linalg.solve(gram, targets[rest]))
    np.testing.assert_allclose(found, np.mean(np.square(errors)) / 2, rtol=1e-6)


def test_no_theorem_is_about_it():
    for certificate in gn.theory.verify(trained(SHORT)):
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        assert "the weights move by the flow alone" in certificate.reason


@pytest.mark.slow
def test_a_stage_that_fails_is_told():
    problem, model = parts()
    run = gn.train_features_first(problem, model, choose=SHORT, max_steps=2, throw=False)
    assert run.result.code == gn.ResultCode.MAX_STEPS_REACHED
    assert not run.data.readout_solved.any()
    with pytest.raises(gn.SimulationError):
        gn.train_features_first(problem, model, choose=SHORT, max_steps=2)
    choosing = gn.train_features_first(problem, model, choose=gn.HoldOut(0.25), max_steps=2, throw=False)
    assert choosing.result.code == gn.ResultCode.MAX_STEPS_REACHED
    assert choosing.result.message.startswith("while choosing: max_steps = 2")
    assert choosing.data.sizes["time"] == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"choose": "hold_out"}, gn.ConfigError, r"choose = 'hold_out'.*gnflow.HoldOut\(\)"),
        ({"cycles": 0}, gn.ConfigError, "cycles = 0"),
        ({"readout": 1}, gn.ConfigError, "readout = 1; expected the name"),
        ({"cutoff": 1.0}, gn.ConfigError, "cutoff = 1.0"),
        ({"stop": None}, gn.ConfigError, "stop is empty"),
        ({"readout": "hidden"}, gn.ModelError, "not linear|nothing is left"),
        ({"flow": gn.flows.Frozen(gn.flows.GradientFlow(), "output")}, gn.ModelError, "nothing is left"),
        ({"choose": gn.HoldOut(0.99)}, gn.DataError, "holds out 20 of 20 training samples"),
        ({"metrics": (gn.metrics.PathLength(),)}, gn.ConfigError, "PathLength is an integral along a flow"),
    ],
)
def test_bad_input_is_refused(options, error, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    problem, model = parts()
    if "readout" in options:
        drawn = jnp.ones_like(model.output_weight)
        model = gn.models.MeanFieldNetwork.from_arrays(model.hidden_weight, model.hidden_bias, drawn)
    with pytest.raises(error, match=message):
        gn.train_features_first(problem, model, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gn.HoldOut(0.0), "HoldOut: fraction = 0.0"),
        (lambda: gn.HoldOut(seed=-1), "HoldOut: seed = -1"),
        (lambda: gn.HoldOut(seed=2**64), "HoldOut: seed = "),
        (lambda: gn.HoldOut(cutoffs=()), r"cutoffs = \(\)"),
        (lambda: gn.HoldOut(cutoffs=(0.1, 1.0)), r"cutoffs\[1\] = 1.0"),
        (lambda: gn.AlignmentPeak(velocity=2), "velocity = 2"),
    ],
)
def test_rules_that_are_none(make, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(gn.ConfigError, match=message):
        make()


def test_other_losses_and_residuals_are_refused():
    model = gn.models.MeanFieldNetwork(input_dim=3, width=5, output_dim=2, key=KEY)
    x = np.random.default_rng(0).normal(size=(6, 3))
    labels = gn.Problem(x, np.eye(2)[[0, 1, 0, 1, 0, 1]], loss=gn.losses.SoftmaxCrossEntropy())
    with pytest.raises(gn.DataError, match="the loss is SoftmaxCrossEntropy; state a classification as a regression"):
        gn.train_features_first(labels, model)
    equation = gn.problems.poisson(points_per_axis=3)
    with pytest.raises(gn.DataError, match="a ResidualProblem has none"):
        gn.train_features_first(equation, gn.models.MLP(2, 4, 1, 1, "tanh", key=KEY))


def test_names_of_the_rules():
    assert set(feature_choice_kinds) >= {"hold_out", "feature_rank", "alignment_peak", "leave_one_out", "relative_loss"}
