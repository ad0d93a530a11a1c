"""What dual directions promise, on runs: where it holds, what is refused, what was changed."""

import dataclasses

import pytest
from facts.recording import make_problem, mean_field
from theory.runs import as_if, failing, failing_record, run, slowed, tampered

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, Frozen
from gnflow.theory import DualDirections, KernelDynamics, Sandwich, Verdict, _dual_directions, verify

PROBLEMS = {
    "squared": lambda: (make_problem(), mean_field()),
    "softmax": lambda: (make_problem(num_outputs=3, loss=gn.losses.SoftmaxCrossEntropy()), mean_field(num_outputs=3)),
    "huber": lambda: (make_problem(loss=gn.losses.HuberLoss(0.5)), mean_field()),
}
CASES = {
    ("squared", "quadratic"): {"gamma": 1e4},
    ("softmax", "quadratic"): {"gamma": 100.0, "max_iterations": 3},
    ("softmax", "exact"): {"gamma": 100.0},
    ("huber", "exact"): {"gamma": 10.0},
}
SLOW = set(CASES) - {("squared", "quadratic")}


def dual_run(loss="squared", model="quadratic", **options):
    problem, network = PROBLEMS[loss]()
    flow = DualGaussNewtonFlow(model=model, **options)
    return run(flow, problem=problem, model=network, stop=gn.RelativeLoss(1e-2))


@pytest.fixture(scope="module")
def squared():
    return dual_run(**CASES["squared", "quadratic"])


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES], ids="-".join
)
def test_directions_keep_their_promises(case, squared):
    trajectory = squared if case == ("squared", "quadratic") else dual_run(*case, **CASES[case])
    certificate = verify(trajectory, "dual directions")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(check.rigorous for check in certificate.checks)
    names = " ".join(claim.name for claim in certificate.claims)
    quadratic = case[1] == "quadratic"
    assert ("P falls in every iteration" in names, "L(f + J d)" in names) == (quadratic, not quadratic)
    assert ("damped Gauss-Newton" in names) == (case[0] == "squared")
    assert 0 < certificate.constants["smallest cosine of a direction with minus the gradient"] <= 1
    assert certificate.constants["largest condition number 1 + gamma ||J^T H J|| of the solve"] > 1


def test_the_sandwich_knows_the_flow(squared):
    sandwich = verify(squared, "sandwich")
    assert sandwich.verdict == Verdict.HOLDS, str(sandwich)
    # Nearly undamped: the rate is nearly 2, whatever the conditioning.
    assert 1 < sandwich.constants["smallest rho_low"] <= sandwich.constants["largest rho_high"] < 2 + 1e-3
    changed = Sandwich().certify(as_if(squared, lambda rerun: slowed(rerun, 0.5)))
    assert failing(changed), str(changed)


@pytest.mark.slow
def test_a_mode_decays_as_the_closed_form_says():
    problem, network = PROBLEMS["squared"]()
    flow = Frozen(DualGaussNewtonFlow(100.0))
    trajectory = run(flow, problem=problem, model=network, rtol=1e-5)
    certificate = verify(trajectory, "kernel dynamics")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    (claim,) = failing(KernelDynamics().certify(as_if(trajectory, lambda rerun: slowed(rerun, 0.99))))
    assert claim.startswith("log L falls")


def test_steps_have_directions_and_no_clock():
    problem, network = PROBLEMS["squared"]()
    steps = gn.iterate(problem, network, DualGaussNewtonFlow(10.0), step_size=10 / 11, num_steps=2)
    certificate = verify(steps, DualDirections())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert not any("does not rise" in claim.name for claim in certificate.claims)


def test_rounding_where_the_residual_lies_in_slow_modes_accuses_nobody():
    """Two samples that are nearly one, with other targets: J^T g all but cancels, and <g, J d> is not known to 16 digits."""
    problem, network = PROBLEMS["squared"]()
    nearly = gn.Problem(problem.x_train.at[1].set(problem.x_train[0] + 1e-5), problem.y_train)
    steps = gn.iterate(nearly, network, DualGaussNewtonFlow(1e4), step_size=1.0, num_steps=400, save_every=400)
    certificate = verify(steps, DualDirections())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    (falls,) = [claim for claim in certificate.claims if "falls in every" in claim.name]
    assert 1e-13 < abs(falls.slack) < falls.tolerance


def test_a_record_that_rises_violates_it(squared):
    def risen(run):
        loss = run.data.train_loss.to_numpy().copy()
        loss[len(loss) // 2 :] *= 3
        return tampered(run, train_loss=loss)

    certificate = DualDirections().certify(as_if(squared, risen))
    assert failing(certificate) == ["the loss does not rise: log L falls by at least 0"]
    assert "no save is above the lowest before it (log)" in failing_record(verify(risen(squared), DualDirections()))


CHANGES = {
    "cosine": ("cosine of d", lambda one: -one.cosine),
    "gap": ("the duality gap", lambda one: 0.5 * one.gap),
    "off_gradient": ("after no iteration", lambda one: one.off_gradient + 0.01),
    "objective": ("falls in every iteration", lambda one: -one.objective),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_promise_that_is_broken_is_seen(squared, monkeypatch, name):
    claim, change = CHANGES[name]
    sequence = _dual_directions._sequence

    def changed(*arguments):
        return [dataclasses.replace(one, **{name: change(one)}) for one in sequence(*arguments)]

    monkeypatch.setattr(_dual_directions, "_sequence", changed)
    certificate = verify(squared, DualDirections())
    assert certificate.verdict == Verdict.VIOLATED
    assert any(claim in violated for violated in failing(certificate))


def test_another_damping_is_seen(squared, monkeypatch):
    monkeypatch.setattr(_dual_directions, "Constant", lambda value: gn.damping.Constant(1.1 * value))
    # Another gamma is another program: the compiled one has the true damping.
    other = dataclasses.replace(squared, flow=DualGaussNewtonFlow(3e3))
    assert any("damped Gauss-Newton" in name for name in failing(verify(other, DualDirections())))


def test_other_flows_and_points_at_rest_are_refused():
    problem, network = PROBLEMS["squared"]()
    other = gn.iterate(problem, network, gn.flows.GradientFlow(), step_size=0.1, num_steps=1)
    assert "dual Gauss-Newton flow" in verify(other, DualDirections()).reason
    system = gn.System(problem, network)
    fitted = gn.Problem(problem.x_train, system.outputs(system.weights(network)))
    resting = gn.iterate(fitted, network, DualGaussNewtonFlow(10.0), step_size=0.1, num_steps=1)
    certificate = verify(resting, DualDirections())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "grad L" in certificate.reason
