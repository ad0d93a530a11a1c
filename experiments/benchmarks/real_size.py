"""Fashion-MNIST on two cores: gradient flow of NC = 50,000 and 600,000 outputs, and Gauss-Newton velocities at NC = 10,000.

`real_size.py flow N TARGET [RTOL]` or `real_size.py velocity`. The files are those of Debian's package dataset-fashion-mnist;
another folder: FASHION_MNIST. Times are in gradients of the training loss, timed in the same process, without compilation: by
the clock, and by the processor, which other programs on the machine disturb less.
"""

import os
import statistics
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402 (after the setting)
from _record import aligned, peak_memory_gib, store, table  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.geometry import System  # noqa: E402
from gnflow.geometry.damping import Constant  # noqa: E402
from gnflow.geometry.directions import ConjugateGradients, MeanKernel, Nystrom  # noqa: E402

FOLDER = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
TEST = 10_000
SHARES = (1e-4, 1e-6)  # eps/sigma_max
RESIDUAL = 1e-2
SOLVERS = {
    "conjugate gradients": None,
    "with Nystrom(50)": Nystrom(50),
    "with MeanKernel()": MeanKernel(),
}


def load(n_train: int, n_test: int):
    """The problem, and the seconds that reading it took."""
    began = time.perf_counter()
    problem = gn.problems.mnist(FOLDER, n_train, n_test, key=jax.random.key(0))
    return jax.block_until_ready(problem), time.perf_counter() - began


def network():
    return gn.models.MLP(784, 128, 2, 10, activation="tanh", key=jax.random.key(1))


def timed(function, repeats: int) -> tuple[float, float]:
    """Medians of seconds by the clock and of the processor, of calls that compile nothing."""
    clock, processor = [], []
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        clock.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return statistics.median(clock), statistics.median(processor)


def gradient_of(system: System, weights):
    """A function that computes the gradient of the training loss."""
    flow = gn.flows.GradientFlow(mobility=1.0)
    velocity = eqx.filter_jit(lambda weights, system: flow.velocity(0.0, weights, system))
    jax.block_until_ready(velocity(weights, system))
    return lambda: velocity(weights, system)


def run_flow(n_train: int, target: float, rtol: float | None) -> None:
    problem, load_seconds = load(n_train, TEST)
    model = network()
    system = System(problem, model)
    gradient = gradient_of(system, system.weights(model))
    before = timed(gradient, 5)
    gradient_peak = peak_memory_gib()

    def run(target: float):
        began = time.perf_counter(), time.process_time()
        trajectory = gn.simulate(
            problem,
            model,
            gn.flows.GradientFlow(mobility=1.0),
            solver="stabilised",
            rtol=rtol,
            stop=gn.RelativeLoss(target),
            throw=False,
        )
        return trajectory, time.perf_counter() - began[0], time.process_time() - began[1]

    first = run(0.99)[0]  # compiles: another target is not another program
    trajectory, seconds, processor_seconds = run(target)
    after = timed(gradient, 5)
    stats, data = trajectory.stats, trajectory.data
    numbers = {
        "n_train": n_train,
        "n_test": TEST,
        "num_outputs": n_train * 10,
        "target": target,
        "rtol": rtol,
        "load_seconds": load_seconds,
        "gradient_seconds_before_and_after": [before[0], after[0]],
        "gradient_processor_seconds_before_and_after": [before[1], after[1]],
        "result": str(trajectory.result.code),
        "relative_loss": float(data.train_loss[-1] / data.train_loss[0]),
        "test_loss": float(data.test_loss[-1]),
        "flow_time": float(data.time[-1]),
        "seconds": seconds,
        "compile_seconds_before": first.stats["compile_seconds"],
        "gradients_by_the_clock": seconds / statistics.mean([before[0], after[0]]),
        "gradients_by_the_processor": processor_seconds / statistics.mean([before[1], after[1]]),
        **{
            name: stats[name]
            for name in (
                "num_steps",
                "num_velocity_evaluations",
                "num_jacobian_products",
                "num_solutions",
                "estimated_error",
                "estimated_test_error",
            )
        },
        "peak_gib_of_a_gradient": gradient_peak,
        "peak_gib": peak_memory_gib(),
    }
    store("real_size" if n_train == 5000 else f"real_size_{n_train}", numbers)
    print(
        table([(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in numbers.items()])
    )


def run_velocities() -> None:
    _, first = load(60, 0)  # with what is compiled once
    _, again = load(60, 0)
    _, whole = load(60_000, TEST)
    problem, _ = load(1000, 0)
    model = network()
    system = System(problem, model)
    weights = system.weights(model)
    gradient = gradient_of(system, weights)
    rows = []
    for metric in ("identity", "hessian"):
        scale = gn.flows.GaussNewtonFlow(metric, gn.damping.LargestEigenvalue(1.0), ConjugateGradients(RESIDUAL))
        found = eqx.filter_jit(lambda flow, *state: flow.velocity_and_diagnostics(0.0, *state)[1])
        sigma_max = float(found(scale, weights, system).damping)
        for share in SHARES:
            for name, preconditioner in SOLVERS.items():
                solver = ConjugateGradients(RESIDUAL, 2000, preconditioner)
                flow = gn.flows.GaussNewtonFlow(metric, Constant(share * sigma_max), solver)
                velocity = eqx.filter_jit(lambda flow, *state: flow.velocity_and_diagnostics(0.0, *state))
                diagnostics = velocity(flow, weights, system)[1]
                unit = timed(gradient, 12)
                taken = timed(lambda flow=flow, velocity=velocity: velocity(flow, weights, system), 2)
                rows.append(
                    {
                        "metric": metric,
                        "eps/sigma_max": share,
                        "solver": name,
                        "iterations": int(diagnostics.iterations),
                        "relative_residual": float(diagnostics.relative_residual),
                        "success": bool(diagnostics.success),
                        "seconds": taken[0],
                        "gradients_by_the_clock": taken[0] / unit[0],
                        "gradients_by_the_processor": taken[1] / unit[1],
                    }
                )
                print(rows[-1], flush=True)
    numbers = {
        "load_60_seconds": [first, again],
        "load_60000_and_10000_seconds": whole,
        "n_train": 1000,
        "num_outputs": 10_000,
        "rows": rows,
        "peak_gib": peak_memory_gib(),
    }
    store("real_size_velocity", numbers)
    print(aligned(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    if sys.argv[1] == "velocity":
        run_velocities()
    else:
        run_flow(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else None)
