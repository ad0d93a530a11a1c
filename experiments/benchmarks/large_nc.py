"""The exponential solver with a part of the modes: steps and error against the rank, and one run beyond the dense limit."""

import time

import jax

jax.config.update("jax_enable_x64", True)

from _record import aligned, peak_memory_gib, store  # noqa: E402 (after the setting)
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.solvers import Decomposition, ExponentialRungeKutta  # noqa: E402

RANKS = [10, 30, 100, 200, 400]


def main() -> None:
    flow = gn.flows.GradientFlow()
    problem, model, _ = paper_problem(400, 1000)

    def run(problem, model, decomposition, tolerance):
        began = time.perf_counter()
        solver = ExponentialRungeKutta(decomposition)
        stop = gn.RelativeLoss(tolerance)
        trajectory = gn.simulate(
            problem, model, flow, stop=stop, solver=solver, saveat=[1.0], max_steps=2000, throw=False
        )
        stats = trajectory.stats
        return {
            "n_train": problem.num_train,
            "rank": stats["linearisation_rank"],
            "result": str(trajectory.result.code),
            "steps": stats["num_accepted_steps"],
            "seconds": time.perf_counter() - began,
            "test_loss": float(trajectory.data.test_loss[-1]),
            "ritz_residual": stats.get("final_linearisation_residual", 0.0),
            "fastest_rate_left_out": stats.get("final_fastest_rate_left_out", 0.0),
        }

    rows = [run(problem, model, Decomposition(dense_limit=0, rank=rank), 1e-4) for rank in RANKS]
    # Beyond the dense limit: what the default does by itself.
    rows.append(run(*paper_problem(6000, 500)[:2], Decomposition(), 1e-2))
    dense_gib = 8 * 6000**2 / 2**30
    store("large_nc", {"rows": rows, "one_dense_matrix_gib": dense_gib, "peak_gib": peak_memory_gib()})
    print(aligned(list(rows[0]), [list(row.values()) for row in rows]))
    print(
        f"peak {peak_memory_gib():.2f} GiB; one dense 6000 x 6000 matrix is {dense_gib:.2f} GiB, a dense step takes about six"
    )


if __name__ == "__main__":
    main()
