"""The claims of [A], Arbel et al. 2023, from the stored results of the studies.

    python experiments/claims/arbel.py && python experiments/claims/page.py

A claim about a ratio is *seen* if the 95% interval of its geometric mean over seeds lies wholly on the claim's side of the
bound, *not seen* if wholly on the other, and else *open*. What is not stored yet is *not run*.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "arbel", "phase_diagrams")]

import numpy as np  # noqa: E402 (after the path)
import page  # noqa: E402
import pandas as pd  # noqa: E402
from intervals import Interval, ratio, verdict  # noqa: E402

EXPERIMENTS = Path(__file__).parents[1]
PAPER = "Arbel, Menegaux, Wolinski, NeurIPS 2023, arXiv 2302.02904"
ANY, EARLIER, THIRD = "all", "before v3", "v3"
_ALIKE = 1.1  # as large as, for ratios on both sides
_SMALL, _LARGE = (0.01, 0.1, 0.5, 1.0), (10.0, 100.0)
_LAPTOP, _PAPER_SIZE = "N = 200, M = 1000", "N = 500, M = 5000"
_SCALES = "gnflow sweep experiments/phase_diagrams/scales.toml"
_PROTOCOL = "python experiments/arbel/run.py"


def sweep_command(name: str) -> str:
    """The command of a study of phase_diagrams."""
    return f"gnflow sweep experiments/phase_diagrams/{name}.toml"


def stored(folder: str, name: str) -> pd.DataFrame | None:
    """A stored table; None if it is not there."""
    path = EXPERIMENTS / folder / "results" / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else None


class Rows:
    """The rows as they are found."""

    def __init__(self):
        self.rows: list[dict[str, str]] = []

    def add(
        self,
        claim: str,
        version: str,
        size: str,
        measured: str,
        command: str,
        value: Interval | None,
        judge: Callable[[Interval], str],
        seeds: int = 0,
    ) -> None:
        """A row; `value` is None for what was not run."""
        numbers = "" if value is None else str(value)
        size = f"{size}, {seeds} seeds" if seeds else size
        cells = (claim, version, size, measured, numbers, "not run" if value is None else judge(value), f"`{command}`")
        self.rows.append(dict(zip(page.COLUMNS, cells, strict=True)))


def above(bound: float) -> Callable[[Interval], str]:
    """The claim that a value is above the bound."""
    return lambda value: verdict(value, bound, below=False)


def below(bound: float) -> Callable[[Interval], str]:
    """The claim that a value is below the bound."""
    return lambda value: verdict(value, bound, below=True)


def alike(value: Interval) -> str:
    """The claim that two are as large: the interval within a tenth of 1 on both sides."""
    if not np.isfinite(value.low):
        return "open"
    if value.low > 1 / _ALIKE and value.high < _ALIKE:
        return "**seen**"
    return "not seen" if value.low > _ALIKE or value.high < 1 / _ALIKE else "open"


def chosen(table: pd.DataFrame, **where: float | str) -> pd.DataFrame:
    """The rows of a table by seed, failed runs left out."""
    for name, value in where.items():
        table = table[table[name] == value]
    if "failed" in table:
        table = table[~table["failed"].astype(bool)]
    return table.set_index("seed").sort_index()


def paired(over: pd.Series, under: pd.Series) -> tuple[Interval | None, int]:
    """The ratio over the seeds that both have, and how many these are."""
    seeds = over.dropna().index.intersection(under.dropna().index)
    return (ratio(over[seeds], under[seeds]), len(seeds)) if len(seeds) else (None, 0)


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
    """Features along the runs."""
    table, command = stored("phase_diagrams", "hidden_learning_runs"), sweep_command("hidden_learning")
    for tau0 in (0.01, 0.03, 0.1, 0.3, 1.0):
        for flow, words in _METHODS.items():
            own = None if table is None else chosen(table, tau0=tau0, flow=flow)
            reference = None if table is None else chosen(table, tau0=tau0, flow="gradient_flow")["end_test_loss"]
            for claim, measured, value, judge in (
                (
                    "hidden learning: while the losses are sub-optimal the features generalise better than the trained model",
                    f"{words}: refitted test loss at the best save over the test loss at the end, tau0 = {tau0:g}",
                    None if own is None else paired(own["best_refit_test_loss"], own["end_test_loss"]),
                    below(1.0),
                ),
                (
                    "the features found on the way generalise as well as gradient flow's solution or better",
                    f"{words}: refitted test loss at 0.9 of the training loss over gradient flow's at its end, tau0 = {tau0:g}",
                    None if own is None else paired(own["early_refit_test_loss"], reference),
                    below(1.0),
                ),
            ):
                rows.add(
                    claim, THIRD, _LAPTOP, measured, command, *(value or (None,))[:1], judge, (value or (None, 0))[1]
                )
        if table is not None:
            flows = (chosen(table, tau0=tau0, flow=flow)["best_refit_test_loss"] for flow in ("steps_10", "steps_0p1"))
            value, seeds = paired(*flows)
        else:
            value, seeds = None, 0
        claim = "it takes small steps"
        measured = f"best refitted test loss along steps of 10 over that along steps of 0.1, tau0 = {tau0:g}"
        rows.add(claim, THIRD, _LAPTOP, measured, command, value, above(1.0), seeds)


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
