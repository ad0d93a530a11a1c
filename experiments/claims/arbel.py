"""The claims of [A], Arbel et al. 2023, from the stored results of the studies.

    python experiments/claims/arbel.py && python experiments/claims/page.py

A claim about a ratio is *seen* if the 95% interval of its geometric mean over seeds lies wholly on the claim's side of the
bound, *not seen* if wholly on the other, and else *open*. What is not stored yet is *not run*.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "arbel", "phase_diagrams")]

import page  # noqa: E402 (after the path)
import pandas as pd  # noqa: E402
from rows import Rows, above, alike, below, chosen, paired, stored  # noqa: E402

PAPER = "Arbel, Menegaux, Wolinski, NeurIPS 2023, arXiv 2302.02904"
ANY, EARLIER, THIRD = "all", "before v3", "v3"
_SMALL, _LARGE = (0.01, 0.1, 0.5, 1.0), (10.0, 100.0)
_LAPTOP, _PAPER_SIZE = "N = 200, M = 1000", "N = 500, M = 5000"
_SCALES = "gnflow sweep experiments/phase_diagrams/scales.toml"
_PROTOCOL = "python experiments/arbel/run.py"


def sweep_command(name: str) -> str:
    """The command of a study of phase_diagrams."""
    return f"gnflow sweep experiments/phase_diagrams/{name}.toml"


def ends(rows: Rows) -> None:
    """The order of the methods at the ends of runs."""
    studies = (
        (
            _LAPTOP,
            _SCALES,
            stored("phase_diagrams", "scales"),
            "gauss_newton",
            stored("arbel", "random_features_laptop"),
        ),
        (_PAPER_SIZE, _PROTOCOL, stored("arbel", "protocol"), "gauss_newton_flow", stored("arbel", "random_features")),
    )
    for size, command, table, name, features in studies:
        for scales, version, claim, judge in (
            (
                _SMALL,
                EARLIER,
                "in the feature-learning regime Gauss-Newton generalises worse than gradient flow",
                above(1.0),
            ),
            (_LARGE, EARLIER, "in the kernel regime Gauss-Newton generalises as gradient flow does", alike),
        ):
            for tau0 in scales:
                value, seeds = None, 0
                if table is not None:
                    flows = (chosen(table, tau0=tau0, flow=flow)["test_loss"] for flow in (name, "gradient_flow"))
                    value, seeds = paired(*flows)
                measured = f"test loss of Gauss-Newton flow over gradient flow's, tau0 = {tau0:g}"
                rows.add(claim, version, size, measured, command, value, judge, seeds)
        for tau0 in _SMALL:
            value, seeds = None, 0
            if table is not None and features is not None:
                released = chosen(features, tau0=tau0)["released_test_loss"]
                value, seeds = paired(released, chosen(table, tau0=tau0, flow=name)["test_loss"])
            claim = "random features generalise worse than Gauss-Newton at small scales"
            measured = f"test loss of the released random features over Gauss-Newton flow's, tau0 = {tau0:g}"
            rows.add(claim, ANY, size, measured, _PROTOCOL, value, above(1.0), seeds)


def speed(rows: Rows) -> None:
    """Rates and conditioning, and the released budget."""
    table = stored("phase_diagrams", "scales")
    assert table is not None
    spread = {
        flow: table[table["flow"] == flow].groupby("seed")["flow_time"].agg(lambda times: times.max() / times.min())
        for flow in ("gauss_newton", "gradient_flow")
    }
    value, seeds = paired(spread["gauss_newton"], spread["gradient_flow"])
    claim = "Gauss-Newton's rate does not depend on the conditioning, gradient flow's does"
    measured = "flow time to 1e-6, largest over smallest of tau0 = 0.01 to 100: Gauss-Newton's over gradient flow's"
    rows.add(claim, ANY, _LAPTOP, measured, _SCALES, value, below(1.0), seeds)
    protocol = stored("arbel", "protocol")
    for tau0 in (0.01, 0.1, 1.0, 10.0, 100.0):
        value, seeds = None, 0
        if protocol is not None:
            times = chosen(protocol, tau0=tau0, flow="gradient_flow")["flow_time"]
            value, seeds = paired(times, pd.Series(4000.0, index=times.index))
        measured = (
            f"particle time of gradient flow to 1e-8 over the 4000 units of 2,000,000 steps of 10, tau0 = {tau0:g}"
        )
        claim = "the released gradient descent converges to 1e-8 within its budget (a setting, not a claim)"
        rows.add(claim, "released code", _PAPER_SIZE, measured, _PROTOCOL, value, below(1.0), seeds)


_METHODS = {
    "gauss_newton_flow": "Gauss-Newton flow",
    "steps_0p1": "steps of 0.1",
    "steps_1": "steps of 1",
    "steps_10": "steps of 10",
}


def hidden_learning(rows: Rows) -> None:
    """Features along the runs, at a level of the training loss that is chosen without the test set."""
    table, command = stored("phase_diagrams", "hidden_learning_runs"), sweep_command("hidden_learning")
    for tau0 in (0.01, 0.03, 0.1, 0.3, 1.0):
        ends = {
            flow: None if table is None else chosen(table, tau0=tau0, flow=flow)["end_test_loss"]
            for flow in ("gauss_newton_flow", "gradient_flow")
        }
        for flow, words in _METHODS.items():
            early = None if table is None else chosen(table, tau0=tau0, flow=flow)["early_refit_test_loss"]
            for claim, of, reference in (
                (
                    "hidden learning: while the losses are sub-optimal the features generalise better than the trained model",
                    "Gauss-Newton flow's end",
                    ends["gauss_newton_flow"],
                ),
                (
                    "features found on the way generalise better than gradient flow's solution (not claimed, asked here)",
                    "gradient flow's end",
                    ends["gradient_flow"],
                ),
            ):
                value, seeds = (None, 0) if early is None or reference is None else paired(early, reference)
                measured = f"{words}: refitted at 0.9 of the training loss over the test loss at {of}, tau0 = {tau0:g}"
                rows.add(claim, THIRD, _LAPTOP, measured, command, value, below(1.0), seeds)
        early = [
            None if table is None else chosen(table, tau0=tau0, flow=flow)["early_refit_test_loss"]
            for flow in ("steps_10", "steps_0p1")
        ]
        value, seeds = (None, 0) if early[0] is None or early[1] is None else paired(early[0], early[1])
        measured = f"refitted test loss at 0.9 of the training loss, steps of 10 over steps of 0.1, tau0 = {tau0:g}"
        rows.add("it takes small steps", THIRD, _LAPTOP, measured, command, value, above(1.0), seeds)


def others(rows: Rows) -> None:
    """Step sizes at the end, samples, activations, and the question that is left open."""
    table = stored("phase_diagrams", "step_size")
    assert table is not None
    step = "lambda" if "lambda" in table else "step"
    for tau0 in (0.1, 1.0, 10.0):
        of_step = [
            chosen(table, **{"tau0": tau0, step: size, "flow": "gauss_newton_steps"})["test_loss"]
            for size in (100.0, 0.1)
        ]
        value, seeds = paired(*of_step)
        claim = "small steps from a small start generalise better"
        measured = f"test loss at the end of steps of 100 over steps of 0.1, tau0 = {tau0:g}"
        rows.add(claim, THIRD, "N = 100, M = 1000", measured, sweep_command("step_size"), value, above(1.0), seeds)
    table = stored("phase_diagrams", "samples")
    assert table is not None
    for count in (50, 100, 200, 400):
        flows = (chosen(table, N=count, tau0=0.1, flow=flow)["test_loss"] for flow in ("gauss_newton", "gradient_flow"))
        value, seeds = paired(*flows)
        measured = f"test loss of Gauss-Newton flow over gradient flow's, tau0 = 0.1, N = {count}"
        claim = "gradient flow's lead is there at every number of samples"
        rows.add(claim, EARLIER, "M = 1000", measured, sweep_command("samples"), value, above(1.0), seeds)
    table = stored("phase_diagrams", "activations")
    assert table is not None
    for activation in ("silu", "tanh", "relu", "gelu"):
        where = {"activation": activation, "tau0": 0.1}
        flows = (chosen(table, **where, flow=flow)["test_loss"] for flow in ("gauss_newton", "gradient_flow"))
        value, seeds = paired(*flows)
        claim = "gradient flow's lead is there for other activations"
        measured = f"test loss of Gauss-Newton flow over gradient flow's, tau0 = 0.1, {activation}"
        rows.add(claim, EARLIER, "N = 100, M = 1000", measured, sweep_command("activations"), value, above(1.0), seeds)
    table = stored("phase_diagrams", "spectral")
    assert table is not None
    for power in (0.25, 0.5):
        losses = [chosen(table, N=400, tau0=0.1, s=s)["test_loss"] for s in (power, 0.0)]
        value, seeds = paired(*losses)
        claim = "(open question) a method between the two that keeps gradient flow's generalisation"
        measured = f"test loss of the spectral flow, s = {power:g}, over gradient flow's, tau0 = 0.1"
        rows.add(claim, ANY, "N = 400, M = 1000", measured, sweep_command("spectral"), value, alike, seeds)


def main() -> None:
    """All rows."""
    rows = Rows()
    for part in (speed, ends, hidden_learning, others):
        part(rows)
    page.write("arbel", PAPER, rows.rows)


if __name__ == "__main__":
    main()
