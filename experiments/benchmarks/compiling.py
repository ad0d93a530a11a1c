"""What XLA's options cost and save on a CPU: compiling and running a velocity, a product, a linearisation."""

import statistics
import time

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402 (after the setting)
import jax.numpy as jnp  # noqa: E402
from _record import aligned, peak_memory_gib, store  # noqa: E402
from choice_problems import CASES  # noqa: E402

from gnflow.geometry import Decomposition  # noqa: E402

OPTIONS = {
    "default": {},
    "without emitters": {"xla_cpu_use_fusion_emitters": False},
    "least optimised": {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1},
}
NAMES = (
    "gradient-two_layer-squared-500",
    "gradient-two_layer-squared-5000",
    "gradient-mlp-softmax-500",
    "gradient-mlp-softmax-5000",
    "gradient-cnn-softmax-500",
    "gradient-cnn-logistic-50",
)
REPEATS, LARGEST_LINEARISED = 25, 500


def main() -> None:
    rows = []
    for case in (case for case in CASES if case.name in NAMES):
        for part, function, weights in parts(case):
            compiled, compile_seconds = {}, {}
            for name, options in OPTIONS.items():
                began = time.process_time()
                compiled[name] = jax.jit(function, compiler_options=options).lower(weights).compile()
                compile_seconds[name] = time.process_time() - began
            seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
            for _ in range(REPEATS):
                for name, program in compiled.items():
                    began = time.perf_counter()
                    jax.block_until_ready(program(weights))
                    seconds[name].append(time.perf_counter() - began)
            least = {name: min(taken) for name, taken in seconds.items()}
            run = {name: taken / least["default"] for name, taken in least.items()}
            rows.append({"case": case.name, "part": part, "compile_seconds": compile_seconds, "run_ratio": run})
            print(rows[-1], flush=True)
    medians = {
        name: {
            "compile_seconds": statistics.median(row["compile_seconds"][name] for row in rows),
            "run_ratio": statistics.median(row["run_ratio"][name] for row in rows),
            "worst_run_ratio": max(row["run_ratio"][name] for row in rows),
        }
        for name in OPTIONS
    }
    store("compiling", {"medians": medians, "rows": rows, "peak_gib": peak_memory_gib()})
    header = ["case", "part", *(f"compile, {name}" for name in OPTIONS), *(f"run, {name}" for name in OPTIONS)]
    cells = [[row["case"], row["part"], *row["compile_seconds"].values(), *row["run_ratio"].values()] for row in rows]
    print(aligned(header, cells))


def parts(case):
    """(name, function of the weights, weights) of what a step is made of."""
    problem, model, flow = case.build()
    system = flow.system(problem, model)

    def velocity(weights):
        return flow.velocity(0.0, weights, system)

    def product(weights):
        return jax.jvp(velocity, (weights,), (weights,))[1]

    def linearisation(weights):
        made = flow.linearisation(jnp.zeros(()), system.tangent(weights), system, Decomposition())
        return eqx.filter(made, eqx.is_array)

    weights = system.weights(model)
    yield "velocity", velocity, weights
    yield "product with its Jacobian", product, weights
    if case.size <= LARGEST_LINEARISED:
        yield "linearisation", lambda weights: jax.tree.leaves(linearisation(weights)), weights


if __name__ == "__main__":
    main()
