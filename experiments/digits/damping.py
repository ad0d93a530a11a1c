"""From which damping on is Gauss-Newton flow gradient flow, on handwritten digits with the softmax cross-entropy?

    python experiments/digits/damping.py

The problem and the network of classification.toml with half of its samples (N = 30, ten classes, M = 200, tau0 = 1, Hessian
metric), for each of three seeds and six constants eps: Gauss-Newton flow to a relative training loss of 1e-2, and gradient flow
with mobility 1/eps for the same time. Writes results/damping.csv (a line for each run), results/damping.json (command,
environment) and the table of docs/choosing.md, between its marks: medians over the seeds with their range.
"""

import json
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "benchmarks")]

import _record  # noqa: E402 (after the setting)
import jax.numpy as jnp  # noqa: E402
import pages  # noqa: E402
import pandas as pd  # noqa: E402

import gnflow as gn  # noqa: E402

SEEDS = (0, 1, 2)
DAMPINGS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
COLUMNS = {
    "lam_over_eps": "lam_max/eps at the start",
    "largest": "largest distance",
    "final": "final distance",
    "test_outputs": "test outputs apart at the end",
    "test_loss": "test loss, Gauss-Newton",
    "test_loss_gradient": "test loss, gradient flow",
}


def largest_eigenvalue(problem: gn.Problem, model: gn.models.MeanFieldNetwork) -> float:
    """lam_max of H A for the Hessian H of the loss."""
    system = gn.System(problem, model)
    tangent = system.tangent(system.weights(model))
    factor = problem.loss.hessian_factor(tangent.outputs, problem.y_train)
    return float(gn.directions.dense_modes(tangent, factor).eigenvalues[-1])


def compared(seed: int, eps: float) -> dict[str, float | int | str]:
    """One damping: the numbers of both flows at the same time."""
    problem = gn.problems.digits(n_train=30, n_test=500, task="classification", key=jax.random.key(seed))
    model = gn.models.MeanFieldNetwork(64, 200, 10, init_scale=1.0, key=jax.random.key(100 + seed))
    newton = gn.flows.GaussNewtonFlow("hessian", damping=gn.damping.Constant(eps))
    damped = gn.simulate(problem, model, newton, stop=gn.RelativeLoss(1e-2))
    end = float(damped.data.time[-1])
    gradient = gn.simulate(problem, model, gn.flows.GradientFlow(1 / eps), t1=end, stop=None)
    first = jax.vmap(model)(problem.x_test)
    ours, theirs = (run.predict(problem.x_test) for run in (damped, gradient))
    return {
        "seed": seed,
        "eps": eps,
        "time": end,
        "lam_over_eps": largest_eigenvalue(problem, model) / eps,
        "lam_over_eps_at_end": largest_eigenvalue(problem, damped.model) / eps,
        "largest": damped.stats["largest_distance_to_gradient_flow"],
        "final": damped.stats["final_distance_to_gradient_flow"],
        "test_outputs": float(jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs - first)),
        "train_loss": float(damped.data.train_loss[-1]),
        "train_loss_gradient": float(gradient.data.train_loss[-1]),
        "test_loss": float(damped.data.test_loss[-1]),
        "test_loss_gradient": float(gradient.data.test_loss[-1]),
        "seconds": damped.stats["wall_seconds"] - damped.stats["compile_seconds"],
        "solver": damped.stats["solver"],
    }


def main() -> None:
    rows = []
    for seed in SEEDS:
        for eps in DAMPINGS:
            rows.append(compared(seed, eps))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    table.to_csv(results / "damping.csv", index=False, float_format="%.6g")
    record = {"command": "python experiments/digits/damping.py", "environment": _record.environment()}
    (results / "damping.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        [f"{eps:g}", *(pages.over_seeds(chosen[column]) for column in COLUMNS)] for eps, chosen in table.groupby("eps")
    ]
    text = pages.markdown_table(["eps", *COLUMNS.values()], lines)
    pages.insert(HERE.parents[1] / "docs" / "choosing.md", "damping", text)


if __name__ == "__main__":
    main()
