"""Gradient flow of convolutional networks to a tenth of their loss, each in a fresh process with everything to compile."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402 (after the setting)
import jax.random as jr  # noqa: E402
from _record import RESULTS, aligned, peak_memory_gib, store  # noqa: E402
from jacobian_rows import WiderCNN  # noqa: E402

import gnflow as gn  # noqa: E402

KEY = jr.key(20230206)
TARGET = 0.1


class KinkedCNN(WiderCNN):
    """The same with ReLU and maximum pooling."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs (C,) of one image (d,)."""
        hidden = x.reshape(1, self.side, self.side)
        for layer in self.layers:
            hidden = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(layer(hidden)))
        return self.last(hidden.reshape(-1))


# (kind, channels, loss)
CASES = {
    "SiLU, 8 and 16 channels, softmax": (WiderCNN, 8, "classification"),
    "SiLU, 8 and 16 channels, squared": (WiderCNN, 8, "regression"),
    "SiLU, 16 and 32 channels, softmax": (WiderCNN, 16, "classification"),
    "ReLU, 8 and 16 channels, softmax": (KinkedCNN, 8, "classification"),
}


def main() -> None:
    stored = RESULTS / "convolutional.json"
    rows = json.loads(stored.read_text())["rows"] if stored.exists() else []
    for name in CASES:
        done = subprocess.run([sys.executable, str(Path(__file__)), "--case", name], capture_output=True, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(row, flush=True)
        rows = [*(other for other in rows if other["case"] != name), row]
        store("convolutional", {"rows": rows})
    header = ["network", "seconds", "of the processor", "compiling", "solver", "steps", "velocities", "solutions"]
    keys = ("case", "seconds", "processor_seconds", "compile_seconds", "solver", "steps", "velocities", "solutions")
    print(aligned(header, [[row[key] for key in keys] for row in rows]))


def run_case(name: str) -> None:
    kind, channels, task = CASES[name]
    problem = gn.problems.digits(n_train=100, n_test=200, key=KEY, task=task)
    model = kind(8, channels, key=KEY)
    began, processor = time.perf_counter(), time.process_time()
    trajectory = gn.simulate(problem, model, gn.flows.GradientFlow(), stop=gn.RelativeLoss(TARGET), throw=False)
    stats = trajectory.stats
    row = {
        "case": name,
        "num_weights": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))),
        "result": str(trajectory.result.code),
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
        "compile_seconds": stats["compile_seconds"],
        "solver": stats["solver"],
        "steps": stats["num_steps"],
        "velocities": stats["num_velocity_evaluations"],
        "solutions": stats["num_solutions"],
        "peak_gib": peak_memory_gib(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", default="")
    given = parser.parse_args()
    run_case(given.case) if given.case else main()
