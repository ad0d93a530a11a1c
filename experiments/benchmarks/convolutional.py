"""Flows of convolutional networks to a tenth of their loss, each in a fresh process with everything to compile.

`convolutional.py [--only WORD]` runs the cases whose names have WORD in them and keeps the other rows.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402 (after the setting)
import jax.numpy as jnp  # noqa: E402
import jax.random as jr  # noqa: E402
from _record import RESULTS, aligned, peak_memory_gib, store  # noqa: E402

import gnflow as gn  # noqa: E402

KEY = jr.key(20230206)
TARGET = 0.1
NUM_TRAIN, NUM_TEST = 100, 200

_ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "GELU": jax.nn.gelu, "ReLU": jax.nn.relu}
_POOLINGS: dict[str, Callable] = {"average": eqx.nn.AvgPool2d, "maximum": eqx.nn.MaxPool2d}
_FLOWS: dict[str, Callable] = {
    "gradient": gn.flows.GradientFlow,
    "Gauss-Newton": lambda: gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(1e-4)),
}


class Network(eqx.Module):
    """Two convolutions of 3 x 3 pixels, each with an activation and a pooling of 2 x 2 pixels, and a linear layer."""

    layers: tuple[eqx.nn.Conv2d, ...]
    last: eqx.nn.Linear
    activation: Callable = eqx.field(static=True)
    pooling: Callable = eqx.field(static=True)
    side: int = eqx.field(static=True)

    def __init__(self, side: int, channels: int, activation: str, pooling: str, *, key: jax.Array):
        first, second, last = jr.split(key, 3)
        self.layers = (
            eqx.nn.Conv2d(1, channels, 3, padding=1, key=first),
            eqx.nn.Conv2d(channels, 2 * channels, 3, padding=1, key=second),
        )
        self.last = eqx.nn.Linear(2 * channels * (side // 4) ** 2, 10, key=last)
        self.activation, self.pooling, self.side = _ACTIVATIONS[activation], _POOLINGS[pooling], side

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs (C,) of one image (d,)."""
        hidden = x.reshape(1, self.side, self.side)
        for layer in self.layers:
            hidden = self.pooling(2, 2)(self.activation(layer(hidden)))
        return self.last(hidden.reshape(-1))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with `channels` and twice as many, on digits of `side` x `side` pixels."""

    activation: str
    pooling: str
    channels: int
    side: int
    loss: str
    flow: str = "gradient"

    @property
    def name(self) -> str:
        """In words."""
        size = f"{self.side} x {self.side}, {self.channels} channels"
        return f"{self.flow}, {self.activation}, {self.pooling}, {size}, {self.loss}"


CASES = (
    Case("ReLU", "maximum", 8, 8, "softmax"),
    Case("GELU", "average", 8, 8, "squared"),
    Case("tanh", "average", 8, 8, "softmax"),
    Case("ReLU", "maximum", 8, 8, "squared"),
    Case("GELU", "average", 16, 8, "softmax"),
    Case("tanh", "maximum", 4, 8, "softmax"),
    Case("ReLU", "average", 4, 8, "squared"),
    Case("GELU", "average", 8, 16, "softmax"),
    Case("tanh", "average", 8, 8, "softmax", "Gauss-Newton"),
    Case("ReLU", "maximum", 16, 8, "softmax"),
    Case("ReLU", "maximum", 8, 16, "softmax"),
    Case("tanh", "average", 8, 8, "squared", "Gauss-Newton"),
    Case("GELU", "average", 16, 8, "squared"),
)


def main(only: str) -> None:
    stored = RESULTS / "convolutional.json"
    rows = json.loads(stored.read_text())["rows"] if only and stored.exists() else []
    names = [case.name for case in CASES]
    for name in names:
        if only not in name:
            continue
        done = subprocess.run([sys.executable, str(Path(__file__)), "--case", name], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        row = json.loads(done.stdout.splitlines()[-1])
        print(row, flush=True)
        rows = [*(other for other in rows if other["case"] != name), row]
        rows.sort(key=lambda row: names.index(row["case"]))
        store("convolutional", {"rows": rows})
    header = ["network", "processor [s]", "clock [s]", "compiling", "solver", "steps", "velocities", "solutions"]
    keys = ("case", "processor_seconds", "seconds", "compile_seconds", "solver", "steps", "velocities", "solutions")
    print(aligned(header, [[row[key] for key in keys] for row in rows]))


def run_case(name: str, solver: str) -> None:
    case = next(case for case in CASES if case.name == name)
    problem = problem_of(case)
    model = Network(case.side, case.channels, case.activation, case.pooling, key=KEY)
    began, processor = time.perf_counter(), time.process_time()
    trajectory = gn.simulate(
        problem, model, _FLOWS[case.flow](), stop=gn.RelativeLoss(TARGET), solver=solver, throw=False
    )
    stats = trajectory.stats
    row = {
        "case": name,
        "num_weights": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))),
        "result": str(trajectory.result.code),
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
        "compile_seconds": stats["compile_seconds"],
        "solver": stats["solver"],
        "reason": stats["solver_reason"],
        "steps": stats["num_steps"],
        "rejected": stats["num_rejected_steps"],
        "velocities": stats.get("num_velocity_evaluations"),
        "solutions": stats["num_solutions"],
        "estimated_error": stats["estimated_error"],
        "load_average": round(os.getloadavg()[0], 1),
        "peak_gib": peak_memory_gib(),
    }
    print(json.dumps(row))


def problem_of(case: Case) -> gn.Problem:
    """Digits, scaled up to the case's size by linear interpolation."""
    task = "classification" if case.loss == "softmax" else "regression"
    digits = gn.problems.digits(NUM_TRAIN, NUM_TEST, key=KEY, task=task)
    if case.side == 8:
        return digits
    train, test = (_scaled(x, case.side) for x in (digits.x_train, digits.x_test))
    return gn.Problem(train, digits.y_train, test, digits.y_test, loss=digits.loss)


def _scaled(images: jax.Array, side: int) -> jax.Array:
    count = len(images)
    return jax.image.resize(images.reshape(count, 8, 8), (count, side, side), "linear").reshape(count, -1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--case", default="")
    parser.add_argument("--solver", default="auto")
    given = parser.parse_args()
    run_case(given.case, given.solver) if given.case else main(given.only)
