"""Work and precision of the three tiers of solvers, and of the choice between them, on two problems of different kinds."""

import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402 (after the setting)
from _record import aligned, peak_memory_gib, store  # noqa: E402
from choice_problems import CASES  # noqa: E402

import gnflow as gn  # noqa: E402

# Each to the flow time at which the relative loss comes to a target.
PROBLEMS = {
    "gradient-mlp-softmax-500": (1e-2, "deep, softmax, NC = 500"),
    "gradient-two_layer-squared-500": (1e-6, "two-layer, squared, NC = 500"),
}
SOLVERS = ("auto", "exponential", "stabilised", "tsit5", "dopri8")
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
MOST_STEPS = 2000


def main() -> None:
    rows = []
    for name, (target, title) in PROBLEMS.items():
        problem, model, flow = next(case for case in CASES if case.name == name).build()
        found = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(target), solver="exponential")
        end = float(found.data.time[-1])

        def solve(solver: str, rtol: float, problem=problem, model=model, flow=flow, end=end, max_steps=MOST_STEPS):
            options = {"stop": None, "t1": end, "saveat": [end / 2], "max_steps": max_steps, "throw": False}
            return gn.simulate(problem, model, flow, solver=solver, rtol=rtol, **options)

        def outputs(trained, problem=problem):
            return jax.vmap(trained)(problem.x_test)

        reference = outputs(solve("exponential", 1e-7).model)
        moved = jnp.linalg.norm(reference - outputs(model))
        for solver in SOLVERS:
            solve(solver, TOLERANCES[0], max_steps=1)  # compiles
            for rtol in TOLERANCES:
                began = time.perf_counter()
                run = solve(solver, rtol)
                seconds = time.perf_counter() - began
                if run.result.code == gn.ResultCode.MAX_STEPS_REACHED:
                    break  # tighter tolerances take more steps
                error = float(jnp.linalg.norm(outputs(run.model) - reference) / moved)
                numbers = {"seconds": seconds, "error": error, "steps": run.stats["num_steps"]}
                rows.append({"case": name, "title": title, "solver": solver, "rtol": rtol, **numbers})
                print(rows[-1], flush=True)
            store("tiers", {"rows": rows, "peak_gib": peak_memory_gib()})
    header = ["case", "solver", "rtol", "steps", "seconds", "error"]
    print(aligned(header, [[row[key] for key in header] for row in rows]))


if __name__ == "__main__":
    main()
