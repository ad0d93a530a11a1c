"""Steps with batches and with optimisers: which samples, which steps, what is recorded, how runs end.

With the unit vectors as inputs a step moves the weights of its batch's samples alone: the batches can be read off a run.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from facts.recording import mean_field
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow import RelativeLoss, ResultCode
from gnflow.flows import AbstractFlow, GaussNewtonFlow, GradientFlow
from gnflow.geometry import SolveDiagnostics
from gnflow.geometry.damping import Constant
from gnflow.metrics import AbstractMetric, DirectionDiagnostics, PathLength, Variable
from gnflow.optimisers import SGD, Adam, Optax
from gnflow.problems import AbstractAugmentation, CropAndFlip

NUM_SAMPLES, BATCH, EPOCHS = 7, 3, 6
TARGETS = np.arange(1.0, NUM_SAMPLES + 1)
DESCENT = GradientFlow(1.0)


class Weights(AbstractMetric):
    """All trained weights."""

    def variables(self, system):
        return (Variable("weights", "all trained weights", "1", "test", ("weight",)),)

    def evaluate(self, snapshot, memory):
        return {"weights": ravel_pytree(snapshot.weights)[0]}


class Dot(eqx.Module):
    """f(x) = w . x"""

    w: jax.Array

    def __call__(self, x):
        return jnp.vdot(self.w, x)


class Telling(AbstractFlow):
    """Gradient descent that reports the time as its damping and the number of its samples as its rank.

    No solve of it succeeds, and from the time `broken` on it has no residual; it refuses to be asked for all samples.
    """

    broken: float = 1e3
    refuses: bool = eqx.field(default=True, static=True)

    def velocity_and_diagnostics(self, time, weights, system):
        samples = system.problem.num_train
        time = jnp.asarray(time, dtype=float)
        if self.refuses and samples == NUM_SAMPLES:
            # Where it is computed, not where it is traced: the shapes of a velocity are looked at before a run.
            time = eqx.error_if(time, jnp.isfinite(time), "all samples")
        residual = jnp.where(time < self.broken, 0.5, jnp.nan)
        solve = SolveDiagnostics(time, jnp.asarray(samples), residual, jnp.asarray(False))
        return DESCENT.velocity(time, weights, system), solve


def unit_vectors(flow=DESCENT, **options):
    """Steps of gradient descent that show their batches."""
    problem = gn.Problem(np.eye(NUM_SAMPLES), TARGETS)
    metrics = (Weights(), PathLength())
    settings = {
        "step_size": 0.25,
        "num_epochs": EPOCHS,
        "batch_size": BATCH,
        "key": 5,
        "save_every": 1,
        "metrics": metrics,
    }
    return gn.iterate(problem, Dot(jnp.zeros(NUM_SAMPLES)), flow, **(settings | options))


@functools.cache
def batches(key=5):
    """The samples of each step, (steps, BATCH)."""
    moved = np.diff(unit_vectors(key=key).data.weights, axis=0) != 0
    assert np.all(moved.sum(axis=1) == BATCH)
    return np.array([np.flatnonzero(row) for row in moved])


@functools.cache
def data():
    """NUM_SAMPLES random samples with two outputs."""
    keys = jr.split(jr.key(3))
    return gn.Problem(jr.normal(keys[0], (NUM_SAMPLES, 2)), jr.normal(keys[1], (NUM_SAMPLES, 2)))


def test_a_batch_holds_each_sample_at_most_once_an_epoch():
    epochs = batches().reshape(EPOCHS, -1)
    assert epochs.shape == (EPOCHS, 2 * BATCH)
    assert all(len(set(epoch)) == 2 * BATCH for epoch in epochs)
    left_out = [({*range(NUM_SAMPLES)} - {*epoch}).pop() for epoch in epochs]
    assert len(set(left_out)) > 1
    assert len({tuple(batch) for batch in batches()}) > 2 * EPOCHS / 2


def test_the_key_decides_the_batches():
    first, same, raw, other = (unit_vectors(key=key).data for key in (5, jr.key(5), jr.PRNGKey(5), 6))
    for again in (same, raw):
        for name in first.data_vars:
            np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(batches(5), batches(6))
    assert float(first.batch_loss[0]) != float(other.batch_loss[0])


def test_losses_of_the_batches_against_numpy():
    recorded = unit_vectors().data
    weights = recorded.weights.values
    errors = (weights - TARGETS) ** 2 / 2
    now, following = batches()[:-1], batches()[1:]
    expected = {
        "batch_loss": [errors[k, batch].mean() for k, batch in enumerate(now)],
        "batch_loss_after": [errors[k + 1, batch].mean() for k, batch in enumerate(now)],
        "next_batch_loss": [errors[k, batch].mean() for k, batch in enumerate(following)],
        "next_batch_loss_after": [errors[k + 1, batch].mean() for k, batch in enumerate(following)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(recorded[name][:-1], values, rtol=1e-13, err_msg=name)
        assert recorded[name].dims == ("batch",)
        assert set(recorded[name].attrs) == {"long_name", "units", "reference"}
    # A step of descent on the batch alone: each of its residuals shrinks by step_size/B.
    np.testing.assert_allclose(
        np.diff(weights, axis=0)[0, now[0]], 0.25 / BATCH * (TARGETS - weights[0])[now[0]], rtol=1e-13
    )
    assert recorded.batch.values.tolist() == list(range(1, 2 * EPOCHS + 1))
    assert recorded.epoch.values.tolist() == np.repeat(range(1, EPOCHS + 1), 2).tolist()


def test_a_short_last_batch_holds_what_is_left():
    """Every epoch has all samples once, in the order of the epoch without the last batch."""
    run = unit_vectors(keep_last=True).data
    assert run.sizes["batch"] == 3 * EPOCHS
    moved = np.diff(run.weights, axis=0) != 0
    assert moved.sum(axis=1).tolist() == [BATCH, BATCH, 1] * EPOCHS
    epochs = moved.reshape(EPOCHS, 3, -1)
    assert np.all(epochs.sum(axis=1) == 1)
    known = batches().reshape(EPOCHS, 2, BATCH)
    for epoch in range(EPOCHS):
        for place in (0, 1):
            assert np.flatnonzero(epochs[epoch, place]).tolist() == sorted(known[epoch, place])
    errors = (run.weights.values - TARGETS) ** 2 / 2
    expected = [[errors[k + more][of].mean() for k, of in enumerate(moved)] for more in (0, 1)]
    np.testing.assert_allclose(run.batch_loss, expected[0], rtol=1e-13)
    np.testing.assert_allclose(run.batch_loss_after, expected[1], rtol=1e-13)
    following = [errors[k + 1][of].mean() for k, of in enumerate(moved[1:])]
    np.testing.assert_allclose(run.next_batch_loss_after[:-1], following, rtol=1e-13)
    assert run.epoch.values.tolist() == np.repeat(range(1, EPOCHS + 1), 3).tolist()
    # The step of the one sample is that of its own mean.
    step = run.weights.values[3] - run.weights.values[2]
    np.testing.assert_allclose(step[moved[2]], 0.25 * (TARGETS - run.weights.values[2])[moved[2]], rtol=1e-13)


def test_a_short_last_batch_has_its_own_direction():
    flow = GaussNewtonFlow(damping=Constant(0.1))
    options = {"step_size": 0.25, "metrics": (Weights(),)}
    run = gn.iterate(
        data(), mean_field(), flow, num_epochs=1, batch_size=5, key=5, keep_last=True, save_every=1, **options
    )
    order = np.asarray(jr.permutation(jr.fold_in(jr.key(5), 0), NUM_SAMPLES))
    model = mean_field()
    for place, batch in enumerate((order[:5], order[5:])):
        problem = gn.Problem(data().x_train[batch], data().y_train[batch])
        model = gn.iterate(problem, model, flow, num_steps=1, **options).model
        np.testing.assert_allclose(run.data.weights[place + 1], ravel_pytree(model)[0], rtol=0, atol=1e-13)
    assert run.data.batch_rank.values.tolist() == [10, 4]


def test_an_order_of_ones_own_takes_the_place_of_the_key():
    orders = [[6, 5, 4, 3, 2, 1, 0], [0, 2, 4, 6, 1, 3, 5]]
    for given in (orders, np.asarray(orders), jnp.asarray(orders)):
        run = unit_vectors(key=None, batch_order=given, num_epochs=3, keep_last=True)
        moved = [np.flatnonzero(row).tolist() for row in np.diff(run.data.weights, axis=0) != 0]
        first, second = [[4, 5, 6], [1, 2, 3], [0]], [[0, 2, 4], [1, 3, 6], [5]]
        assert moved == first + second + first
    alone = unit_vectors(key=None, batch_order=orders[0], num_epochs=2)
    assert [np.flatnonzero(row).tolist() for row in np.diff(alone.data.weights, axis=0) != 0] == first[:2] * 2


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_a_schedule_scales_the_steps(batch_size):
    """Of a step size and of an optimiser alike; flow time is the sum of the steps."""
    options = {"batch_size": batch_size, "key": None if batch_size is None else 5, "num_epochs": 4}
    schedule = optax.cosine_decay_schedule(1.0, 6, alpha=0.1)
    run = unit_vectors(schedule=schedule, **options)
    steps = run.data.sizes["step"] - 1
    factors = np.array([float(schedule(step)) for step in range(steps)])
    weights = run.data.weights.values
    for step in range(steps):
        of = np.arange(NUM_SAMPLES) if batch_size is None else batches()[step]
        residual = (TARGETS - weights[step])[of] / len(of)
        np.testing.assert_allclose((weights[step + 1] - weights[step])[of], 0.25 * factors[step] * residual, rtol=1e-12)
    np.testing.assert_allclose(run.data.flow_time, 0.25 * np.array([0, *np.cumsum(factors)]), rtol=1e-12)
    sgd = unit_vectors(step_size=None, optimiser=SGD(0.25), schedule=gn.optimisers.CosineDecay(6, 0.1), **options)
    np.testing.assert_allclose(sgd.data.weights, weights, rtol=1e-12)
    np.testing.assert_allclose(sgd.data.path_length, run.data.path_length, rtol=1e-12)
    np.testing.assert_array_equal(sgd.data.flow_time, sgd.data.step)
    told = unit_vectors(Telling(refuses=False), schedule=schedule, metrics=(), **options).data
    name = "damping" if batch_size is None else "batch_damping"
    np.testing.assert_allclose(told[name][:steps], run.data.flow_time[:steps], rtol=1e-12)


def test_schedules_are_those_of_optax():
    steps = jnp.arange(9)
    decay = gn.optimisers.ExponentialDecay(0.5, every=4)
    np.testing.assert_allclose(jax.vmap(decay)(steps), [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25])
    smooth = gn.optimisers.ExponentialDecay(0.5, every=4, staircase=False)
    np.testing.assert_allclose(jax.vmap(smooth)(steps), 0.5 ** (np.arange(9) / 4), rtol=1e-14)
    cosine = gn.optimisers.CosineDecay(8, end=0.5)
    np.testing.assert_allclose(jax.vmap(cosine)(steps), 0.5 + 0.25 * (1 + np.cos(np.pi * np.arange(9) / 8)), rtol=1e-14)


class Negative(AbstractAugmentation):
    """Turns inputs round at every other step, by chance."""

    def __call__(self, key, x):
        return jnp.where(jr.bernoulli(key), -x, x) + 1.0


def test_inputs_are_changed_before_they_are_standardised():
    """One input a sample and the weight 1: the loss of a batch shows its inputs."""
    x = np.arange(1.0, NUM_SAMPLES + 1)[:, None]
    problem = gn.Problem(x, np.zeros(NUM_SAMPLES), standardise="inputs")
    options = {
        "step_size": 1e-300,
        "num_epochs": 8,
        "batch_order": [*range(NUM_SAMPLES)],
        "key": 3,
        "batch_size": BATCH,
    }
    run = gn.iterate(problem, Dot(jnp.ones(1)), DESCENT, augment=Negative(), **options).data
    batches = np.tile(x[: 2 * BATCH].reshape(2, BATCH), (8, 1))
    scale = problem.input_standardisation
    mean, scale = (np.asarray(part) for part in (scale.mean, scale.scale))
    losses = [np.mean(((sign * batches + 1 - mean) / scale) ** 2, axis=1) / 2 for sign in (1, -1)]
    seen = np.argmin(np.abs(np.stack(losses) - run.batch_loss.values), axis=0)
    np.testing.assert_allclose(np.choose(seen, losses), run.batch_loss, rtol=1e-12)
    assert {*seen} == {0, 1}
    np.testing.assert_allclose(run.next_batch_loss[:-1], run.batch_loss[1:], rtol=1e-12)
    np.testing.assert_allclose(run.train_loss, np.mean(np.asarray(problem.x_train) ** 2) / 2, rtol=1e-12)


def test_an_epoch_is_saved_where_nothing_is_said():
    recorded = unit_vectors(save_every=None).data
    assert recorded.step.values.tolist() == list(range(0, 2 * EPOCHS + 1, 2))
    assert recorded.sizes["batch"] == 2 * EPOCHS
    every = unit_vectors().data
    np.testing.assert_array_equal(recorded.weights[-1], every.weights[-1])
    np.testing.assert_array_equal(recorded.next_batch_loss, every.next_batch_loss)
    np.testing.assert_allclose(recorded.train_loss, every.train_loss[::2], rtol=1e-15)


def test_steps_are_those_of_the_batch_as_a_problem():
    flow = GaussNewtonFlow(damping=Constant(0.1))
    options = {"step_size": 0.25, "metrics": (Weights(),)}
    run = gn.iterate(data(), mean_field(), flow, num_steps=5, batch_size=BATCH, key=5, save_every=2, **options)
    model, one_by_one = mean_field(), []
    for batch in batches()[:5]:
        problem = gn.Problem(data().x_train[batch], data().y_train[batch])
        step = gn.iterate(problem, model, flow, num_steps=1, **options)
        one_by_one.append(step.data)
        model = step.model
    assert run.data.step.values.tolist() == [0, 2, 4, 5]
    for row, step in ((1, 2), (2, 4), (3, 5)):
        np.testing.assert_allclose(run.data.weights[row], one_by_one[step - 1].weights[1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.data.batch_loss, [step.train_loss[0] for step in one_by_one], rtol=1e-12)
    np.testing.assert_allclose(run.data.batch_loss_after, [step.train_loss[1] for step in one_by_one], rtol=1e-12)
    assert run.data.batch_rank.values.tolist() == [step["rank"].values[0] for step in one_by_one]
    assert run.data.batch_damping.values.tolist() == [0.1] * 5
    assert np.all(run.data.batch_relative_residual < 1e-12)
    assert run.stats["final_rank"] == run.data.batch_rank[-1]


def test_adam_is_adam_on_the_gradient_of_the_batch():
    weights, unravel = ravel_pytree(mean_field())
    adam = optax.adam(0.05, b1=0.8)

    @jax.jit
    def step(weights, state, x, y):
        def loss(weights):
            return jnp.mean(jnp.sum((jax.vmap(unravel(weights))(x) - y) ** 2, axis=1)) / 2

        updates, state = adam.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    state = adam.init(weights)
    for batch in batches()[:5]:
        weights, state = step(weights, state, data().x_train[batch], data().y_train[batch])
    options = {"num_steps": 5, "batch_size": BATCH, "key": 5, "metrics": (Weights(),)}
    run = gn.iterate(data(), mean_field(), DESCENT, optimiser=Adam(0.05, beta1=0.8), **options)
    np.testing.assert_allclose(run.data.weights[-1], weights, rtol=0, atol=1e-13)
    assert (run.stats["solver"], run.stats["batches_per_epoch"]) == ("adam", 2)


def test_sgd_takes_the_steps_of_a_step_size():
    steps, sgd = (unit_vectors(**step, save_every=5).data for step in ({}, {"step_size": None, "optimiser": SGD(0.25)}))
    for name in steps.data_vars:
        np.testing.assert_allclose(sgd[name], steps[name], rtol=1e-13, err_msg=name)
    np.testing.assert_array_equal(steps.flow_time, 0.25 * steps.step)
    np.testing.assert_array_equal(sgd.flow_time, sgd.step)
    assert (steps.flow_time.attrs["units"], sgd.flow_time.attrs["units"]) == ("flow time", "steps")
    # The path is that of the steps, whatever their unit of time; all of them are counted, not the saved ones alone.
    moved = np.linalg.norm(np.diff(unit_vectors().data.weights, axis=0), axis=1)
    np.testing.assert_allclose(sgd.path_length, np.array([0, *np.cumsum(moved)])[sgd.step], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_a_schedule_sees_flow_time_or_steps(batch_size):
    options = {"batch_size": batch_size, "key": None if batch_size is None else 5, "metrics": (), "num_epochs": 3}
    for step, unit in (({}, 0.25), ({"step_size": None, "optimiser": SGD(0.25)}, 1.0)):
        run = unit_vectors(Telling(refuses=False), **options, **step).data
        name, steps = ("damping", run.step) if batch_size is None else ("batch_damping", run.batch - 1)
        np.testing.assert_allclose(run[name], unit * steps.values, rtol=1e-14)


def test_one_batch_of_all_samples_is_the_full_batch():
    options = {"optimiser": Adam(0.05), "num_epochs": 4, "metrics": (Weights(),)}
    full = gn.iterate(data(), mean_field(), DESCENT, **options)
    one = gn.iterate(data(), mean_field(), DESCENT, batch_size=NUM_SAMPLES, key=0, **options)
    np.testing.assert_allclose(one.data.weights, full.data.weights, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.data.batch_loss, full.data.train_loss[:-1], rtol=1e-12)
    np.testing.assert_allclose(one.data.next_batch_loss_after, full.data.train_loss[1:], rtol=1e-12)
    assert "batch" not in full.data.dims
    assert full.settings["batch_size"] is full.settings["key"] is None


def test_the_velocity_on_all_samples_is_computed_for_a_metric_only():
    run = unit_vectors(Telling(), num_epochs=2, metrics=())
    assert run.data.batch_rank.values.tolist() == [BATCH] * 4
    assert "rank" not in run.data
    assert "fell short at 4 of 4 batches (largest relative residual 5.0e-01)" in run.result.message
    with pytest.raises(RuntimeError, match="all samples"):
        unit_vectors(Telling(), metrics=(DirectionDiagnostics(),))
    asked = unit_vectors(Telling(refuses=False), num_epochs=1, metrics=(DirectionDiagnostics(),)).data
    assert asked["rank"].values.tolist() == [NUM_SAMPLES] * 3
    assert asked["batch_rank"].values.tolist() == [BATCH] * 2


@pytest.mark.parametrize("step", [{"step_size": 1e70}, {"optimiser": SGD(1e70)}], ids=["step", "sgd"])
def test_divergence_names_the_first_step(step):
    """Residuals grow by 1e70/3 a step; after three steps of one sample its square overflows."""
    with pytest.raises(gn.SimulationError, match="non_finite") as caught:
        unit_vectors(**({"step_size": None} | step), save_every=12)
    broken = caught.value.trajectory
    finite = np.isfinite(broken.data[["batch_loss", "batch_loss_after", "next_batch_loss_after"]].to_array()).all(
        "variable"
    )
    first = int(broken.data.batch[~finite][0])
    assert broken.result.code == ResultCode.NON_FINITE
    assert broken.result.time == first
    assert f"loss of a batch is not finite at step {first}" in broken.result.message
    assert ("smaller learning rate" in broken.result.message) == ("optimiser" in step)
    assert 2 < first < 12
    # Nothing of the steps to the next save, which would be no numbers.
    assert broken.data.sizes["batch"] == broken.data.step.values[-1] == broken.stats["num_steps"] == first


def test_a_direction_that_cannot_be_solved_for():
    run = unit_vectors(Telling(broken=0.7), save_every=5, throw=False)
    assert (run.result.code, run.result.time) == (ResultCode.DIRECTION_FAILED, 4)
    assert "broke down at step 4:" in run.result.message
    assert run.data.step.values.tolist() == [0, 4]


def test_stop_rules_are_looked_at_after_the_saved_steps():
    losses = unit_vectors().data.train_loss.values
    stopped = unit_vectors(stop=RelativeLoss(1.001 * losses[4] / losses[0]), save_every=3)
    assert stopped.result.code == ResultCode.STOP_RULE_MET
    assert stopped.result.time == 6
    assert stopped.data.sizes["batch"] == 6
    at_once = unit_vectors(stop=gn.GradientNorm(1e3), save_every=3)
    assert at_once.result.code == ResultCode.STOP_RULE_MET_AT_START
    assert "batch_loss" not in at_once.data


def test_a_run_is_saved_and_loaded(tmp_path):
    for name, optimiser in (("adam", Adam(0.05, beta1=0.8)), ("optax", Optax(optax.sgd(0.25)))):
        made = unit_vectors(step_size=None, optimiser=optimiser, metrics=())
        made.save(tmp_path / name)
        read = gn.load(tmp_path / name, model=made.initial_model)
        assert read.data.identical(made.data)
        assert read.settings["batch_size"] == BATCH
        assert jr.wrap_key_data(read.settings["key"]) == jr.key(5)
        assert isinstance(read.settings["optimiser"], Adam if name == "adam" else str)  # a note of what is Optax's
        if name == "adam":
            assert read.settings["optimiser"] == optimiser
    ordered = {"key": None, "batch_order": [*range(NUM_SAMPLES)], "schedule": gn.optimisers.CosineDecay(4)}
    made = unit_vectors(metrics=(), keep_last=True, num_epochs=2, **ordered)
    made.save(tmp_path / "ordered")
    settings = gn.load(tmp_path / "ordered", model=made.initial_model).settings
    assert settings["keep_last"] is True
    np.testing.assert_array_equal(settings["batch_order"], [np.arange(NUM_SAMPLES)])
    np.testing.assert_allclose(settings["schedule"], made.settings["schedule"])
    assert settings["key"] is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step_size": None}, "either step_size or optimiser, and neither is"),
        ({"optimiser": Adam(0.1)}, "either step_size or optimiser, and both are given"),
        ({"num_epochs": None}, "either num_steps or num_epochs, and neither is"),
        ({"num_steps": 3}, "either num_steps or num_epochs, and both are given"),
        ({"num_epochs": 0}, "num_epochs = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": 8}, "batch_size = 8, but there are 7 training samples"),
        ({"batch_size": None}, "key = 5 without batch_size"),
        ({"key": None}, "key = None; expected a JAX key"),
        ({"key": -1}, "key = -1"),
        ({"key": 1.5}, "key = 1.5"),
        ({"key": jnp.zeros(2)}, "expected a JAX key"),
        ({"key": jr.split(jr.key(0))}, "one is needed"),
        ({"save_every": 0}, "save_every = 0"),
        ({"keep_last": 1}, "keep_last|bool"),  # beartype's error in these tests
        ({"batch_size": None, "key": None, "keep_last": True}, "keep_last = True without batch_size"),
        ({"batch_size": None, "key": None, "batch_order": [0]}, r"batch_order = \[0\] without batch_size"),
        ({"batch_order": [*range(NUM_SAMPLES)]}, "leave one of them out"),
        ({"key": None, "batch_order": [0, 1, 2]}, "the order of the 7 training samples"),
        ({"key": None, "batch_order": [0, 1, 2, 3, 4, 5, 5]}, "each of 0, ..., 6 once"),
        ({"key": None, "batch_order": [[0, 1, 2], [3]]}, "the order of the 7 training samples"),
        ({"key": None, "batch_order": np.arange(7.0)}, "the order of the 7 training samples"),
        ({"augment": 3}, "augment"),
        ({"augment": CropAndFlip(2, 3)}, r"1 x 2 x 3 numbers in a row, .* have the shape \(7,\)"),
        ({"augment": Negative(), "batch_size": None, "key": None}, "augment = .* without batch_size"),
        ({"augment": Negative(), "key": None, "batch_order": [*range(NUM_SAMPLES)]}, "key = None"),
        ({"schedule": 0.5}, "schedule"),
        ({"schedule": lambda step: -1.0}, "a finite number of at least 0"),
        ({"schedule": lambda step: jnp.ones(2)}, "a finite number of at least 0"),
        ({"schedule": lambda step: unknown}, "the schedule fails .*NameError"),  # noqa: F821
    ],
    ids=lambda part: part if isinstance(part, str) else ", ".join(part),
)
def test_bad_arguments_are_named(options, match):
    with pytest.raises(Exception, match=match):
        unit_vectors(**options)
