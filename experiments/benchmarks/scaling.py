"""Time of one exponential step of gradient flow against the number of samples N and the width M."""

import math

import equinox as eqx
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
import numpy as np  # noqa: E402
from _record import aligned, interleaved_seconds, peak_memory_gib, store  # noqa: E402
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402

SAMPLES = [100, 200, 500, 1000, 2000, 4000]
WIDTHS = [500, 1000, 2000, 5000, 10_000, 20_000, 50_000]
N, M = 500, 5000


def main() -> None:
    by_samples = [step_seconds(n, M) for n in SAMPLES]
    by_width = [step_seconds(N, m) for m in WIDTHS]
    record = {
        "by_samples": {"width": M, "n_train": SAMPLES, "seconds": by_samples, **exponents(SAMPLES, by_samples)},
        "by_width": {"n_train": N, "width": WIDTHS, "seconds": by_width, **exponents(WIDTHS, by_width)},
        "expected": "N^2 M + N^3 flops: exponent 2 to 3 in N, at most 1 in M",
        "peak_gib": peak_memory_gib(),
    }
    store("scaling", record)
    print(aligned(["N", "M", "seconds a step"], [[n, M, s] for n, s in zip(SAMPLES, by_samples, strict=True)]))
    print(aligned(["N", "M", "seconds a step"], [[N, m, s] for m, s in zip(WIDTHS, by_width, strict=True)]))
    for name in ("by_samples", "by_width"):
        print(
            f"{name}: exponent {record[name]['exponent']:.2f}, over the upper half {record[name]['exponent_upper']:.2f}"
        )


def step_seconds(n_train: int, width: int) -> float:
    problem, model, _ = paper_problem(n_train, width)
    flow = gn.flows.GradientFlow()
    system = flow.system(problem, model)
    term, solver = gn.solvers.LinearisedTerm(flow, system), gn.solvers.ExponentialRungeKutta()

    # The term is an argument: as a constant of the program its products would be folded at compile time.
    @eqx.filter_jit
    def step(term, weights):
        return solver.step(term, jnp.asarray(0.0), jnp.asarray(1.0), weights, None, None, False)[:2]

    weights = system.weights(model)
    repeats = max(2, min(15, math.ceil(2e10 / (n_train**2 * width))))
    seconds = interleaved_seconds({"step": lambda: step(term, weights)}, repeats=repeats)["step"]
    print(f"N = {n_train}, M = {width}: {seconds:.4f} s", flush=True)
    return seconds


def exponents(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """Slopes of log(time) over log(size)."""

    def slope(start: int) -> float:
        return float(np.polyfit(np.log(sizes[start:]), np.log(seconds[start:]), 1)[0])

    return {"exponent": slope(0), "exponent_upper": slope(len(sizes) // 2)}


if __name__ == "__main__":
    main()
