"""Runs of equal shape in one vmapped integration against one after the other, and what it could gain for a sweep's cells.

On one core, as one of two workers on a machine of two. Times are CPU seconds of this process, the least of several rounds in
which all ways are taken in turn.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)
from _record import aligned, store  # noqa: E402

from gnflow.config import RunSpec, Specification  # noqa: E402
from gnflow.simulate import _simulate as simulation  # noqa: E402
from gnflow.sweeps import run_cell  # noqa: E402

BATCH = 8
ROUNDS = 7
SIZES = [(5, 10), (10, 50), (20, 50), (50, 200), (200, 1000)]
FLOWS = ("gradient", "gauss_newton")
TARGET = 1e-4
# What a run has compiled, in the module that calls it, and how often it is called: the start is measured, too.
COMPILED = {"integrate": 1, "measure": 2}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    records = [compare(n_train, width, kind, [1.0]) for n_train, width in SIZES for kind in FLOWS]
    records.append(compare(10, 50, "gradient", [0.1, 1.0, 10.0]))
    store("batching", {"batch": BATCH, "rounds": ROUNDS, "target": TARGET, "cases": records})
    columns = ["n_train", "width", "flow", "scales", "alone_ms", "batch_ms", "gain", "cell_ms", "cell_gain"]
    print(aligned(columns, [[record[column] for column in columns] for record in records]))


def compare(n_train: int, width: int, kind: str, scales: list[float]) -> dict[str, Any]:
    """A batch of seeds against the same runs one by one, and what a whole cell (data, run, file) takes."""
    cells = cells_of(n_train, width, kind, scales)
    calls, first_seconds = zip(*[recorded_calls(cell) for cell in cells], strict=True)
    alone = {name: getattr(simulation, name) for name in COMPILED}
    together = {name: eqx.filter_jit(eqx.filter_vmap(alone[name])) for name in COMPILED}
    stacked = {name: stack([call[name] for call in calls]) for name in COMPILED}

    def run_alone(name: str) -> Callable[[], Any]:
        return lambda: [alone[name](*call[name]) for call in calls]

    def run_together(name: str) -> Callable[[], Any]:
        return lambda: together[name](*stacked[name])

    compile_batch = cpu_seconds(run_together("integrate"))
    ways: dict[str, Callable[[], Any]] = {"cell": lambda: [run_cell(cell).record["code"] for cell in cells]}
    for name in COMPILED:
        ways |= {f"{name} alone": run_alone(name), f"{name} together": run_together(name)}
    least = {name: float("inf") for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            seconds = cpu_seconds(way)
            if round_ > 0:  # the first round compiles
                least[name] = min(least[name], 1e3 * seconds / len(cells))
    all_alone, all_together = (
        sum(count * least[f"{name} {how}"] for name, count in COMPILED.items()) for how in ("alone", "together")
    )
    steps = [int(alone["integrate"](*call["integrate"]).stats["num_steps"]) for call in calls]
    record = {
        "n_train": n_train,
        "width": width,
        "flow": kind,
        "scales": "/".join(map(str, scales)),
        "alone_ms": least["integrate alone"],
        "batch_ms": least["integrate together"],
        "gain": least["integrate alone"] / least["integrate together"],
        "cell_ms": least["cell"],
        "cell_gain": least["cell"] / (least["cell"] - all_alone + all_together),
        "compile_alone_seconds": first_seconds[0],
        "compile_batch_seconds": compile_batch,
        "steps": steps,
        "least_ms": least,
    }
    print(json.dumps(record), flush=True)
    jax.clear_caches()
    return record


def cells_of(n_train: int, width: int, kind: str, scales: list[float]) -> list[RunSpec]:
    table = {
        "problem": {"kind": "teacher_student", "n_train": n_train, "n_test": 200},
        "model": {"kind": "mean_field", "width": width},
        "flows": {"flow": {"kind": kind}},
        "stop": {"relative_loss": TARGET},
        "metrics": ["kernel_distance"],
        "seeds": list(range(-(-BATCH // len(scales)))),
        "variants": {f"scale-{scale}": {"model.init_scale": scale} for scale in scales},
    }
    return list(Specification.from_dict(table).runs)[:BATCH]


def recorded_calls(cell: RunSpec) -> tuple[dict[str, tuple[Any, ...]], float]:
    """The arguments with which a run calls its compiled parts, and the CPU seconds of its integration (with compiling)."""
    calls: dict[str, tuple[Any, ...]] = {}
    seconds: dict[str, float] = {}
    originals = {name: getattr(simulation, name) for name in COMPILED}

    def recorder(name: str) -> Callable[..., Any]:
        def record(*arguments: Any) -> Any:
            calls[name] = arguments
            answers: list[Any] = []
            seconds[name] = cpu_seconds(lambda: answers.append(originals[name](*arguments)))
            return answers[0]

        return record

    try:
        for name in COMPILED:
            setattr(simulation, name, recorder(name))
        cell.run()
    finally:
        for name, original in originals.items():
            setattr(simulation, name, original)
    return calls, seconds["integrate"]


def stack(trees: list[Any]) -> Any:
    """One tree whose arrays have a leading dimension, of trees that differ in their arrays' values only."""

    def join(*leaves: Any) -> Any:
        return (
            jax.numpy.asarray(np.stack([np.asarray(leaf) for leaf in leaves])) if eqx.is_array(leaves[0]) else leaves[0]
        )

    return jax.tree.map(join, *trees)


def cpu_seconds(way: Callable[[], Any]) -> float:
    began = time.process_time()
    jax.block_until_ready(way())
    return time.process_time() - began


if __name__ == "__main__":
    main()
