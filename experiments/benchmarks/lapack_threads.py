"""What LAPACK's idle threads cost: a Gauss-Newton velocity with OpenBLAS's own waiting time and with gnflow's, in turns."""

import os
import statistics
import subprocess
import sys
import time

from _record import store, table

_REPEATS, _VELOCITIES = 3, 20
_DEFAULT = "26"  # OpenBLAS's: threads spin for 2^26 cycles
_NAMES = {"OpenBLAS's default": _DEFAULT, "gnflow's": None}


def velocities() -> None:
    """Prints the wall time and the processor time of one velocity, medians and means of many."""
    import equinox as eqx
    import jax

    jax.config.update("jax_enable_x64", True)
    from paper_problem import paper_problem

    problem, model, flow = paper_problem(500, 5000)
    # Away from v = 0, where half of the Gram matrix would vanish.
    model = eqx.tree_at(lambda m: m.output_weight, model, jax.random.normal(jax.random.key(1), (5000, 1)))
    system = flow.system(problem, model)
    weights = system.weights(model)
    velocity = eqx.filter_jit(lambda w: flow.velocity(0.0, w, system))
    jax.block_until_ready(velocity(weights))
    walls = []
    began = time.process_time()
    for _ in range(_VELOCITIES):
        start = time.perf_counter()
        jax.block_until_ready(velocity(weights))
        walls.append(time.perf_counter() - start)
    print(statistics.median(walls), (time.process_time() - began) / _VELOCITIES)


def main() -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _NAMES}
    for _ in range(_REPEATS):
        for name, timeout in _NAMES.items():
            environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_THREAD_TIMEOUT"}
            if timeout is not None:
                environment["OPENBLAS_THREAD_TIMEOUT"] = timeout
            command = [sys.executable, __file__, "velocities"]
            printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            wall, processor = map(float, printed.split())
            found[name].append((wall, processor))
    medians = {
        name: {
            "wall_seconds": statistics.median(wall for wall, _ in pairs),
            "processor_seconds": statistics.median(processor for _, processor in pairs),
        }
        for name, pairs in found.items()
    }
    store("lapack_threads", {"n_train": 500, "width": 5000, "one_velocity": medians, "all": found})
    print(
        table(
            [
                (f"{name}, {what.replace('_', ' ')}", f"{seconds:.3f}")
                for name, numbers in medians.items()
                for what, seconds in numbers.items()
            ]
        )
    )


if __name__ == "__main__":
    velocities() if sys.argv[1:] == ["velocities"] else main()
