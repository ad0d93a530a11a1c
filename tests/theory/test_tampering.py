"""Records that were changed: no theorem about a run holds on them, and it is said where a rerun is accurate enough to know."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from theory.runs import failing_record, run, tampered

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, GaussNewtonFlow, GradientFlow, ReversibleGaussNewtonFlow
from gnflow.geometry.damping import Constant
from gnflow.metrics import PathLength
from gnflow.models import RandomFeatures, ReversibleMLP
from gnflow.theory import Evidence, Verdict, theorem_kinds
from gnflow.theory._record import record_facts

UNDAMPED = GaussNewtonFlow("identity", Constant(0.0))


def wide():
    return mean_field(width=16)


def nearly_fitted():
    """Targets so near to the first outputs that the a priori theorem applies."""
    x = make_problem().x_train
    outputs = jax.vmap(wide())(x)
    return gn.Problem(x, outputs + 1e-4 * jr.normal(jr.key(1), outputs.shape))


def reversible():
    keys = jr.split(jr.key(2))
    model = ReversibleMLP(8, 7, 2, 2, activation="silu", init_scale=0.3, key=jr.key(1))
    return {"problem": gn.Problem(jr.normal(keys[0], (4, 8)), jr.normal(keys[1], (4, 2))), "model": model}


# A run on which the theorem holds, for every theorem about single runs.
RUNS = {
    "exact rate": lambda: run(UNDAMPED, model=wide(), rtol=1e-6),
    "sandwich": lambda: run(UNDAMPED, model=wide(), rtol=1e-6),
    "exact rate, reversible": lambda: run(ReversibleGaussNewtonFlow(), rtol=1e-6, **reversible()),
    "a priori": lambda: run(
        GaussNewtonFlow("hessian", Constant(0.0)),
        problem=nearly_fitted(),
        model=wide(),
        rtol=1e-6,
        solver="tsit5",
        metrics=(PathLength(),),
    ),
    "kernel dynamics": lambda: run(
        GaussNewtonFlow("identity", Constant(1e-3)), model=RandomFeatures.of(wide()), rtol=1e-6
    ),
    "conservation": lambda: run(
        GradientFlow(),
        model=mean_field(4, "relu"),
        problem=make_problem(4),
        stop=None,
        t1=0.3,
        rtol=1e-6,
        solver="dopri8",
    ),
    "dual directions": lambda: run(DualGaussNewtonFlow(1e4), stop=gn.RelativeLoss(1e-2), rtol=1e-6),
}
CASES = [pytest.param(name, marks=() if name in ("exact rate", "sandwich") else pytest.mark.slow) for name in RUNS]


@functools.cache
def honest(name):
    """The evidence of an honest run, once for the theorems that share it."""
    return honest("exact rate") if name == "sandwich" else Evidence(RUNS[name]())


def certify(name, evidence):
    return theorem_kinds[name.partition(",")[0]]().certify(evidence)


def with_the_same_reruns(name, trajectory):
    """The evidence of a record that is another one than that of `name`, where neither flow nor settings nor times differ."""
    evidence = Evidence(trajectory)
    vars(evidence).update(reference_rerun=honest(name).reference_rerun, replicate_rerun=honest(name).replicate_rerun)
    return evidence


def changed_loss(trajectory, change):
    loss = trajectory.data.train_loss.to_numpy()
    return tampered(trajectory, train_loss=change(loss, np.arange(len(loss))))


def drift(part):
    """By up to `part`, smoothly, and by nothing at the ends."""
    return lambda loss, i: loss * (1 + part * np.sin(np.pi * i / i[-1]) ** 2)


def nudged(trajectory, part):
    """The last weights off by `part` at random."""
    signs = np.random.default_rng(0)

    def nudge(leaf):
        return leaf * (1 + part * signs.choice([-1, 1], leaf.shape)) if eqx.is_inexact_array(leaf) else leaf

    system = trajectory.flow.system(trajectory.problem, trajectory.initial_model)
    weights = jax.tree.map(nudge, system.weights(trajectory.model))
    return dataclasses.replace(trajectory, model=system.model(weights))


LOSSES = {
    "drift of 1%": drift(0.01),
    "drift of 5%": drift(0.05),
    "downwards": drift(-0.05),
    "reversed": lambda loss, i: loss[::-1],
    "first losses times 1.05": lambda loss, i: np.where(i < 3, 1.05 * loss, loss),
    "one save times 1.5": lambda loss, i: np.where(i == len(i) // 2, 1.5 * loss, loss),
    "every other save times 100": lambda loss, i: np.where(i % 2, 100 * loss, loss),
    "every other save 1e-30": lambda loss, i: np.where(i % 2, 1e-30, loss),
    "every other save negative": lambda loss, i: np.where(i % 2, -loss, loss),
}


@pytest.mark.parametrize("name", CASES)
def test_an_honest_record(name):
    certificate = certify(name, honest(name))
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert len(certificate.record) >= 3
    assert all(claim.verdict == Verdict.HOLDS for claim in certificate.record)
    assert "reproduced by a rerun with its settings" in certificate.compared
    assert all(len(line) <= 80 for line in str(certificate).splitlines())


@pytest.mark.parametrize("change", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_losses(name, change):
    trajectory = changed_loss(honest(name).trajectory, LOSSES[change])
    certificate = certify(name, with_the_same_reruns(name, trajectory))
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)
    assert any("training loss" in claim for claim in failing_record(certificate))


@pytest.mark.parametrize("name", CASES)
def test_losses_that_are_no_numbers(name):
    """Refused, with a reason of its own that says where."""
    for spoilt in (np.nan, np.inf):
        trajectory = changed_loss(honest(name).trajectory, lambda loss, i, s=spoilt: np.where(i == 5, s, loss))
        certificate = certify(name, with_the_same_reruns(name, trajectory))
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        time = float(trajectory.data.time[5])
        assert f"every saved time and loss is finite (not at t = {time:.4g})" in certificate.reason


@pytest.mark.parametrize("name", CASES)
def test_weights(name):
    """Of the end off by a hundredth, those of the start put there, and of the start off by a hundredth."""
    trajectory = honest(name).trajectory
    start = nudged(dataclasses.replace(trajectory, model=trajectory.initial_model), 0.01).model
    for changes in ({"model": nudged(trajectory, 0.01).model}, {"model": trajectory.initial_model}):
        changed = dataclasses.replace(trajectory, **changes)
        certificate = certify(name, with_the_same_reruns(name, changed))
        assert certificate.verdict in (Verdict.VIOLATED, Verdict.ASSUMPTIONS_NOT_MET), str(certificate)
    changed = with_the_same_reruns(name, dataclasses.replace(trajectory, initial_model=start))
    assert certify(name, changed).verdict in (Verdict.VIOLATED, Verdict.ASSUMPTIONS_NOT_MET)


def stretched(trajectory, factor):
    """The run as if its clock had gone otherwise, its result too."""
    data = trajectory.data.assign_coords(time=factor * trajectory.data.time)
    result = dataclasses.replace(trajectory.result, time=factor * trajectory.result.time)
    return dataclasses.replace(trajectory, data=data, result=result)


@pytest.mark.parametrize("factor", [0.99, 1.01])
@pytest.mark.parametrize("name", CASES)
def test_time_stretched(name, factor):
    certificate = certify(name, Evidence(stretched(honest(name).trajectory, factor)))
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)


def test_times_that_are_no_times():
    trajectory = honest("exact rate").trajectory
    backwards = trajectory.data.assign_coords(time=trajectory.data.time[::-1])
    later = dataclasses.replace(trajectory, result=dataclasses.replace(trajectory.result, time=1e3))
    for changed, reason in (
        (dataclasses.replace(trajectory, data=backwards), "run can be repeated (the saved times do not ascend from 0)"),
        (later, "the last save is the end of the run"),
    ):
        certificate = certify("exact rate", Evidence(changed))
        assert certificate.verdict in (Verdict.ASSUMPTIONS_NOT_MET, Verdict.UNDECIDED)
        assert reason in certificate.reason or "the saved times ascend from 0" in certificate.reason


def claiming(trajectory, **settings):
    return dataclasses.replace(trajectory, settings=trajectory.settings | settings)


CLAIMS = {
    "rtol 1e-8": {"rtol": 1e-8},
    "rtol 0.4": {"rtol": 0.4},
    "rtol 7": {"rtol": 7.0},
    "rtol nan": {"rtol": float("nan")},
    "atol 0.1": {"atol": 0.1},
    "atol -1": {"atol": -1.0},
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", ["exact rate", "sandwich"])
def test_what_a_record_says_of_its_accuracy_excuses_nothing(name, claim):
    """A drift of 3%, and an end that does not fit, with other settings, steps and error estimates in run.json."""
    trajectory = claiming(honest(name).trajectory, **CLAIMS[claim])
    stats = trajectory.stats | {"num_accepted_steps": 10**6, "num_steps": 10**6, "estimated_error": 1.0}
    trajectory = dataclasses.replace(trajectory, stats=stats)
    drifted = certify(name, Evidence(changed_loss(trajectory, drift(0.03))))
    assert drifted.verdict in (Verdict.VIOLATED, Verdict.UNDECIDED), str(drifted)
    if claim.startswith("rtol 1e-8"):
        assert drifted.verdict == Verdict.VIOLATED
    swapped = certify(name, Evidence(nudged(trajectory, 0.01)))
    assert swapped.verdict == Verdict.VIOLATED
    # The theorem itself holds as before: on a rerun that the record has no say in.
    assert {one.verdict for one in drifted.claims} == {Verdict.HOLDS}


@pytest.mark.slow
def test_another_error_norm_excuses_nothing():
    trajectory = claiming(honest("exact rate").trajectory, error_norm="weights")
    certificate = certify("exact rate", Evidence(changed_loss(trajectory, drift(0.03))))
    assert certificate.verdict in (Verdict.VIOLATED, Verdict.UNDECIDED)


def test_settings_that_are_not_legal_are_undecided():
    trajectory = claiming(honest("exact rate").trajectory, t1=-3.0)
    certificate = certify("exact rate", Evidence(trajectory))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "t1 = -3.0" in certificate.reason


@pytest.mark.parametrize("damping", [1e-3, 1e-1])
def test_another_damping_in_the_specification(damping):
    """The exact rate is not about damped flows; the sandwich is, and the record is not of this one."""
    flow = GaussNewtonFlow("identity", Constant(damping))
    trajectory = dataclasses.replace(honest("sandwich").trajectory, flow=flow)
    assert certify("exact rate", Evidence(trajectory)).verdict == Verdict.ASSUMPTIONS_NOT_MET
    certificate = certify("sandwich", Evidence(trajectory))
    assert certificate.verdict == Verdict.VIOLATED
    assert any("training loss" in claim for claim in failing_record(certificate))


@pytest.mark.slow
def test_another_power_in_the_specification():
    """ "auto" would have taken another solver for that flow, which tells too, and accuses nobody: here it is named."""
    trajectory = honest("sandwich").trajectory
    settings = trajectory.settings | {"solver": trajectory.stats["solver"]}
    trajectory = dataclasses.replace(trajectory, flow=gn.flows.SpectralFlow(0.95), settings=settings)
    assert certify("sandwich", Evidence(trajectory)).verdict == Verdict.VIOLATED


@pytest.mark.parametrize("name", ["exact rate", "sandwich"])
def test_saves_that_were_left_out(name):
    """What is left is true: nobody is accused; and it is said that the record is not what its settings give."""
    trajectory = honest(name).trajectory
    kept = np.r_[0 : len(trajectory.data.time) - 1 : 2, len(trajectory.data.time) - 1]
    certificate = certify(name, Evidence(dataclasses.replace(trajectory, data=trajectory.data.isel(time=kept))))
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert "NOT reproduced" in certificate.compared
    assert "how the run ended" in certificate.compared


def test_test_losses():
    trajectory = honest("exact rate").trajectory
    for change in (drift(0.01), lambda loss, i: np.where(i == 7, 2 * loss, loss)):
        loss = trajectory.data.test_loss.to_numpy()
        changed = tampered(trajectory, test_loss=change(loss, np.arange(len(loss))))
        certificate = certify("exact rate", with_the_same_reruns("exact rate", changed))
        assert certificate.verdict == Verdict.VIOLATED
        assert failing_record(certificate) == ["a rerun at another tolerance gives every test loss (log)"]


def test_how_it_ended():
    """Another result code is no run of these settings, and is not certified."""
    trajectory = honest("exact rate").trajectory
    result = dataclasses.replace(trajectory.result, code=gn.ResultCode.TIME_REACHED)
    changed = dataclasses.replace(trajectory, result=result)
    certificate = certify("exact rate", with_the_same_reruns("exact rate", changed))
    assert "Not certified: how the run ended" in certificate.compared


def test_weights_that_do_not_move():
    """Those of the first layer of random features, changed in the last model only."""
    trajectory = honest("exact rate").trajectory
    flow = gn.flows.Frozen(UNDAMPED)
    model = eqx.tree_at(lambda m: m.hidden_bias, trajectory.model, jnp.zeros(16))
    changed = dataclasses.replace(trajectory, flow=flow, model=model)
    evidence = with_the_same_reruns("exact rate", changed)
    (check,) = [check for check in record_facts(evidence) if check.name.startswith("weights that do not move")]
    assert check.met is False


@pytest.mark.parametrize("name", ["exact rate", "sandwich"])
def test_a_run_at_the_default_tolerance(name):
    """It is decided, because the theorem is tested on a tighter rerun; a drift of a hundredth is not passed over."""
    trajectory = run(UNDAMPED, model=wide())
    evidence = Evidence(trajectory)
    certificate = certify(name, evidence)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert "tested on a rerun at rtol 6.3e-05" in certificate.compared
    for part in (0.01, 0.05):
        changed = Evidence(changed_loss(trajectory, drift(part)))
        vars(changed).update(reference_rerun=evidence.reference_rerun, replicate_rerun=evidence.replicate_rerun)
        assert certify(name, changed).verdict in (Verdict.UNDECIDED, Verdict.VIOLATED)


def test_a_very_loose_run_does_not_raise():
    certificate = certify("exact rate", Evidence(run(UNDAMPED, model=wide(), rtol=0.4)))
    assert certificate.verdict in (Verdict.HOLDS, Verdict.UNDECIDED), str(certificate)
