"""What holds the error of a whole run: one step's tolerance, the same per unit of log time, or what `simulate` does.

Twelve samples whose inputs are scaled, along gradient and Gauss-Newton flow. The first two are single integrations at the
default tolerance; errors are relative, of the training residual, the worst over the saves, against a solution at rtol 1e-8.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
from _record import aligned, store  # noqa: E402
from error_pages import PAGE, insert, markdown_table  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import _accuracy, _controller, _integrate, _segments, _solution  # noqa: E402
from gnflow.simulate._accuracy import DEFAULT_RTOL  # noqa: E402
from gnflow.simulate._arguments import DEFAULT_ATOL  # noqa: E402

_INPUTS = np.random.default_rng(0).standard_normal((12, 3))
_TARGETS = np.sin(_INPUTS[:, 0]) + _INPUTS[:, 1]
_SCALES = {
    "1": _INPUTS,
    "10": 10 * _INPUTS,
    "100": 100 * _INPUTS,
    "1e-3": 1e-3 * _INPUTS,
    "1e-4": 1e-4 * _INPUTS,
    "column of 100": np.c_[_INPUTS[:, :2], np.full(12, 1e2)],
    "columns 0.01, 1, 100": _INPUTS * np.array([1e-2, 1, 1e2]),
}
_FLOWS = {"Gauss-Newton": (gn.flows.GaussNewtonFlow(), 60.0), "gradient": (gn.flows.GradientFlow(), 300.0)}
_MAX_STEPS = 16384


class Scaled(_controller.AbstractErrorNorm):
    """An error norm times a number."""

    inner: _controller.AbstractErrorNorm
    factor: Any

    def scaled_error(self, change, system, tolerated):
        """The inner norm's times the factor."""
        return self.factor * self.inner.scaled_error(change, system, tolerated)


class PerUnit(_controller.ResidualController):
    """The tolerance of a step times the share of a unit of log time that it takes, where that is below one."""

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, controller_state):
        """As for one step, with an error divided by min(1, h/t)."""
        factor = jnp.maximum(t1 / (t1 - t0), 1.0)
        judge = dataclasses.replace(self, error_norm=Scaled(self.error_norm, factor))
        return _controller.ResidualController.adapt_step_size(
            judge, t0, t1, y0, y1, args, y_error, error_order, controller_state
        )


def run(inputs: np.ndarray, flow: Any, t1: float, scale: float, how: str, times: np.ndarray | None = None) -> Any:
    """One run, by `how`: "step", "unit", "simulate" or "reference"."""
    model = gn.models.MeanFieldNetwork(input_dim=3, width=30, init_scale=scale, key=jax.random.key(0))
    settings: dict[str, Any] = {} if times is None else {"saveat": times}
    if how == "reference":
        settings |= {"rtol": 1e-8, "max_steps": 400000}
    kept = _accuracy.promised_accuracy, _solution.ResidualController, _integrate.advance
    if how != "simulate":
        _accuracy.promised_accuracy = lambda rtol: np.inf  # one integration, whatever it is worth
    if how == "unit":
        _solution.ResidualController = PerUnit
        _integrate.advance = _PER_UNIT
    try:
        problem = gn.Problem(inputs, _TARGETS)
        return gn.simulate(problem, model, flow, t1=t1, stop=None, throw=False, **{"max_steps": _MAX_STEPS, **settings})
    finally:
        _accuracy.promised_accuracy, _solution.ResidualController, _integrate.advance = kept


_PER_UNIT = eqx.filter_jit(_segments.advance.__wrapped__)


def main() -> None:
    """Run, print, store."""
    rows, records = [], []
    for name, (flow, t1) in _FLOWS.items():
        for label, inputs in _SCALES.items():
            for scale in (1.0, 0.1):
                runs = {how: run(inputs, flow, t1, scale, how) for how in ("step", "unit", "simulate")}
                times = runs["step"].data.time.values[1:-1]
                truth = run(inputs, flow, t1, scale, "reference", times)
                known = not truth.result.failed
                record = {"flow": name, "inputs": label, "init_scale": scale, "reference": known}
                row: list[Any] = [name, label, scale]
                for how, found in runs.items():
                    error = _error(found, truth) if known else float("nan")
                    stats = found.stats
                    record[how] = {
                        "steps": stats["num_steps"],
                        "error": error,
                        "estimated_error": stats["estimated_error"],
                        "num_solutions": stats.get("num_solutions", 0),
                        "result": str(found.result.code),
                    }
                    row += [stats["num_steps"], error]
                row += [runs["simulate"].stats["estimated_error"], str(runs["simulate"].result.code)]
                records.append(record)
                rows.append(row)
                print(*(f"{cell:.2e}" if isinstance(cell, float) else cell for cell in row), flush=True)
    header = ["flow", "inputs", "tau0", "step", "error", "unit", "error", "simulate", "error", "estimate", "result"]
    store("error_control", {"rows": records})
    heads = ["flow", "inputs times", "tau0", "per step", "per unit of log time", "`simulate`", "estimated"]
    insert(PAGE, "error_control", markdown_table(heads, [_cells(record) for record in records]))
    print(aligned(header, rows))


def _cells(record: dict[str, Any]) -> list[str]:
    """A row of the page: steps, and the error behind a comma."""
    cells = [record["flow"], record["inputs"], f"{record['init_scale']:g}"]
    for how in ("step", "unit", "simulate"):
        found = record[how]
        end = {"time_reached": ""}.get(found["result"], f" ({found['result']})")
        cells.append(f"{found['steps']}, {found['error']:.1e}{end}")
    return [*cells, f"{record['simulate']['estimated_error']:.1e}"]


def _error(found: Any, truth: Any) -> float:
    """The largest relative error of r over the times that both saved; infinite where the run did not get to its end.

    Relative to r and what atol leaves of it, as the promise is: far below that all is rounding.
    """
    _, here, there = np.intersect1d(found.data.time.values, truth.data.time.values, return_indices=True)
    if found.data.time.values[-1] < truth.data.time.values[-1]:
        return float("inf")
    ours, theirs = (
        np.sqrt(2 * losses) for losses in (found.data.train_loss.values[here], truth.data.train_loss.values[there])
    )
    return float(np.max(np.abs(ours - theirs) / (theirs + DEFAULT_ATOL / DEFAULT_RTOL)))


if __name__ == "__main__":
    main()
