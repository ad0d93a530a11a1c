"""What a sweep costs beside its cells: store, engine, processes, and coming back to a finished one.

Measured in one run, each part against its counterpart in the same minutes:

- overhead: wall time of a sweep in one process beside the sum of what its cells took, with their programs compiled;
- throughput: cells a second of two processes against one worker process with one thread, both warm;
- memory: what a process needed at its peak for cells of several sizes against `estimated_memory_gib`;
- resuming: `gnflow.sweep` on a finished sweep of 10,000 cells, copied from one tiny cell, until it returns its data set.

`--smoke` runs all of it at sizes that say nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from _record import aligned, store, table

TARGET = {"overhead": 0.05, "speedup": 1.6, "resume_seconds": 5.0}


def sweep_table(n_train: int, width: int, scales: list[float], seeds: int) -> dict[str, Any]:
    return {
        "problem": {"kind": "teacher_student", "n_train": n_train, "n_test": 500, "input_dim": 10},
        "model": {"kind": "mean_field", "width": width},
        "flows": {
            "gradient_flow": {"kind": "gradient"},
            "gauss_newton": {"kind": "gauss_newton", "damping": {"kind": "smallest_eigenvalue", "floor": 1e-7}},
        },
        "metrics": ["kernel_distance"],
        "stop": {"relative_loss": 1e-4},
        "axes": {"tau0": {"path": "model.init_scale", "values": scales}},
        "seeds": list(range(seeds)),
    }


def overhead(folder: Path, spec: Any) -> dict[str, float]:
    """Store and engine in this process. The first pass compiles; the second is measured."""
    import gnflow as gn

    engine = gn.sweeps.LocalEngine(workers=1)
    gn.sweep(spec, folder / "warm", engine=engine)
    began = time.perf_counter()
    data = gn.sweep(spec, folder / "measured", engine=engine)
    wall = time.perf_counter() - began
    compute = float(data["wall_seconds"].sum())
    return {"cells": len(spec.cells), "wall_seconds": wall, "compute_seconds": compute, "overhead": wall / compute - 1}


def throughput(folder: Path, spec: Any, extra: Any, workers: int) -> float:
    """Cells a second of `workers` processes of one thread, from the time when each has done a cell of every kind."""
    from multiprocessing.connection import wait

    import gnflow as gn
    from gnflow.sweeps._environment import worker_environment
    from gnflow.sweeps._task import tasks_of
    from gnflow.sweeps._worker_process import WorkerProcess

    environment = worker_environment(1, folder / "programs")
    processes = [WorkerProcess(environment) for _ in range(workers)]
    sweep_store = gn.sweeps.SweepStore(folder / f"workers-{workers}")
    sweep_store.begin(spec)
    try:
        for process in processes:
            process.receive()
            for task in tasks_of(extra.cells):
                process.start(task)
                process.receive()
        waiting = tasks_of(spec.cells)
        began = time.perf_counter()
        for process in processes:
            process.start(waiting.pop(0))
        done = 0
        while done < len(spec.cells):
            busy = {process.fileno(): process for process in processes if process.task is not None}
            for number in wait(list(busy)):
                outcome = busy[number].receive()
                assert outcome is not None
                if waiting:
                    busy[number].start(waiting.pop(0))
                sweep_store.put(outcome)
                done += 1
        return done / (time.perf_counter() - began)
    finally:
        for process in processes:
            process.close()


_PEAK = """
import json, resource, sys
import jax
jax.config.update("jax_enable_x64", True)
import gnflow as gn
from gnflow.sweeps._memory import estimated_memory_gib
spec = gn.config.Specification.from_dict(json.loads(sys.argv[1]))
peaks = []
for cell in spec.cells:
    outcome = gn.sweeps.run_cell(cell)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"flow": cell.flow_name, "estimated": estimated_memory_gib(cell), "peak": peak,
                      "code": outcome.record["code"]}), flush=True)
"""


def memory(sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Peak memory of processes that carry out one cell, beside a process whose cell is tiny, and the estimate."""
    rows = []
    for flow in ("gradient_flow", "gauss_newton"):
        for n_train, width in [(5, 5), *sizes]:
            whole = sweep_table(n_train, width, [1.0], 1)
            whole["flows"] = {flow: whole["flows"][flow]}
            whole["integration"] = {"max_steps": 5}
            done = subprocess.run(
                [sys.executable, "-c", _PEAK, json.dumps(whole)], check=True, capture_output=True, text=True
            )
            rows.append({"n_train": n_train, "width": width, **json.loads(done.stdout)})
    base = {row["flow"]: row["peak"] for row in rows if row["width"] == 5}
    return [{**row, "measured": row["peak"] - base[row["flow"]]} for row in rows if row["width"] != 5]


def resuming(folder: Path, cells: int) -> dict[str, float]:
    """A finished sweep of copies of one outcome; the time until the sweep's data set is there again."""
    import dataclasses

    import gnflow as gn
    from gnflow.sweeps._cell import outcome_of

    whole = sweep_table(5, 5, [1.0], 1)
    whole["flows"] = {"gradient_flow": whole["flows"]["gradient_flow"]}
    whole |= {"integration": {"method": "iterate", "step_size": 0.1, "num_steps": 2}, "metrics": []}
    whole.pop("stop")
    template = gn.config.Specification.from_dict(whole).cells[0].run()
    seeds = cells // 100
    whole["axes"]["tau0"] = {"path": "model.init_scale", "linspace": [0.1, 10.0, 100]}
    whole["seeds"] = list(range(seeds))
    spec = gn.config.Specification.from_dict(whole)
    sweep_store = gn.sweeps.SweepStore(folder)
    sweep_store.begin(spec)
    began = time.perf_counter()
    for cell in spec.cells:
        sweep_store.put(outcome_of(cell, dataclasses.replace(template)))
    written = time.perf_counter() - began
    began = time.perf_counter()
    again = gn.config.Specification.from_dict(whole)
    expanded = time.perf_counter() - began
    data = gn.sweep(again, folder)
    taken = time.perf_counter() - began
    assert not bool((data["result"] == "missing").any())
    return {
        "cells": len(spec.cells),
        "put_milliseconds_each": 1e3 * written / len(spec.cells),
        "expand_seconds": expanded,
        "resume_seconds": taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    jax.config.update("jax_enable_x64", True)
    import gnflow as gn

    n_train, width, scales, seeds = (10, 20, [1.0], 2) if smoke else (200, 1000, [0.1, 1.0, 10.0], 4)
    spec = gn.config.Specification.from_dict(sweep_table(n_train, width, scales, seeds))
    warm = gn.config.Specification.from_dict(sweep_table(n_train, width, [0.5], 1))
    sizes = [(50, 200)] if smoke else [(200, 1000), (500, 5000), (1000, 2000), (2000, 5000)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        costs = overhead(folder / "overhead", spec)
        rates = {str(workers): throughput(folder / "throughput", spec, warm, workers) for workers in (1, 2)}
        peaks = memory(sizes)
        back = resuming(folder / "resume", 200 if smoke else 10_000)
    speedup = rates["2"] / rates["1"]
    print(
        table(
            [
                ("overhead of store and engine", f"{100 * costs['overhead']:.2f} %"),
                ("throughput, 2 processes against 1", f"{speedup:.2f} x"),
                (f"resuming {back['cells']} finished cells", f"{back['resume_seconds']:.2f} s"),
                ("of it expanding the sweep", f"{back['expand_seconds']:.2f} s"),
                ("putting a cell into the store", f"{back['put_milliseconds_each']:.2f} ms"),
            ]
        )
    )
    columns = ["flow", "n_train", "width", "measured", "estimated"]
    print("\n" + aligned(columns, [[row[name] for name in columns] for row in peaks]))
    if not smoke:
        store(
            "sweep_engine",
            {
                "targets": TARGET,
                "size": {"n_train": n_train, "width": width, "cells": len(spec.cells)},
                "overhead": costs,
                "cells_per_second": rates,
                "speedup": speedup,
                "resume": back,
                "memory_gib": peaks,
            },
        )


if __name__ == "__main__":
    main()
