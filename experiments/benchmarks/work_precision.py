"""Work and precision: error at one flow time against wall time, for solvers of the flow and plain iterations."""

import functools
import math
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
from _record import aligned, peak_memory_gib, store  # noqa: E402
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.geometry import Decomposition  # noqa: E402

INIT_SCALES = [10.0, 1.0, 0.1]
TOLERANCES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
SOLVERS = ["exponential", "kvaerno5", "tsit5", "dopri8"]
# Step sizes of plain iterations over 1/(fastest rate); from 2 on they are unstable.
STEP_SIZES = [1.6, 0.8, 0.4, 0.2, 0.1]
RELATIVE_LOSS = 1e-6
MOST_STEPS = 20_000


def main(n_train: int, width: int) -> None:
    rows = []
    for flow_name in ("gradient", "gauss_newton"):
        for init_scale in INIT_SCALES:
            problem, model, gauss_newton = paper_problem(n_train, width, init_scale)
            flow = gauss_newton if flow_name == "gauss_newton" else gn.flows.GradientFlow()
            rows += work_and_precision(problem, model, flow, {"flow": flow_name, "init_scale": init_scale})
    record = {"n_train": n_train, "width": width, "relative_loss": RELATIVE_LOSS, "rows": rows}
    store("work_precision", {**record, "peak_gib": peak_memory_gib()})
    print(aligned(list(rows[0]), [[row.get(key, "") for key in rows[0]] for row in rows]))


def work_and_precision(problem, model, flow, labels: dict) -> list[dict]:
    """Error of the test outputs at the flow time of the relative loss, relative to how far they have moved."""
    tight = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(RELATIVE_LOSS), solver="exponential", rtol=1e-7)
    end = float(tight.data.time[-1])

    def outputs(trained):
        return jax.vmap(trained)(problem.x_test)

    first = outputs(model)

    def solve(solver, rtol, end=end):
        options = {"stop": None, "t1": end, "saveat": [end / 2], "max_steps": MOST_STEPS, "throw": False}
        return gn.simulate(problem, model, flow, solver=solver, rtol=rtol, **options)

    reference = outputs(solve("exponential", 1e-7).model)

    def row(method, setting, run, compile_it) -> dict:
        compile_it()
        began = time.perf_counter()
        trajectory = run()
        seconds = time.perf_counter() - began
        moved = jnp.linalg.norm(reference - first)
        finished = not trajectory.result.failed
        error = float(jnp.linalg.norm(outputs(trajectory.model) - reference) / moved) if finished else None
        return {
            **labels,
            "method": method,
            "setting": setting,
            "steps": trajectory.stats["num_steps"],
            "seconds": seconds,
            "error": error,
            "result": str(trajectory.result.code),
        }

    rows = []
    for solver in SOLVERS:
        for rtol in TOLERANCES:
            run = functools.partial(solve, solver, rtol)
            rows.append(row(solver, rtol, run, functools.partial(run, end=1e-6 * end)))
            print(rows[-1], flush=True)
            if rows[-1]["error"] is None:
                break  # tighter tolerances take more steps
    system = flow.system(problem, model)
    weights = system.weights(tight.model)
    dense = Decomposition(dense_limit=10**6)
    fastest = float(jnp.max(flow.linearisation(jnp.zeros(()), system.tangent(weights), system, dense).rates))
    for share in STEP_SIZES:
        num_steps = math.ceil(end * fastest / share)
        if num_steps > MOST_STEPS:
            rows.append(
                {**labels, "method": "iteration", "setting": share, "steps": num_steps, "result": "too many steps"}
            )
            break
        options = {"step_size": end / num_steps, "num_steps": num_steps, "save_every": num_steps, "throw": False}
        run = functools.partial(gn.iterate, problem, model, flow, **options)
        rows.append(row("iteration", share, run, run))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:] or (100, 500)))
