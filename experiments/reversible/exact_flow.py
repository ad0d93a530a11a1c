"""Continuous time, where the reversible flow is exact: 24 digits, against dense minimum-norm Gauss-Newton and gradient flow.

Both Gauss-Newton flows have to obey z' = -(p - y), the second on a clock N times slower; the logits of both are compared with
that equation's own solution. Gradient flow is carried to the training loss that they end with. What may differ are the
weights, and with them all that the training logits do not determine.
"""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.special
import studies

import gnflow as gn

NUM_TRAIN = 24
END = 5.0  # of the reversible flow's time
_RTOL = 1e-4
_METRICS = (
    gn.metrics.Accuracy(),
    gn.metrics.KernelDistance(),
    gn.metrics.NTKVelocity(),
    gn.metrics.WeightChange(),
    gn.metrics.LayerAlignment(),
)


def run(seeds: tuple[int, ...], results: Path, bottleneck: int, folder: Path) -> dict[str, Any]:
    """A line for each seed and flow in results/exact_flow.csv; returns what to record.

    Each seed is kept in `folder` when it is finished, and not computed again.
    """
    rows = [row for seed in seeds for row in _kept(seed, bottleneck, folder)]
    with (results / "exact_flow.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return {"n_train": NUM_TRAIN, "bottleneck": bottleneck, "reversible_flow_time": END}


def _kept(seed: int, bottleneck: int, folder: Path) -> list[dict[str, Any]]:
    path = folder / f"h-{bottleneck}-seed-{seed}.json"
    if not path.is_file():
        rows = _of_seed(seed, bottleneck)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _of_seed(seed: int, bottleneck: int) -> list[dict[str, Any]]:
    key = jax.random.key(seed)
    problem = gn.problems.digits(NUM_TRAIN, studies.NUM_TEST, key=key)
    model = gn.models.ReversibleMLP(studies.WIDTH, bottleneck, studies.NUM_BLOCKS, 10, key=key)
    dense = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0))
    runs = {
        name: gn.simulate(
            problem, model, flow, t1=end, saveat=[0.0, end / 2, end], metrics=_METRICS, solver="tsit5", rtol=_RTOL
        )
        for name, flow, end in (
            ("gauss_newton", gn.flows.ReversibleGaussNewtonFlow(), END),
            ("minimum_norm", dense, END * NUM_TRAIN),
        )
    }
    loss = runs["gauss_newton"].data.train_loss
    stop = gn.RelativeLoss(float(loss[-1] / loss[0]))
    runs["gradient"] = gn.simulate(problem, model, gn.flows.GradientFlow(mobility=1.0), stop=stop, metrics=_METRICS)
    solution = _exact_outputs(np.asarray(jax.vmap(model)(problem.x_train)), np.asarray(problem.y_train))
    return [{"seed": seed, "flow": name, **_row(trajectory, solution)} for name, trajectory in runs.items()]


def _row(trajectory: gn.Trajectory, solution: np.ndarray) -> dict[str, Any]:
    outputs = np.asarray(jax.vmap(trajectory.model)(trajectory.problem.x_train))
    end = trajectory.data.isel({trajectory.data.train_loss.dims[0]: -1})
    names = ("train_loss", "test_loss", "test_accuracy", "kernel_distance", "weight_change_norm", "weight_cosine")
    row: dict[str, Any] = {
        "result": str(trajectory.result.code),
        "output_error": float(np.max(np.abs(outputs - solution)) / np.max(np.abs(solution))),
    }
    row |= {name: float(end[name]) for name in names}
    for split in ("train", "test"):
        row[f"layer_cka_{split}"] = float(jnp.min(jnp.asarray(end[f"layer_cka_{split}"].to_numpy())))
    velocities = trajectory.data.ntk_velocity.to_numpy()
    row |= {"ntk_velocity_start": float(velocities[0]), "ntk_velocity_end": float(velocities[-1])}
    row |= {"truncated": bool(trajectory.stats.get("truncated", False))}
    return row


def _exact_outputs(start: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The logits at END by z' = -(p - y), integrated by SciPy; no network is in it."""

    def velocity(_: float, z: np.ndarray) -> np.ndarray:
        return (targets - scipy.special.softmax(z.reshape(start.shape), axis=1)).ravel()

    found = scipy.integrate.solve_ivp(velocity, (0.0, END), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-12)
    return found.y[:, -1].reshape(start.shape)
