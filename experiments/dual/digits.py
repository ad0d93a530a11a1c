"""Digits with softmax: optimisers on gradients and on dual directions of 1, 4, 16 iterations and solved exactly.

Every pair of optimiser and direction gets the same number of learning rates, tried on a seed of its own; the best of them, by
training loss at the end, is run on the seeds that are reported. gamma is chosen before, for each number of iterations by SGD on
that seed (exact solves take that of 16 iterations). Runs that results/digits_*.csv hold are not carried out again.
"""

import itertools
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

from record import Record  # noqa: E402 (after the setting)

import gnflow as gn  # noqa: E402

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


def optimiser_of(name: str, rate: float) -> Any:
    """An optimiser by its name here."""
    if name == "adam":
        return gn.optimisers.Adam(rate)
    if name == "line search":
        return gn.optimisers.LineSearch(rate)
    return gn.optimisers.SGD(rate, momentum=0.9 if name == "momentum" else 0.0)


def run(*, gamma: float, optimiser: str, direction: str, learning_rate: float, seed: int) -> gn.Trajectory:
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
        optimiser=optimiser_of(optimiser, learning_rate),
        num_epochs=EPOCHS,
        batch_size=BATCH,
        key=batch_key,
        metrics=(gn.metrics.Accuracy(),),
        throw=False,
    )


def main() -> None:
    record = Record(
        "digits",
        run,
        in_curves=("optimiser", "direction", "learning_rate", "seed"),
        unit="epoch",
        seconds=("wall_seconds", lambda found: found.stats["wall_seconds"]),
    )

    def add(role: str, name: str, direction: str, gamma: float, rate: float, seed: int) -> float:
        return record.add(role, gamma=gamma, optimiser=name, direction=direction, learning_rate=rate, seed=seed)

    gammas = {"gradient": 0.0}
    for direction in (name for name in DIRECTIONS if name not in ("gradient", "dual exact")):
        tried = {
            (gamma, rate): add("gamma", "sgd", direction, gamma, rate, TUNING_SEED)
            for gamma, rate in itertools.product(GAMMAS, rates("sgd", direction))
        }
        gammas[direction] = min(tried, key=lambda pair: tried[pair])[0]
    gammas["dual exact"] = gammas.get("dual 16", 0.0)
    best = {}
    for name, direction in itertools.product(RATES, DIRECTIONS):
        losses = {
            rate: add("tuning", name, direction, gammas[direction], rate, TUNING_SEED)
            for rate in rates(name, direction)
        }
        best[name, direction] = min(losses, key=lambda rate: losses[rate])
    # By seeds, so that a disturbance of the machine meets all of them. The programs are compiled.
    for seed, (name, direction) in itertools.product(SEEDS, best):
        add("report", name, direction, gammas[direction], best[name, direction], seed)
    record.store()


if __name__ == "__main__":
    main()
