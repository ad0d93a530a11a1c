"""The tables of docs/reversible_study.md: the chosen rates, the ends of the runs, and claim by claim what was seen.

A claim is *seen* if the 95% interval over seeds lies wholly on its side, *not seen* if wholly on the other, and else *open*.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from intervals import Interval, interval, number, ratio, verdict
from pages import markdown_table
from stored import Study

# The end of the kernel regime in docs/figures_of_sweeps.md, too: the kernel has hardly changed below this distance.
LAZY = 0.1
UNCHANGED_CKA = 0.9
SATURATED = 0.9  # the part of the loss that a second half of the training leaves, if it does next to nothing
TRUNCATED, LOWER_RATE, PAPER_RATE = "gauss_newton_truncated", "gauss_newton_lower_rate", "gauss_newton_paper_rate"
_CURVES = "kernel_distance_estimate"


def tables(results: Path) -> dict[str, list[str]]:
    """Lines of Markdown by the name of the table."""
    full, mini, small, long = (
        Study(results, name) for name in ("full_batch", "mini_batch", "small_batch", "full_batch_long")
    )
    return {
        "claims": markdown_table(
            ("claim of [B]", "what is measured", "numbers", "seen here?"), _claims(full, mini, small, long)
        ),
        "rates": _rates({"full batch": full, "full batch, long": long, "mini-batches": mini, "small batches": small}),
        "full batch": _ends(full),
        "full batch, long": _ends(long),
        "mini-batches": _ends(mini),
        "batch losses": _batch_losses(mini),
        "small batches": _ends(small),
        "small batches, losses": _batch_losses(small),
        "exact flow": _exact_flow(results / "exact_flow.csv"),
    }


def claim_lines(results: Path) -> list[tuple[str, ...]]:
    """A claim, what is measured for it, the numbers and the verdict, a line for each thing that was measured."""
    return _claims(*(Study(results, name) for name in ("full_batch", "mini_batch", "small_batch", "full_batch_long")))


def _claims(full: Study, mini: Study, small: Study, long: Study) -> list[tuple[str, ...]]:
    """A line for each thing that was measured."""
    lines: list[tuple[str, ...]] = []

    def line(claim: str, measured: str, value: Interval, bound: float, below: bool) -> None:
        lines.append((claim, measured, str(value), verdict(value, bound, below)))

    steps = full.num_steps
    for other in ("adam", "sgd", "sgd_momentum"):
        value = ratio(full.at(TRUNCATED, "train_loss"), full.at(other, "train_loss"))
        line("fast full-batch training", f"training loss over that of {_name(other)}, {steps} steps", value, 1.0, True)
    seconds = full.record["step_seconds"]
    for other in ("adam", "sgd", "sgd_momentum"):
        # So many steps of Gauss-Newton as take the time of the longer runs, or the other way round.
        time = min(steps * seconds[TRUNCATED], long.num_steps * seconds[other])
        ours = full.at(TRUNCATED, "train_loss", time / seconds[TRUNCATED])
        theirs = long.at(other, "train_loss", time / seconds[other])
        value = ratio(ours, theirs)
        measured = f"the same after {time:.2g} s, compilation and metrics left out"
        line("fast full-batch training", f"{measured}, {_name(other)}", value, 1.0, True)
    for name in (TRUNCATED, LOWER_RATE, PAPER_RATE, "adam"):
        half = ratio(mini.at(name, "train_loss"), mini.at(name, "train_loss", mini.num_steps / 2))
        claim = "mini-batch GN saturates even on the training loss" if name != "adam" else "Adam does not saturate"
        measured = f"{_name(name)}: training loss at the end over that half way; bound {SATURATED:g}"
        line(claim, measured, half, SATURATED, name == "adam")
    ends = [(mini, name, "") for name in (TRUNCATED, LOWER_RATE, PAPER_RATE)]
    for study, name, where in (*ends, (small, "gauss_newton", ", batches of 24, exact")):
        value = ratio(study.at(name, "train_loss"), study.at("adam", "train_loss"))
        measured = f"{_name(name)}{where}: training loss at the end over Adam's"
        line("mini-batch GN ends above Adam's training loss", measured, value, 1.0, False)
    steps_of = [(mini, name, "") for name in (TRUNCATED, LOWER_RATE, PAPER_RATE, "adam")]
    steps_of += [(small, name, ", batches of 24") for name in ("gauss_newton", "adam")]
    for study, name, where in steps_of:
        for epochs, words in _epochs(study):
            change = _next_change(study, name, epochs)
            claim = "updates overfit each mini-batch" if name != "adam" else "Adam's updates do not"
            measured = f"{_name(name)}{where}: change of the next batch's loss in a step, {words}"
            line(claim, measured, change, 0.0, name == "adam")
    for study, where in ((full, "full batch"), (mini, "mini-batches")):
        for name in _lazy_methods(study):
            lazy = name != "adam"
            claim = "the NTK hardly changes" if lazy else "Adam's NTK changes"
            value = interval(study.at(name, _CURVES))
            line(claim, f"{_name(name)}: kernel distance at the end, {where}; bound {LAZY:g}", value, LAZY, lazy)
    for study, where in ((full, "full batch"), (mini, "mini-batches")):
        for name in _lazy_methods(study):
            near = name != "adam"
            claim = "CKA stays near 1" if near else "Adam's does not"
            value = interval(study.at(name, "least_layer_cka_test"))
            measured = f"{_name(name)}: least CKA of a block, test digits, {where}; bound {UNCHANGED_CKA:g}"
            line(claim, measured, value, UNCHANGED_CKA, not near)
    return lines


def _lazy_methods(study: Study) -> list[str]:
    return [name for name in (TRUNCATED, LOWER_RATE, PAPER_RATE, "adam") if name in study.flows]


def _epochs(study: Study) -> tuple[tuple[slice, str], ...]:
    """The first epoch and the second half of all."""
    assert study.batches is not None
    last = int(study.batches["epoch"].to_numpy().max())
    return (slice(1, 1), "first epoch"), (slice(last // 2 + 1, last), f"epochs {last // 2 + 1} to {last}")


def _next_change(study: Study, flow: str, epochs: slice) -> Interval:
    change = study.of_batches(flow, "next_batch_loss_after") - study.of_batches(flow, "next_batch_loss")
    return interval(change.loc[epochs].mean())


def _rates(studies: dict[str, Study]) -> list[str]:
    lines = []
    for where, study in studies.items():
        for name, tried in study.record["selection"].items():
            rates = [entry["rate"] for entry in tried]
            chosen = study.record["chosen"][name]
            best = next(entry["mean_final_train_loss"] for entry in tried if entry["rate"] == chosen)
            edge = ", at the edge" if chosen in (rates[0], rates[-1]) else ""
            grid = ", ".join(number(rate) for rate in rates)
            lines.append((where, _name(name), grid, f"{number(chosen)}{edge}", number(best)))
    return markdown_table(
        ("study", "method", "rates tried", "chosen", "mean final training loss, selection seeds"), lines
    )


_ENDS = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    _CURVES: "kernel distance",
    "least_layer_cka_test": "least CKA",
    "weight_change_norm": "change of the weights",
    "weight_cosine": "cosine of the weights",
}


def _ends(study: Study) -> list[str]:
    """Means at the end with their intervals."""
    known = {name: words for name, words in _ENDS.items() if name in study.curves}
    lines = []
    for flow in study.flows:
        ends = {name: study.at(flow, name) for name in known}
        start = study.along(flow, "train_loss").iloc[0].to_numpy()
        diverged = int(np.sum(~(ends["train_loss"] < start)))
        cells = [_median(end) if diverged else str(interval(end)) for end in ends.values()]
        remark = f"; {diverged} of {start.size} runs diverged: medians and ranges" if diverged else ""
        lines.append((f"{_name(flow)}{remark}", *cells))
    return markdown_table(("method", *known.values()), lines)


def _median(values: np.ndarray) -> str:
    return f"{number(np.nanmedian(values))} ({number(np.nanmin(values))} to {number(np.nanmax(values))})"


def _batch_losses(study: Study) -> list[str]:
    """What a step does to its batch and to the next one."""
    heads = ("method", "epochs", "change of its batch's loss", "change of the next batch's loss", "rank", "residual")
    lines = []
    for flow in study.flows:
        for epochs, words in _epochs(study):
            own = study.of_batches(flow, "batch_loss_after") - study.of_batches(flow, "batch_loss")
            solve = [
                study.of_batches(flow, name).loc[epochs].to_numpy().mean()
                for name in ("batch_rank", "batch_relative_residual")
            ]
            solved = [number(value) if np.isfinite(value) else "" for value in solve]
            lines.append(
                (
                    _name(flow),
                    words,
                    str(interval(own.loc[epochs].mean())),
                    str(_next_change(study, flow, epochs)),
                    *solved,
                )
            )
    return markdown_table(heads, lines)


_EXACT = {
    "output_error": "error of the logits",
    "train_loss": "training loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "kernel_distance": "kernel distance",
    "layer_cka_test": "least CKA",
    "weight_change_norm": "change of the weights",
    "ntk_velocity_start": "NTK velocity, start",
    "ntk_velocity_end": "NTK velocity, end",
}


def _exact_flow(path: Path) -> list[str]:
    """Means of each flow, and the weights' change over that of minimum norm."""
    if not path.is_file():
        return ["*Not run yet: `python experiments/reversible/run.py exact_flow`.*"]
    rows = pd.read_csv(path)
    by_flow = {flow: rows[rows["flow"] == flow] for flow in _CONTINUOUS}
    lines = []
    for flow, own in by_flow.items():
        name = _CONTINUOUS[flow]
        cells = [str(interval(own[key])) for key in _EXACT]
        if flow == "gradient":
            cells[0] = "follows no such equation"
        relative = ratio(own["weight_change_norm"], by_flow["minimum_norm"]["weight_change_norm"])
        lines.append((name, *cells, "1" if flow == "minimum_norm" else str(relative)))
    return markdown_table(("flow", *_EXACT.values(), "change of the weights over that of the minimum norm"), lines)


_CONTINUOUS = {
    "gauss_newton": "reversible GN",
    "minimum_norm": "dense minimum-norm GN",
    "gradient": "gradient flow",
}
NAMES = {
    TRUNCATED: "GN, rtol 1e-2",
    "gauss_newton": "GN, rtol 0",
    PAPER_RATE: "GN, rtol 1e-2, [B]'s rate",
    LOWER_RATE: "GN, rtol 1e-2, lower rate",
    "minimum_norm": "dense minimum-norm GN",
    "adam": "Adam",
    "sgd": "SGD",
    "sgd_momentum": "SGD, momentum 0.9",
}


def _name(flow: str) -> str:
    return NAMES[flow]
