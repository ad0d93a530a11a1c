"""Models that a run keeps along its way, and their outputs on new inputs."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import State, equinox_mlp, make_problem, mean_field
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow.simulate import _checkpoint, _integrate
from gnflow.simulate._integrate import Loop

EXACT = {"rtol": 1e-9, "stop": None}
NEW = np.asarray([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0]])


def iterated(model=None, flow=None, **options):
    options = {"step_size": 0.5, "num_steps": 6, "save_every": 4} | options
    problem = make_problem(num_outputs=2 if model is None else 1)
    return gn.iterate(problem, model or mean_field(), flow or gn.flows.GradientFlow(), **options)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_models_along_a_flow_are_those_of_its_closed_form():
    axes = Axes(scales=(1.0, 0.5))
    run = flow_down(axes, t1=3.0, saveat=[1.0, 2.0], saveat_weights=[0.3, 1.0], **EXACT)
    assert run.data.time.values.tolist() == [0, 0.3, 1, 2, 3]
    for time in (0.0, 0.3, 1.0, 3.0):
        weights = axes.weights(time)
        np.testing.assert_allclose(run.model_at(time).w, weights, rtol=1e-6)
        np.testing.assert_allclose(run.predict(NEW, time=time)[:, 0], NEW @ weights, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(run.predict(NEW), run.predict(NEW, time=3.0))
    assert run.predict(NEW).shape == (3, 1)


def test_keeping_weights_changes_no_step():
    plain, keeping = (flow_down(Axes(), t1=3.0, **EXACT, **more) for more in ({}, {"saveat_weights": [1.23]}))
    assert plain.kept_weights == {}
    assert set(keeping.data.time.values) - set(plain.data.time.values) == {1.23}
    assert same(plain.model, keeping.model)
    assert plain.stats["num_accepted_steps"] == keeping.stats["num_accepted_steps"]


def test_of_a_run_that_a_rule_ends_nothing_is_kept_after_its_end():
    run = flow_down(Axes(), saveat_weights=[1.0, 50.0], stop=gn.RelativeLoss(np.exp(-2.0)), rtol=1e-7)
    assert list(run.kept_weights) == [1.0]
    with pytest.raises(
        gn.ConfigError, match=r"no model at flow time 50: the run ended at 2\. Those kept are at 0, 1, 2;"
    ):
        run.model_at(50.0)


def test_a_time_that_was_not_kept_is_refused_and_rounding_is_not():
    run = flow_down(Axes(), t1=3.0, saveat_weights=[0.1 + 0.2], **EXACT)
    assert same(run.model_at(0.3), run.model_at(0.1 + 0.2))
    with pytest.raises(gn.ConfigError, match=r"no model at flow time 0\.31: the weights there were not kept\. Those"):
        run.predict(NEW, time=0.31)
    for time in (float("nan"), float("inf")):
        with pytest.raises(gn.ConfigError, match="time = "):
            run.model_at(time)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 4.0], r"saveat_weights ends at 4.0, after t1 = 3.0"),
        ([2.0, 1.0], "saveat_weights = .*expected ascending"),
        ([-1.0], "saveat_weights = .*at least 0"),
        ("all", "saveat_weights = 'all'"),
    ],
)
def test_times_that_the_run_does_not_have_are_refused(given, message):
    with pytest.raises(gn.ConfigError, match=message):
        flow_down(t1=3.0, saveat_weights=given)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_steps": None, "num_epochs": 3, "batch_size": 2, "key": 0},
        {"step_size": None, "optimiser": gn.optimisers.Adam(1e-2)},
    ],
    ids=["euler", "batches", "adam"],
)
def test_models_along_a_method_are_those_of_shorter_runs(options):
    """And the saved steps are those of `save_every` and these."""
    run = iterated(saveat_weights=[0, 3, 5, 6], metrics=(State(),), **options)
    assert run.data.step.values.tolist() == [0, 3, 4, 5, 6]
    assert list(run.kept_weights) == [3, 5]
    for step in (0, 3, 5, 6):
        model = run.model_at(step)
        weights = jax.flatten_util.ravel_pytree(gn.models.trainable_weights(model))[0]
        np.testing.assert_array_equal(weights, run.data.weights.sel(step=step))
    shorter = iterated(**{**options, "num_steps": 5, "num_epochs": None})
    for one, other in zip(jax.tree.leaves(run.model_at(5)), jax.tree.leaves(shorter.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    with pytest.raises(gn.ConfigError, match=r"no model at step 4: the weights there .* at 0, 3, 5, 6;"):
        run.model_at(4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([7], "ends at step 7, after the last one, 6"),
        ([3, 3], "expected ascending steps"),
        ([1.5], r"saveat_weights\[0\] = 1.5; expected an integer"),
        ([], "expected ascending steps, such as"),
        (3, "expected ascending steps, such as"),
    ],
)
def test_steps_that_a_method_does_not_take_are_refused(given, message):
    with pytest.raises(gn.ConfigError, match=message):
        iterated(saveat_weights=given)


def test_steps_after_the_last_epoch_are_refused():
    with pytest.raises(gn.ConfigError, match="after the last one, 4"):
        iterated(saveat_weights=[5], num_steps=None, num_epochs=2, batch_size=2, key=0)


def test_only_what_is_trained_is_kept():
    flow = gn.flows.Frozen(gn.flows.GradientFlow(), "output")
    run = iterated(flow=flow, saveat_weights=[3])
    assert [leaf.shape for leaf in jax.tree.leaves(run.kept_weights[3])] == [(8, 2)]
    np.testing.assert_array_equal(run.model_at(3).hidden_weight, run.initial_model.hidden_weight)


def test_what_was_kept_comes_back_from_a_folder(tmp_path):
    for name, model in {"own": None, "users": equinox_mlp()}.items():
        run = iterated(model, saveat_weights=[2, 3])
        run.save(tmp_path / name)
        back = gn.load(tmp_path / name, model=None if name == "own" else equinox_mlp(seed=1))
        assert list(back.kept_weights) == [2, 3]
        assert same(back.kept_weights, run.kept_weights)
        np.testing.assert_array_equal(back.predict(NEW, time=3), run.predict(NEW, time=3))
        again = tmp_path / f"{name} again"
        back.save(again)
        assert same(gn.load(again, model=None if name == "own" else equinox_mlp()).kept_weights, run.kept_weights)


def test_a_folder_without_kept_weights_is_as_before(tmp_path):
    iterated().save(tmp_path / "run")
    assert "keeps_weights" not in json.loads((tmp_path / "run" / "run.json").read_text())
    with np.load(tmp_path / "run" / "arrays.npz") as arrays:
        assert not [name for name in arrays if name.startswith("kept")]
    assert gn.load(tmp_path / "run").kept_weights == {}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kept_times", lambda times: times[::-1]),
        ("kept_times", lambda times: times * np.nan),
        ("kept_times", lambda times: times[:1]),
        ("kept_weights.0", lambda weights: weights[..., :-1]),
        ("kept_weights.0", lambda weights: weights.astype(np.float32)),
        ("kept_weights.1", lambda weights: weights * np.inf),
        ("kept_weights.1", None),
    ],
)
def test_kept_weights_that_are_damaged_are_refused(name, change, tmp_path):
    iterated(saveat_weights=[2, 3]).save(tmp_path / "run")
    with np.load(tmp_path / "run" / "arrays.npz") as stored:
        arrays = dict(stored)
    changed = arrays.pop(name)
    np.savez(tmp_path / "run" / "arrays.npz", **arrays, **({} if change is None else {name: change(changed)}))
    with pytest.raises(gn.RunFolderError, match="kept weights"):
        gn.load(tmp_path / "run")


def test_an_interrupted_run_that_goes_on_has_all_of_them(tmp_path, monkeypatch):
    options = {"t1": 3.0, "saveat_weights": [0.1, 0.5, 2.5], "solver": "tsit5", **EXACT}
    whole = flow_down(Axes(), **options)
    monkeypatch.setattr(_integrate, "_FIRST_STEPS", 1)
    monkeypatch.setattr(_integrate, "_MOST_STEPS", 1)
    taken, advance = [], Loop.advance

    def few(loop):
        taken.append(loop)
        if len(taken) == 12:
            raise KeyboardInterrupt
        advance(loop)

    monkeypatch.setattr(Loop, "advance", few)
    with pytest.raises(gn.RunInterrupted) as stopped:
        flow_down(Axes(), checkpoint=tmp_path / "kept", **options)
    before = stopped.value.trajectory
    assert 0 < len(before.kept_weights) < 3
    resumed = flow_down(Axes(), checkpoint=tmp_path / "kept", **options)
    assert list(resumed.kept_weights) == [0.1, 0.5, 2.5]
    assert same(resumed.kept_weights, whole.kept_weights)
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    with pytest.raises(gn.RunFolderError, match="another settings"):
        flow_down(Axes(), checkpoint=tmp_path / "kept", **{**options, "saveat_weights": [0.1]})


def test_many_inputs_go_through_in_batches_and_give_the_same():
    run = iterated()
    many = np.random.default_rng(0).normal(size=(1500, 2))
    np.testing.assert_allclose(run.predict(many), jax.vmap(run.model)(jnp.asarray(many)), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(run.predict([[1, 2]]), run.predict(np.asarray([[1.0, 2.0]])))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3)), r"x has shape \(2, 3\), but the training inputs have shape \(4, 2\): give \(n, 2\)"),
        (np.ones(2), "x has shape"),
        ([[1.0, np.nan]], r"x\[0, 1\] = nan"),
        (np.ones((0, 2)), "no samples"),
        ("two", "x has dtype"),
    ],
)
def test_inputs_that_are_none_are_refused(x, message):
    with pytest.raises(gn.DataError, match=message):
        iterated().predict(x)


def test_predictions_are_in_the_units_of_the_data():
    rng = np.random.default_rng(0)
    x, new = rng.normal(30.0, 10.0, size=(6, 2)), rng.normal(30.0, 10.0, size=(5, 2))
    y = 150.0 + 4.0 * x[:, 0] - x[:, 1]
    problem = gn.Problem(x, y, standardise=True)
    model = Linear.at([0.0, 0.0])
    # A linear function of the standardised inputs, without an offset, is that of the data: all means belong to each other.
    run = gn.simulate(problem, model, gn.flows.GradientFlow(1.0), stop=gn.RelativeLoss(1e-20), saveat_weights=[1e-3])
    np.testing.assert_allclose(run.predict(new)[:, 0], 150.0 + 4.0 * new[:, 0] - new[:, 1], rtol=1e-8)
    np.testing.assert_allclose(run.predict(new, time=0.0), np.full((5, 1), y.mean()), rtol=1e-12)
    outputs = jax.vmap(run.model_at(1e-3))(problem.prepare_inputs(new))[:, None]
    np.testing.assert_allclose(run.predict(new, time=1e-3), problem.restore_outputs(outputs), rtol=1e-12)


def test_of_residuals_the_models_values_are_predicted():
    class Line(eqx.Module):
        slope: jax.Array

        def __call__(self, x):
            return self.slope * x

    points = np.linspace(0.0, 1.0, 4)[:, None]
    term = gn.ResidualTerm("fit", lambda model, x: model(x) - 3.0 * x, points)
    run = gn.simulate(
        gn.ResidualProblem([term]), Line(jnp.zeros(1)), gn.flows.GaussNewtonFlow(), stop=gn.RelativeLoss(1e-16)
    )
    np.testing.assert_allclose(run.predict([[2.0], [-1.0]]), [[6.0], [-3.0]], rtol=1e-7)


def test_outputs_of_shape_none_are_a_column():
    run = flow_down(Axes(), Linear.at([0.0, 0.0]), t1=1.0, stop=None)
    assert run.predict(NEW).shape == (3, 1)


def test_classes_and_probabilities_of_outputs():
    outputs = jnp.asarray([[1.0, 3.0, 2.0], [5.0, -1.0, 800.0]])
    softmax, logistic = gn.losses.SoftmaxCrossEntropy(), gn.losses.LogisticLoss()
    exponentials = np.exp(np.asarray(outputs) - np.max(outputs, axis=1, keepdims=True))
    np.testing.assert_allclose(
        softmax.probabilities(outputs), exponentials / exponentials.sum(1, keepdims=True), atol=1e-15
    )
    assert softmax.classes(outputs).tolist() == [1, 2]
    np.testing.assert_allclose(logistic.probabilities(outputs), 1 / (1 + np.exp(-np.asarray(outputs))))
    assert logistic.classes(outputs).tolist() == [[1, 1, 1], [1, 0, 1]]
    for read in (gn.losses.SquaredLoss().classes, gn.losses.SquaredLoss().probabilities):
        with pytest.raises(gn.DataError, match="SquaredLoss has no classes"):
            read(outputs)


def test_a_trajectory_made_without_them_keeps_none():
    """As scripts make them of the fields that there were before."""
    run = iterated()
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run) if field.name != "kept_weights"}
    assert gn.Trajectory(**fields).kept_weights == {}
