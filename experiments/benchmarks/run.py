"""Run the benchmarks, each in a process of its own: `python experiments/benchmarks/run.py [NAME ...]`.

Each prints its numbers and stores them under results/ with the command and the environment.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

BENCHMARKS = {
    "start_up": ["start_up.py"],
    "first_run": ["first_run.py"],
    "compiling": ["compiling.py"],
    "lapack_threads": ["lapack_threads.py"],
    "velocity_cost": ["velocity_cost.py"],
    "jacobian_rows": ["jacobian_rows.py"],
    "step_cost": ["step_cost.py"],
    "error_estimate": ["error_estimate.py"],
    "error_control": ["error_control.py"],
    "convergence": ["convergence.py"],
    "schemes": ["schemes.py"],
    "work_precision": ["work_precision.py"],
    "scaling": ["scaling.py"],
    "solver_choice": ["solver_choice.py"],
    "tiers": ["tiers.py"],
    "large_nc": ["large_nc.py"],
    "real_size_velocity": ["real_size.py", "velocity"],
    "real_size": ["real_size.py", "flow", "5000", "0.1"],
    "real_size_60000": ["real_size.py", "flow", "60000", "0.3"],
    "few_weights": ["few_weights.py"],
    "paper_size": ["paper_size.py", "500"],
    "verify_cost": ["verify_cost.py"],
    "honest_runs": ["honest_runs.py"],
    "batching": ["batching.py"],
    "paper_size_2000": ["paper_size.py", "2000"],
    "sweep_engine": ["sweep_engine.py"],
    "reversible_step": ["reversible_step.py"],
    "dual_direction": ["dual_direction.py"],
    "truth": ["truth.py"],
}


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        sys.exit(f"unknown benchmarks {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}.")
    for name in names or BENCHMARKS:
        print(f"== {name}", flush=True)
        script, *arguments = BENCHMARKS[name]
        subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
