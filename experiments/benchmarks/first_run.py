"""The first run of a process: cold, with an empty cache of compiled programs, and in the next process; and a second run.

Processor seconds (and wall seconds) of `simulate` alone in fresh processes, after the imports, the least of several in turns.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _record import store, table

_REPEATS = 2
_SCRIPT = """
import json, sys, time
import jax
jax.config.update("jax_enable_x64", True)
import gnflow as gn
key = jax.random.key(0)
kind, folder = sys.argv[1:]
if folder:
    gn.compilation_cache(folder)
if kind == "softmax":
    problem = gn.problems.digits(n_train=30, n_test=30, key=key)
    model = gn.models.MLP(input_dim=64, width=64, depth=2, output_dim=10, activation="tanh", key=key)
    flow, stop = gn.flows.GradientFlow(), gn.RelativeLoss(0.3)
else:
    problem = gn.problems.teacher_student(n_train=50, n_test=500, input_dim=10, teacher_width=4, key=key)
    model = gn.models.MeanFieldNetwork(input_dim=10, width=200, key=key)
    flows = {"gauss-newton": gn.flows.GaussNewtonFlow, "gradient": gn.flows.GradientFlow}
    flow, stop = flows[kind](), gn.RelativeLoss(1e-4)
taken = []
for _ in range(2):
    cpu, wall = time.process_time(), time.perf_counter()
    gn.simulate(problem, model, flow, stop=stop)
    taken.append([time.process_time() - cpu, time.perf_counter() - wall])
print(json.dumps(taken))
"""
KINDS = ("gauss-newton", "gradient", "softmax")


def taken(kind: str, folder: str) -> list[list[float]]:
    """Processor and wall seconds of the first and the second run of a process."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", _SCRIPT, kind, folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    times: dict[str, list[list[float]]] = {}
    for _ in range(_REPEATS):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                cold, warm = taken(kind, "")
                filling, _ = taken(kind, str(Path(folder)))
                stored, _ = taken(kind, str(Path(folder)))
            for name, one in (("no cache", cold), ("empty cache", filling), ("next process", stored), ("again", warm)):
                times.setdefault(f"{kind}, {name}", []).append(one)
    least = {name: min(several) for name, several in times.items()}
    store("first_run", {"repeats": _REPEATS, "cpu_and_wall_seconds": least, "all": times})
    print(table([(f"{name}: processor, wall [s]", f"{cpu:.2f}, {wall:.2f}") for name, (cpu, wall) in least.items()]))


if __name__ == "__main__":
    main()
