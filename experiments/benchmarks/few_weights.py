"""Fewer weights than noisy targets: steps until the run stands still, with the low-rank and the whole Jacobian."""

import time

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)
from _record import aligned, store  # noqa: E402

import gnflow as gn  # noqa: E402

FLOWS = {
    "gradient": gn.flows.GradientFlow(),
    "gauss_newton": gn.flows.GaussNewtonFlow(),
    "spectral": gn.flows.SpectralFlow(0.5),
}
SOLVERS = ("exponential", "exponential_rosenbrock")


def main() -> None:
    rows = []
    for name, flow in FLOWS.items():
        for seed in range(3):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal((40, 3))
            problem = gn.Problem(x, np.sin(x[:, 0]) + x[:, 1] + 0.3 * rng.standard_normal(40))
            for model_seed in range(3):
                model = gn.models.MeanFieldNetwork(input_dim=3, width=4, key=jax.random.key(model_seed))
                row = {"flow": name, "problem": seed, "model": model_seed}
                for solver in SOLVERS:
                    began = time.perf_counter()
                    run = gn.simulate(problem, model, flow, solver=solver, max_steps=3000, throw=False)
                    row |= {
                        f"{solver}_result": str(run.result.code),
                        f"{solver}_steps": run.stats["num_steps"],
                        f"{solver}_solutions": run.stats["num_solutions"],
                        f"{solver}_loss": float(run.data.train_loss[-1]),
                        f"{solver}_seconds": time.perf_counter() - began,
                    }
                rows.append(row)
    store("few_weights", {"rows": rows})
    print(aligned(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
