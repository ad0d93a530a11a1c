"""The claims and questions of [R], Roulet and Blondel 2024, from the stored results of experiments/dual.

    python experiments/claims/roulet.py && python experiments/claims/page.py

[R] claims that directions of any number of iterations descend and take the place of gradients in any optimiser, and studies
what they cost; which is better when it leaves as questions. Claims about a ratio are judged as in arbel.py. Losses at equal
time are those of the last save within the time of the faster of the two runs.
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "dual")]

import page  # noqa: E402 (after the path)
import pandas as pd  # noqa: E402
from equal_time import at_time, chosen, digits_seconds  # noqa: E402
from rows import EXPERIMENTS, Rows, above, alike, below, paired, stored  # noqa: E402

PAPER = "Roulet and Blondel, TMLR 2024, arXiv 2308.08886"
CLAIM, QUESTION = "all", "(question)"
_STUDY = "python experiments/dual/run.py"
_OPTIMISERS = ("sgd", "momentum", "adam", "line search")
_DIGITS = "digits, MLP of 2 x 64"
_PROBLEMS = {"mnist_5k": "mnist_5k, two convolutions", "fashion_mnist": "Fashion-MNIST, two convolutions"}


def descent(rows: Rows) -> None:
    """What is proved, and the cost of a direction."""
    claim = "every direction descends, after any number of iterations, with the quadratic and the exact model"
    measured = "proof, and directions of all iterations against dense ones"
    numbers = "docs/dual.md"
    cells = (claim, CLAIM, "any", measured, numbers, "**seen**", "`pytest tests/geometry -k 'dual or exact'`")
    rows.rows.append(dict(zip(page.COLUMNS, cells, strict=True)))
    record = json.loads((EXPERIMENTS / "benchmarks" / "results" / "dual_direction.json").read_text(encoding="utf-8"))
    ratios = [row["over_gradient"]["matrix_free"] for row in record["rows"]]
    claim = "directions of ten iterations cost some ten gradients, in the memory of a gradient"
    memory = [row["memory_over_gradient"]["matrix_free"] for row in record["rows"]]
    numbers = f"time {min(ratios):.2g} to {max(ratios):.2g}, memory {min(memory):.2g} to {max(memory):.2g}"
    seen = "**seen**" if max(ratios) < 20 and max(memory) < 2 else "not seen"
    measured = "time and temporary memory over those of the gradient, without A, eleven sizes; bounds 20 and 2"
    cells = (claim, CLAIM, "N = 8 to 2000, C = 1 and 10", measured, numbers, seen, f"`{_STUDY} benchmark`")
    rows.rows.append(dict(zip(page.COLUMNS, cells, strict=True)))


def iterations(rows: Rows) -> None:
    """In the place of gradients, and what more iterations do, in the same epochs on digits."""
    runs = stored("dual", "digits_runs")
    assert runs is not None
    ends = {
        (name, direction): chosen(runs[runs.role == "report"], name, direction).set_index("seed").train_loss
        for name in _OPTIMISERS
        for direction in ("gradient", "dual 4", "dual 16", "dual exact")
    }
    command = f"{_STUDY} digits"
    for name in _OPTIMISERS:
        value, seeds = paired(ends[name, "dual 16"], ends[name, "gradient"])
        measured = f"training loss after 20 epochs, 16 iterations over the gradient, {name}"
        claim = "dual directions in the place of gradients fit better in the same epochs"
        rows.add(claim, CLAIM, _DIGITS, measured, command, value, below(1.0), seeds)
    for name in _OPTIMISERS:
        value, seeds = paired(ends[name, "dual 16"], ends[name, "dual 4"])
        measured = f"training loss after 20 epochs, 16 iterations over 4, {name}"
        rows.add(
            "more iterations fit better in the same epochs",
            QUESTION,
            _DIGITS,
            measured,
            command,
            value,
            below(1.0),
            seeds,
        )
    for name in _OPTIMISERS:
        value, seeds = paired(ends[name, "dual exact"], ends[name, "dual 16"])
        measured = f"training loss after 20 epochs, solved exactly over 16 iterations, {name}"
        claim = "16 iterations are as good as an exact solve"
        rows.add(claim, QUESTION, _DIGITS, measured, command, value, alike, seeds)


def equal_time(rows: Rows) -> None:
    """Against gradients with the same optimiser, and against Adam, in the same time."""
    runs, curves = stored("dual", "digits_runs"), stored("dual", "digits_curves")
    assert runs is not None
    assert curves is not None
    for (name, other), claim in _CONTESTS.items():
        value, seeds = _in_equal_time(
            (curves, "epoch"), {pair: digits_seconds(runs, *pair) for pair in (name, other)}, name, other
        )
        measured = f"training loss at equal time, {_words(name)} over {_words(other)}"
        rows.add(claim, QUESTION, _DIGITS, measured, f"{_STUDY} digits", value, below(1.0), seeds)


def equal_cost(rows: Rows) -> None:
    """At the end of runs of a convolutional network that cost nominally the same."""
    runs = stored("dual", "convolutional_runs")
    reported = None if runs is None else runs[runs.role == "report"]
    for problem, size in _PROBLEMS.items():
        for (name, other), claim in (_CONTESTS | _CONVOLUTIONAL).items():
            value, seeds = None, 0
            if reported is not None:
                here = reported[reported.problem == problem]
                value, seeds = paired(*(chosen(here, *pair).set_index("seed").train_loss for pair in (name, other)))
            measured = f"training loss at equal nominal cost, {_words(name)} over {_words(other)}"
            rows.add(claim, QUESTION, size, measured, f"{_STUDY} convolutional", value, below(1.0), seeds)


_CONTESTS = {
    (("sgd", "dual 16"), ("sgd", "gradient")): "dual directions are worth their price with SGD",
    (("momentum", "dual 16"), ("momentum", "gradient")): "dual directions are worth their price with momentum",
    (("adam", "dual 16"), ("adam", "gradient")): "dual directions are worth their price with Adam",
    (
        ("line search", "dual 16"),
        ("line search", "gradient"),
    ): "dual directions are worth their price with a line search",
    (("sgd", "dual 16"), ("adam", "gradient")): "SGD on dual directions is ahead of Adam on gradients",
}
_CONVOLUTIONAL = {
    (("sgd", "dual 4"), ("adam", "gradient")): "SGD on directions of few iterations is ahead of Adam on gradients",
    (("sgd", "dual exact"), ("sgd", "dual 16")): "the exact model is worth its price",
    (("sgd", "adaptive 16"), ("sgd", "dual 16")): "a gamma that adapts is better than the tuned one (quadratic model)",
    (
        ("sgd", "adaptive exact"),
        ("sgd", "dual exact"),
    ): "a gamma that adapts is better than the tuned one (exact model)",
    (("sgd", "layers 16"), ("sgd", "dual 16")): "a dual problem for each layer is better than one for all",
}


def _words(pair: tuple[str, str]) -> str:
    return f"{pair[0]} on {pair[1]}"


def _in_equal_time(
    table: tuple[pd.DataFrame, str],
    seconds: dict[tuple[str, str], float],
    name: tuple[str, str],
    other: tuple[str, str],
):
    """The ratio of training losses at the end of the shorter of the two runs."""
    curves, unit = table
    time = min(seconds.values())
    if not time > 0 or any(chosen(curves, *pair).empty for pair in (name, other)):
        return None, 0
    losses = [at_time(chosen(curves, *pair), unit, "train_loss", seconds[pair], time) for pair in (name, other)]
    return paired(*losses)


def gamma(rows: Rows) -> None:
    """Between gradient flow and Gauss-Newton."""
    table = stored("dual", "phase")
    assert table is not None
    command = f"{_STUDY} phase"
    size = "teacher-student, N = 100, M = 300"
    for tau0 in (0.1, 1.0, 10.0):
        here = table[table.tau0 == tau0]
        large, middle, small = (here[here.gamma == g].set_index("seed") for g in (1e8, 1e4, 1.0))
        value, seeds = paired(middle["explicit_steps"], small["explicit_steps"])
        measured = f"explicit steps to 1e-6, gamma = 1e4 over gamma = 1, tau0 = {tau0:g}"
        rows.add("gamma interpolates: fewer steps", QUESTION, size, measured, command, value, below(1.0), seeds)
        value, seeds = paired(middle["test_loss"], small["test_loss"])
        measured = f"test loss, gamma = 1e4 over gamma = 1, tau0 = {tau0:g}"
        claim = "a middle gamma keeps gradient flow's generalisation"
        rows.add(claim, QUESTION, size, measured, command, value, alike, seeds)
        value, seeds = paired(large["test_loss"], small["test_loss"])
        measured = f"test loss, gamma = 1e8 over gamma = 1, tau0 = {tau0:g}"
        claim = "a large gamma generalises worse than gradient flow"
        rows.add(claim, QUESTION, size, measured, command, value, above(1.0), seeds)


def main() -> None:
    """All rows."""
    rows = Rows()
    for part in (descent, iterations, equal_time, equal_cost, gamma):
        part(rows)
    page.write("roulet", PAPER, rows.rows)


if __name__ == "__main__":
    main()
