"""Gauss-Newton flow to a relative loss of 1e-8 at the paper's size, compilation included."""

import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

from _record import peak_memory_gib, store, table  # noqa: E402 (after the setting)
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402


def main(n_train: int) -> None:
    problem, model, flow = paper_problem(n_train)
    began = time.perf_counter()
    trajectory = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-8), throw=False)
    seconds = time.perf_counter() - began
    data = trajectory.data
    numbers = {
        "n_train": n_train,
        "width": 5000,
        "result": str(trajectory.result),
        "seconds_compilation_included": seconds,
        "peak_gib": peak_memory_gib(),
        "stats": trajectory.stats,
        "relative_loss": float(data.train_loss[-1] / data.train_loss[0]),
        "test_loss": float(data.test_loss[-1]),
    }
    store("paper_size" if n_train == 500 else f"paper_size_{n_train}", numbers)
    print(
        table(
            [
                ("N", f"{n_train}"),
                ("result", trajectory.result.code),
                ("wall time, compilation included [s]", f"{seconds:.1f}"),
                ("accepted steps", f"{trajectory.stats['num_accepted_steps']}"),
                ("velocity evaluations", f"{trajectory.stats['num_velocity_evaluations']}"),
                ("peak memory [GiB]", f"{numbers['peak_gib']:.2f}"),
                ("test loss", f"{numbers['test_loss']:.4e}"),
            ]
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
