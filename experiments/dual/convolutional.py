"""A small convolutional network on MNIST's digits and on Fashion-MNIST: optimisers at equal cost, gamma against batch size.

    python experiments/dual/run.py convolutional

Images are averaged over 2 x 2 pixels to 14 x 14; convolutions of 8 and 16 channels (3 x 3, stride 2, silu) and a dense layer. A
run of every method costs about as much as `BUDGET` gradients of 32 samples, so that one with dear directions has fewer steps.
Every method has the same number of rates, tried on a seed of its own; the best by training loss at the end runs on the seeds
that are reported. gamma is chosen before by SGD on the tuning seed, for each number of iterations. At last the methods of the
figure run once more with saves on the way (results/convolutional_path_*.csv), which cost more than steps: times are of runs
without. Runs that are stored are not carried out again; a stopped script goes on where it was.
"""

import functools
import itertools
import sys
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402 (after the setting)
import jax.numpy as jnp  # noqa: E402
from record import Record  # noqa: E402

import gnflow as gn  # noqa: E402

FASHION = "/usr/share/datasets/fashion-mnist"  # Debian's dataset-fashion-mnist
PROBLEMS = ("mnist_5k", "fashion_mnist")
SAMPLES, TEST_SAMPLES, BATCH = 1000, 1000, 32
TUNING_SEED, SEEDS = 100, (0, 1, 2, 3, 4)
SAVES = 6
GAMMAS = (1.0, 10.0, 100.0, 1000.0)
BUDGET = 600  # gradients of 32 samples
# What a step costs, in gradients of its batch: an iteration is about one, a solve to the end by A about twenty, and each of
# the three layers has iterations of its own.
COSTS = {
    "gradient": 1,
    "dual 4": 5,
    "dual 16": 17,
    "dual exact": 20,
    "adaptive 16": 18,
    "adaptive exact": 20,
    "layers 16": 40,
}
# On gradients, on dual directions of a fixed gamma; of the line search the longest step.
RATES = {
    "sgd": ((0.1, 0.3, 1.0), (0.03, 0.1, 0.3)),
    "momentum": ((0.03, 0.1, 0.3), (0.003, 0.01, 0.03)),
    "adam": ((0.003, 0.01, 0.03), (0.003, 0.01, 0.03)),
    "line search": ((1.0, 3.0, 10.0), (0.3, 1.0, 3.0)),
}
# Solved to the end, with a gamma that adapts, or scaled to its length: the whole direction is a step to try.
WHOLE_RATES = (0.1, 0.3, 1.0)
# The second ones run after all seeds of the first.
FIRST_METHODS = (
    *itertools.product(("sgd",), COSTS),
    ("adam", "gradient"),
    ("adam", "dual 16"),
    ("line search", "dual 16"),
)
METHODS = (
    *FIRST_METHODS,
    *(pair for pair in itertools.product(RATES, ("gradient", "dual 4", "dual 16")) if pair not in FIRST_METHODS),
)
# In the figure.
SHOWN = (
    ("adam", "gradient"),
    ("sgd", "gradient"),
    ("sgd", "dual 4"),
    ("sgd", "dual 16"),
    ("line search", "dual 16"),
    ("sgd", "dual exact"),
    ("sgd", "adaptive exact"),
)
# gamma against batch size, with SGD on dual directions of 16 iterations: the steps of a run by batch size.
BATCHES = {32: 40, 128: 20, 512: 10}
BATCH_RATES = (0.03, 0.1, 0.3)


class Network(eqx.Module):
    """Two convolutions with stride 2 and a dense layer, of an image (14, 14)."""

    kernels: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]

    def __init__(self, *, key: Any):
        # (fan_in, fan_out), uniform within fan_in^(-1/2), as layers of Equinox and PyTorch begin.
        shapes = ((9, 8), (72, 16), (256, 10))
        keys = jax.random.split(key, len(shapes))
        self.kernels = tuple(
            jax.random.uniform(k, shape, minval=-(shape[0] ** -0.5), maxval=shape[0] ** -0.5)
            for k, shape in zip(keys, shapes, strict=True)
        )
        self.biases = tuple(jnp.zeros(shape[1]) for shape in shapes)

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The layers, each with its bias."""
        return {f"layer {index}": (f"kernels[{index}]", f"biases[{index}]") for index in range(len(self.kernels))}

    def __call__(self, image: jax.Array) -> jax.Array:
        """The outputs (10,) at one image (14, 14)."""
        hidden = image[:, :, None]
        for kernel, bias in zip(self.kernels[:2], self.biases[:2], strict=True):
            hidden = jax.nn.silu(_patches(hidden) @ kernel + bias)
        return hidden.reshape(-1) @ self.kernels[2] + self.biases[2]


def _patches(hidden: jax.Array) -> jax.Array:
    """The 3 x 3 surroundings of every other place, of (n, n, channels).

    In float64 a product with them takes half the time of XLA's convolution on a CPU.
    """
    size = hidden.shape[0]
    wide = jnp.pad(hidden, ((1, 1), (1, 1), (0, 0)))
    shifted = [wide[i : i + size : 2, j : j + size : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


@functools.cache
def problem_of(name: str, seed: int) -> gn.Problem:
    """Images (N, 14, 14) and their classes."""
    key = jax.random.split(jax.random.key(seed), 3)[0]
    if name == "mnist_5k":
        drawn = gn.problems.mnist_5k(SAMPLES, TEST_SAMPLES, key=key)
    else:
        drawn = gn.problems.mnist(FASHION, SAMPLES, TEST_SAMPLES, key=key)

    def smaller(x: jax.Array) -> jax.Array:
        return x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))

    assert drawn.x_test is not None
    return gn.Problem(smaller(drawn.x_train), drawn.y_train, smaller(drawn.x_test), drawn.y_test, loss=drawn.loss)


def rates_of(optimiser: str, direction: str) -> tuple[float, ...]:
    """The rates that are tried."""
    if direction not in ("gradient", "dual 4", "dual 16"):
        return WHOLE_RATES
    return RATES[optimiser][direction != "gradient"]


def steps_of(optimiser: str, direction: str) -> int:
    """The steps of a run within the budget; a search looks at the loss beside the direction."""
    return round(BUDGET / (COSTS[direction] + (optimiser == "line search")))


def method(optimiser: str, direction: str, gamma: float, rate: float) -> Any:
    """An optimiser of `gnflow.iterate` by its names here."""
    then: Any = gn.optimisers.SGD(rate, momentum=0.9 if optimiser == "momentum" else 0.0)
    if optimiser == "adam":
        then = gn.optimisers.Adam(rate)
    if optimiser == "line search":
        then = gn.optimisers.LineSearch(rate)
    if direction == "gradient":
        return then
    exact, adaptive = direction.endswith("exact"), direction.startswith("adaptive")
    return gn.optimisers.DualGaussNewton(
        gn.optimisers.AdaptiveGamma(gamma) if adaptive else gamma,
        model="exact" if exact else "quadratic",
        max_iterations=None if exact else int(direction.split()[1]),
        tol=1e-3 if exact else 1e-8,
        blocks="layers" if direction.startswith("layers") else None,
        then=then,
    )


def run(
    *,
    problem: str,
    batch: int,
    optimiser: str,
    direction: str,
    gamma: float,
    learning_rate: float,
    seed: int,
    steps: int,
    saves: int = 1,
) -> gn.Trajectory:
    """One run; seed decides samples, weights and batches."""
    _, weight_key, batch_key = jax.random.split(jax.random.key(seed), 3)
    return gn.iterate(
        problem_of(problem, seed),
        Network(key=weight_key),
        gn.flows.GradientFlow(mobility=1.0),
        optimiser=method(optimiser, direction, gamma, learning_rate),
        num_steps=steps,
        batch_size=batch,
        key=batch_key,
        save_every=-(-steps // saves),
        metrics=(gn.metrics.Accuracy(),),
        throw=False,
    )


def seconds(found: gn.Trajectory) -> float:
    """Of a run, but for compiling."""
    return found.stats["wall_seconds"] - found.stats["compile_seconds"]


def main(problems: tuple[str, ...]) -> None:
    gn.compilation_cache()
    in_curves = ("problem", "batch", "optimiser", "direction", "gamma", "learning_rate", "seed")

    def record_of(name: str, saves: int) -> Record:
        made = functools.partial(run, saves=saves)
        return Record(name, made, in_curves=in_curves, unit="save", seconds=("seconds", seconds))

    record, path = record_of("convolutional", 1), record_of("convolutional_path", SAVES)

    def add(
        role: str,
        problem: str,
        batch: int,
        method: tuple[str, str],
        gamma: float,
        rate: float,
        seed: int,
        to: Record = record,
    ) -> float:
        optimiser, direction = method
        return to.add(
            role,
            problem=problem,
            batch=batch,
            optimiser=optimiser,
            direction=direction,
            gamma=gamma,
            learning_rate=rate,
            seed=seed,
            steps=BATCHES[batch] if role == "batch" else steps_of(optimiser, direction),
        )

    chosen = {}
    for problem in problems:
        gammas = {"gradient": 0.0}
        for direction in ("dual 4", "dual 16"):
            tried = {
                gamma: min(
                    add("gamma", problem, BATCH, ("sgd", direction), gamma, rate, TUNING_SEED) for rate in BATCH_RATES
                )
                for gamma in GAMMAS
            }
            gammas[direction] = min(tried, key=lambda gamma: tried[gamma])
        best = {}
        for pair in METHODS:
            gamma = gammas.get(pair[1], gammas["dual 16"])
            losses = {rate: add("tuning", problem, BATCH, pair, gamma, rate, TUNING_SEED) for rate in rates_of(*pair)}
            best[pair] = gamma, min(losses, key=lambda rate: losses[rate])
        # By seeds, so that a disturbance of the machine meets all methods. The programs are compiled.
        for pairs in (FIRST_METHODS, METHODS[len(FIRST_METHODS) :]):
            for seed, pair in itertools.product(SEEDS, pairs):
                add("report", problem, BATCH, pair, *best[pair], seed)
        if problem == PROBLEMS[0]:
            for batch, gamma, rate in itertools.product(BATCHES, GAMMAS, BATCH_RATES):
                add("batch", problem, batch, ("sgd", "dual 16"), gamma, rate, TUNING_SEED)
        chosen[problem] = best
    record.store()
    for seed, problem, pair in itertools.product(SEEDS, problems, SHOWN):
        add("report", problem, BATCH, pair, *chosen[problem][pair], seed, to=path)
    path.store()


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or PROBLEMS)
