"""One row of the table of truth: the default run beside its reference, and the verdict on it."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from truth_problems import Row, build
from truth_reference import CONFIRMED, Reference, rms

import gnflow as gn
from gnflow.simulate._accuracy import DEFAULT_RTOL, promised_accuracy

# The promise of a default run (docs/choosing.md): the relative error of the residual r = sqrt(2 (L - L*)) at every saved
# time, and that of the test outputs relative to how far they have moved (here at the end).
PROMISE = promised_accuracy(DEFAULT_RTOL)
# What a relative change of every weight by one rounding unit may do to r: a run may differ by this many times as much, since
# rounding goes on along it.
ROUNDING_ALLOWANCE = 10.0

RIGHT, REFUSED, SILENT, UNDECIDED = "right", "refused", "wrong in silence", "no reference"
VERDICTS = (RIGHT, REFUSED, SILENT, UNDECIDED)

assert CONFIRMED <= PROMISE / 10


def compare(row: Row, reference: Reference) -> dict[str, Any]:
    """The row's default run beside its reference, as a record of numbers and words."""
    problem, model, flow = build(row)
    rule = None if row.stop is None else gn.RelativeLoss(row.stop)
    began = time.perf_counter()
    run = gn.simulate(
        problem,
        model,
        flow,
        t1=float(reference.times[-1]),
        saveat=reference.times[:-1],
        stop=rule,
        throw=False,
    )
    record = {
        **_described(row, reference),
        "solver": run.stats["solver"],
        "steps": run.stats["num_steps"],
        "accepted_steps": run.stats["num_accepted_steps"],
        "result": str(run.result.code),
        "failed": run.result.failed,
        "message": run.result.message,
        "estimated_error": run.stats.get("estimated_error"),
        "estimated_test_error": run.stats.get("estimated_test_error"),
        "num_solutions": run.stats["num_solutions"],
        "seconds": time.perf_counter() - began,
        **_errors(run, problem, reference),
    }
    return {**record, "verdict": verdict(record)}


def verdict(record: dict[str, Any]) -> str:
    """One of `VERDICTS`: whether a run is within the promise, says that it is not, or neither.

    A run that failed is refused, whatever its error; one that did not is judged where the reference is confirmed.
    """
    if record["failed"]:
        return REFUSED
    if record["reference"] != "confirmed":
        return UNDECIDED
    errors = [record.get(name) for name in ("error_beyond_rounding", "test_output_error", "stop_error")]
    given = [error for error in errors if error is not None]
    within = bool(given) and all(error <= PROMISE for error in given)  # an error that is nan is not within it
    return RIGHT if within else SILENT


def _described(row: Row, reference: Reference) -> dict[str, Any]:
    parts = row.combination
    stated = dataclasses.asdict(row)
    del stated["combination"]
    return {
        "combination": parts.name,
        "shape": parts.shape,
        "loss": parts.loss,
        "flow": parts.flow,
        "activation": parts.activation,
        "network": parts.network,
        **stated,
        "kinks": row.has_kinks,
        "rank_changes": row.has_rank and reference.rank_changes,
        "first_rank": float(reference.ranks[0]),
        "last_rank": float(reference.ranks[-1]),
        "end": float(reference.times[-1]),
        "first_residual": reference.first_residual,
        "last_residual": float(reference.residuals[-1]),
        "floor": float(np.max(reference.floors)),
        "reference": reference.status,
        "reference_method": reference.method,
        "reference_setting": reference.rtol,
        "reference_error": reference.error,
        "reference_test_error": reference.test_error,
        "reference_seconds": reference.seconds,
        "field_difference": reference.field_difference,
    }


def _errors(run: gn.Trajectory, problem: gn.Problem, reference: Reference) -> dict[str, Any]:
    """Of r and of log(L - L*) the worst over the saves, of the test outputs at the end; of the stop rule's time.

    A run that ends `stationary` says that nothing moves any more: its last state stands for all later times.
    """
    times = run.data["time"].values
    stationary = str(run.result.code) == "stationary"
    places = [np.flatnonzero(np.isclose(times, at, rtol=1e-12, atol=0)) for at in reference.times]
    reached = [(k, int(found[0])) for k, found in enumerate(places) if found.size]
    if stationary:
        reached += [(k, len(times) - 1) for k, at in enumerate(reference.times) if at > times[-1]]
    errors: dict[str, Any] = {"saves": len(reached)}
    if reached:
        theirs, ours = (np.asarray(index) for index in zip(*reached, strict=True))
        losses = run.data["train_loss"].values
        excess = np.maximum(losses[ours] - float(problem.loss.minimum(problem.y_train)), 0.0)
        expected = reference.residuals[theirs]
        error = np.abs(np.sqrt(2 * excess) - expected) / expected
        expected_test = np.sqrt(2 * reference.test_losses[theirs])
        test_error = np.abs(np.sqrt(2 * run.data["test_loss"].values[ours]) - expected_test) / expected_test
        with np.errstate(divide="ignore"):
            of_log = np.abs(np.log(2 * excess) - 2 * np.log(expected))
        errors |= {
            "error": float(np.max(error)),
            "error_beyond_rounding": float(
                np.max(np.maximum(error - ROUNDING_ALLOWANCE * reference.floors[theirs], 0.0))
            ),
            "log_loss_error": float(np.max(of_log)),
            "test_residual_error": float(np.max(test_error)),
            "largest_rise": float(np.max(losses) / losses[0]),
        }
    if stationary or np.isclose(times[-1], reference.times[-1], rtol=1e-12, atol=0):
        outputs = np.asarray(jax.vmap(run.model)(problem.x_test)).reshape(reference.first_test_outputs.shape)
        expected = reference.test_outputs[-1]
        errors["test_output_error"] = float(rms(outputs - expected) / rms(expected - reference.first_test_outputs))
    if str(run.result.code) == "stop_rule_met":
        # The loss at the end is what the rule says; how early or late it comes tells the error of log r.
        errors["stop_error"] = float(abs(times[-1] - reference.stop_time) * reference.stop_rate)
    return errors
