"""Runs as they are, over activations, losses, flows, dampings and seeds: what `verify` says of them. None may be violated.

    python experiments/benchmarks/honest_runs.py [--seeds K] [--again] [NAME ...]

Without arguments all 400 runs; combinations that are stored already are not run again unless --again. With names or --seeds
only those are run, and printed but not stored. The exit code is 1 if anything is violated.
"""

import argparse
import collections
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.random as jr  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402

import gnflow as gn  # noqa: E402

N, TEST, DIM, WIDTH, CLASSES, SEEDS = 8, 4, 3, 60, 3, 15
UNDAMPED, HESSIAN = gn.damping.Constant(0.0), "hessian"
GRADIENT, GAUSS_NEWTON = gn.flows.GradientFlow, gn.flows.GaussNewtonFlow
RESULTS = Path(__file__).parent / "results" / "honest_runs.json"


@dataclasses.dataclass(frozen=True)
class Combination:
    """What is run with every seed. Shapes are shared, since each one is compiled anew.

    **Attributes:** `model`: of a key; `target`: of the loss, relative to its start; `t1`: where the run ends at the latest.
    """

    flow: Any
    model: Callable[[Any], Any]
    loss: Any = dataclasses.field(default_factory=gn.losses.SquaredLoss)
    target: float = 1e-4
    t1: float | None = None
    seeds: int = SEEDS


def particles(activation: str, **options: Any) -> Callable[[Any], Any]:
    return lambda key: gn.models.MeanFieldNetwork(DIM, WIDTH, activation=activation, key=key, **options)


def deep(activation: str) -> Callable[[Any], Any]:
    return lambda key: gn.models.MLP(DIM, 12, 2, activation=activation, key=key)


def features(activation: str) -> Callable[[Any], Any]:
    return lambda key: gn.models.RandomFeatures(DIM, WIDTH, activation=activation, key=key)


COMBINATIONS = {
    # The run of the false accusation: sliding on kinks.
    "relu, Gauss-Newton": Combination(GAUSS_NEWTON(damping=UNDAMPED), particles("relu"), seeds=40),
    "relu, Gauss-Newton, damping 0.01": Combination(
        GAUSS_NEWTON(HESSIAN, gn.damping.Constant(0.01)), particles("relu"), t1=1e3
    ),
    "relu, gradient": Combination(GRADIENT(), particles("relu"), t1=1e3),
    "relu, spectral": Combination(gn.flows.SpectralFlow(0.5), particles("relu"), t1=1e3),
    "relu, dual": Combination(gn.flows.DualGaussNewtonFlow(10.0), particles("relu"), t1=1e3),
    "relu, output layer": Combination(gn.flows.Frozen(GRADIENT(), "output"), particles("relu"), t1=1e4),
    "relu, features, Gauss-Newton": Combination(GAUSS_NEWTON(HESSIAN, UNDAMPED), features("relu")),
    "relu, deep, gradient": Combination(GRADIENT(), deep("relu"), t1=1e3),
    "relu, deep, Gauss-Newton": Combination(GAUSS_NEWTON(HESSIAN, UNDAMPED), deep("relu")),
    "relu, Huber, Gauss-Newton": Combination(
        GAUSS_NEWTON("fisher"), particles("relu"), gn.losses.HuberLoss(0.5), t1=1e3
    ),
    "silu, Gauss-Newton": Combination(GAUSS_NEWTON(damping=UNDAMPED), particles("silu")),
    "silu, Gauss-Newton, default damping": Combination(GAUSS_NEWTON(), particles("silu")),
    "silu, gradient": Combination(GRADIENT(), particles("silu"), t1=1e4),
    "silu, spectral": Combination(gn.flows.SpectralFlow(0.5), particles("silu"), t1=1e4),
    "silu, dual": Combination(gn.flows.DualGaussNewtonFlow(10.0), particles("silu"), t1=1e3),
    "silu, deep, gradient": Combination(GRADIENT(), deep("silu"), t1=1e3),
    "silu, Huber, gradient": Combination(GRADIENT(), particles("silu"), gn.losses.HuberLoss(0.5), t1=1e4),
    "silu, logistic, gradient": Combination(GRADIENT(), particles("silu"), gn.losses.LogisticLoss(), 0.1, 1e4),
    "silu, features, gradient": Combination(GRADIENT(), features("silu"), t1=1e5),
    "tanh, Gauss-Newton": Combination(GAUSS_NEWTON(HESSIAN, UNDAMPED), particles("tanh", output_init_scale=1.0)),
    "tanh, gradient": Combination(GRADIENT(), particles("tanh", init_scale=0.3), t1=1e4),
    "tanh, softmax, Gauss-Newton": Combination(
        GAUSS_NEWTON(HESSIAN, gn.damping.Constant(0.01)),
        particles("tanh", output_dim=CLASSES),
        gn.losses.SoftmaxCrossEntropy(),
        0.1,
        1e3,
    ),
    "gelu, Gauss-Newton, damping sigma_min": Combination(
        GAUSS_NEWTON(HESSIAN, gn.damping.SmallestEigenvalue(1.0, 0.0)), particles("gelu")
    ),
    "identity, deep, gradient": Combination(GRADIENT(), deep("identity"), t1=50.0),
    "silu, Gauss-Newton, rtol 1e-6": Combination(GAUSS_NEWTON(HESSIAN, UNDAMPED), particles("silu")),
}


def honest_run(name: str, seed: int) -> gn.Trajectory:
    """One run of a combination: eight samples of sin(x_1) + x_2, or labels of it."""
    one = COMBINATIONS[name]
    x = np.random.default_rng(seed).standard_normal((N + TEST, DIM))
    y = np.sin(x[:, 0]) + x[:, 1]
    if isinstance(one.loss, gn.losses.LogisticLoss):
        y = (y > 0).astype(float)
    if isinstance(one.loss, gn.losses.SoftmaxCrossEntropy):
        y = np.digitize(y, [-0.7, 0.7])
    problem = gn.Problem(x[:N], y[:N], x[N:], y[N:], loss=one.loss)
    model, rtol = one.model(jr.key(seed)), 1e-6 if "rtol" in name else None
    stop = gn.RelativeLoss(one.target)
    return gn.simulate(problem, model, one.flow, stop=stop, t1=one.t1, rtol=rtol, throw=False)


def verdicts(name: str, seed: int) -> dict[str, str]:
    """What a default `verify` says of one run, by theorem."""
    return {one.theorem: str(one.verdict) for one in gn.theory.verify(honest_run(name, seed))}


def counted(name: str, seeds: int) -> dict[str, Any]:
    """How often each verdict is said of each theorem, and of which seeds *violated*."""
    began = time.perf_counter()
    counts: dict[str, collections.Counter] = {}
    violated = []
    for seed in range(seeds):
        for theorem, verdict in verdicts(name, seed).items():
            counts.setdefault(theorem, collections.Counter())[verdict] += 1
            if verdict == "violated":
                violated.append([theorem, seed])
    seconds = round(time.perf_counter() - began, 1)
    return {"runs": seeds, "violated": violated, "verdicts": counts, "seconds": seconds}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Combination by combination the verdicts of the theorems that apply to some run of it."""
    lines = []
    for name, row in rows.items():
        lines.append(f"{name}: {row['runs']} runs, {row['seconds']} s")
        for theorem, counts in row["verdicts"].items():
            if set(counts) != {"assumptions not met"} or "relu" in name:
                lines.append(
                    f"  {theorem}: " + ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
                )
    runs, accused = sum(row["runs"] for row in rows.values()), sum(len(row["violated"]) for row in rows.values())
    return "\n".join([*lines, f"{runs} runs, {accused} verdicts 'violated'"])


def main(names: list[str], seeds: int | None, again: bool) -> int:
    from _record import store

    unknown = sorted(set(names) - set(COMBINATIONS))
    if unknown:
        sys.exit(f"unknown combinations {unknown}; there are {', '.join(COMBINATIONS)}.")
    whole = not names and seeds is None
    stored = json.loads(RESULTS.read_text())["combinations"] if whole and not again and RESULTS.exists() else {}
    rows: dict[str, dict[str, Any]] = {}
    for name in names or COMBINATIONS:
        most = COMBINATIONS[name].seeds
        rows[name] = stored[name] if name in stored else counted(name, most if seeds is None else min(seeds, most))
        print(table({name: rows[name]}).rpartition("\n")[0], flush=True)
        if whole:
            runs, accused = (
                sum(row["runs"] for row in rows.values()),
                sum(len(row["violated"]) for row in rows.values()),
            )
            store("honest_runs", {"runs": runs, "violated": accused, "combinations": rows})
    print(table(rows).rpartition("\n")[2])
    return int(any(row["violated"] for row in rows.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    sys.exit(main(given.names, given.seeds, given.again))
