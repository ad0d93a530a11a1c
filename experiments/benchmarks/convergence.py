"""Gradient flow and Gauss-Newton flow to a relative loss of 1e-8 at the paper's size with the default solver and tolerance.

With numbers of cases as arguments only those are measured again; the others stay as they are stored.
"""

import json
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

from _record import RESULTS, aligned, peak_memory_gib, store  # noqa: E402 (after the setting)
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402

# (flow, tau0, steps and seconds to reach), the numbers that the solver was built to.
CASES = [
    ("gradient", 10.0, 12, 4.0),
    ("gradient", 1.0, 40, 10.0),
    ("gradient", 0.1, 80, 20.0),
    ("gauss_newton", 1.0, 20, 8.0),
]
TIGHTER = 100.0


def main(chosen: list[int]) -> None:
    stored = json.loads((RESULTS / "convergence.json").read_text())["cases"] if chosen else []
    rows = [measured(*case) if not chosen or index in chosen else stored[index] for index, case in enumerate(CASES)]
    store("convergence", {"cases": rows, "relative_loss": 1e-8, "peak_gib": peak_memory_gib()})
    columns = {
        "flow": "flow",
        "tau0": "init_scale",
        "steps": "steps",
        "rejected": "rejected_steps",
        "flow time": "flow_time",
        "wall [s]": "seconds",
        "with 10 saves a decade [s]": "seconds_with_default_saves",
        "test loss": "test_loss",
        "at rtol/100": "test_loss_tighter",
        "deviation": "test_loss_deviation",
    }
    print(aligned(list(columns), [[row[key] for key in columns.values()] for row in rows]))


def measured(name: str, init_scale: float, most_steps: int, most_seconds: float) -> dict:
    problem, model, gauss_newton = paper_problem(init_scale=init_scale)
    flow = gauss_newton if name == "gauss_newton" else gn.flows.GradientFlow()

    def run(**options):
        began = time.perf_counter()
        trajectory = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-8), throw=False, **options)
        return trajectory, time.perf_counter() - began

    few_saves = {"saveat": [1.0]}
    for options in (few_saves, {}):
        run(**options)  # compiles
    trajectory, seconds = run(**few_saves)
    _, seconds_with_saves = run()
    rtol = trajectory.settings["rtol"]
    tighter, _ = run(**few_saves, rtol=rtol / TIGHTER)
    test_loss, reference = float(trajectory.data.test_loss[-1]), float(tighter.data.test_loss[-1])
    return {
        "flow": name,
        "init_scale": init_scale,
        "result": str(trajectory.result),
        "solver": trajectory.stats["solver"],
        "rtol": rtol,
        "steps": trajectory.stats["num_accepted_steps"],
        "rejected_steps": trajectory.stats["num_rejected_steps"],
        "flow_time": float(trajectory.data.time[-1]),
        "seconds": seconds,
        "seconds_with_default_saves": seconds_with_saves,
        "test_loss": test_loss,
        "test_loss_tighter": reference,
        "tighter_steps": tighter.stats["num_accepted_steps"],
        "test_loss_deviation": abs(test_loss / reference - 1),
        "most_steps": most_steps,
        "most_seconds": most_seconds,
    }


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
