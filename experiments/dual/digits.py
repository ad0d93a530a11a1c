"""Digits with softmax: optimisers on gradients and on dual directions of 1, 4, 16 iterations and solved exactly.

Every pair of optimiser and direction gets the same number of learning rates, tried on a seed of its own; the best of them, by
training loss at the end, is run on the seeds that are reported. gamma is chosen before, for each number of iterations by SGD on
that seed (exact solves take that of 16 iterations). Runs that results/digits_*.csv hold are not carried out again.
"""

import csv
import itertools
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)

import gnflow as gn  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SAMPLES, TEST_SAMPLES, WIDTH, DEPTH, BATCH, EPOCHS = 320, 1000, 64, 2, 32, 20
TUNING_SEED, SEEDS = 100, (0, 1, 2)
GAMMAS = (1.0, 10.0, 100.0, 1000.0)
# On gradients, on dual directions: in units of flow time (the whole direction is gamma/(1 + gamma)), for Adam of the weights.
RATES = {
    "sgd": ((1.0, 3.0, 10.0, 30.0, 100.0), (0.03, 0.1, 0.3, 1.0, 3.0)),
    "momentum": ((0.1, 0.3, 1.0, 3.0, 10.0), (0.003, 0.01, 0.03, 0.1, 0.3)),
    "adam": ((0.003, 0.01, 0.03, 0.1, 0.3), (0.003, 0.01, 0.03, 0.1, 0.3)),
    "line search": ((3.0, 10.0, 30.0, 100.0, 300.0), (0.1, 0.3, 1.0, 3.0, 10.0)),
}
ITERATIONS = {"dual 1": 1, "dual 4": 4, "dual 16": 16, "dual exact": None}
DIRECTIONS = ("gradient", *ITERATIONS)


def rates(name: str, direction: str) -> tuple[float, ...]:
    """The learning rates (longest steps) that are tried."""
    return RATES[name][direction != "gradient"]


def optimiser(name: str, rate: float) -> Any:
    """An optimiser by its name here."""
    if name == "adam":
        return gn.optimisers.Adam(rate)
    if name == "line search":
        return gn.optimisers.LineSearch(rate)
    return gn.optimisers.SGD(rate, momentum=0.9 if name == "momentum" else 0.0)


def run(name: str, direction: str, gamma: float, rate: float, seed: int) -> gn.Trajectory:
    """One run; seed decides samples, weights and batches."""
    data_key, weight_key, batch_key = jax.random.split(jax.random.key(seed), 3)
    problem = gn.problems.digits(SAMPLES, TEST_SAMPLES, key=data_key, task="classification")
    model = gn.models.MLP(problem.input_dim, WIDTH, DEPTH, 10, key=weight_key)
    flow: Any = gn.flows.GradientFlow(mobility=1.0)
    if direction != "gradient":
        flow = gn.flows.DualGaussNewtonFlow(gamma, max_iterations=ITERATIONS[direction])
    return gn.iterate(
        problem,
        model,
        flow,
        optimiser=optimiser(name, rate),
        num_epochs=EPOCHS,
        batch_size=BATCH,
        key=batch_key,
        metrics=(gn.metrics.Accuracy(),),
        throw=False,
    )


class Record:
    """The lines of the two tables; those that are stored already are taken from there."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.curves: list[dict[str, Any]] = []
        self._stored = {_key(line): line for line in _read("digits_runs")}
        self._stored_curves = _read("digits_curves")

    def add(self, role: str, *setting: Any) -> float:
        """Carry out one run and keep it; its training loss at the end, inf if it failed."""
        name, direction, gamma, rate, seed = setting
        known = {"optimiser": name, "direction": direction, "learning_rate": rate, "seed": seed}
        line = {"role": role, "gamma": gamma, **known}
        if (stored := self._stored.get(_key(line))) is not None:
            self.runs.append(stored)
            if role == "report":
                self.curves += [curve for curve in self._stored_curves if all(_same(curve[k], known[k]) for k in known)]
            return float(stored["train_loss"])
        found = run(*setting)
        data = found.data
        loss = np.inf if found.result.failed else float(data.train_loss[-1])
        end = {"train_loss": loss, "wall_seconds": found.stats["wall_seconds"], "result": found.result.code.value}
        self.runs.append({**line, **end})
        print(role, *setting, f"{loss:.3e} {found.stats['wall_seconds']:.2f} s", flush=True)
        if role == "report":
            for epoch in range(data.sizes["step"]):
                here = data.isel(step=epoch)
                numbers = {v: float(here[v]) for v in ("train_loss", "test_loss", "test_accuracy")}
                self.curves.append({**known, "epoch": epoch, **numbers})
        return loss

    def store(self) -> None:
        """results/digits_runs.csv and results/digits_curves.csv."""
        RESULTS.mkdir(exist_ok=True)
        for stem, lines in (("digits_runs", self.runs), ("digits_curves", self.curves)):
            with (RESULTS / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(lines[0]))
                writer.writeheader()
                for line in lines:
                    writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})


def _read(stem: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{stem}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _key(line: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{float(line[name]):.6g}" for name in ("gamma", "learning_rate", "seed"))
    return (line["role"], line["optimiser"], line["direction"], *numbers)


def _same(stored: str, value: Any) -> bool:
    return stored == value if isinstance(value, str) else f"{float(stored):.6g}" == f"{value:.6g}"


def main() -> None:
    record = Record()
    gammas = {"gradient": 0.0}
    for direction in (name for name in DIRECTIONS if name not in ("gradient", "dual exact")):
        tried = {
            (gamma, rate): record.add("gamma", "sgd", direction, gamma, rate, TUNING_SEED)
            for gamma, rate in itertools.product(GAMMAS, rates("sgd", direction))
        }
        gammas[direction] = min(tried, key=lambda pair: tried[pair])[0]
    gammas["dual exact"] = gammas.get("dual 16", 0.0)
    best = {}
    for name, direction in itertools.product(RATES, DIRECTIONS):
        losses = {
            rate: record.add("tuning", name, direction, gammas[direction], rate, TUNING_SEED)
            for rate in rates(name, direction)
        }
        best[name, direction] = min(losses, key=lambda rate: losses[rate])
    # By seeds, so that a disturbance of the machine meets all of them. The programs are compiled.
    for seed, (name, direction) in itertools.product(SEEDS, best):
        record.add("report", name, direction, gammas[direction], best[name, direction], seed)
    record.store()


if __name__ == "__main__":
    main()
