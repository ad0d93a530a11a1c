"""The choice that `solver="auto"` makes against each solver by name, over problems of different kinds.

`solver_choice.py [--only WORD] [--solvers NAME,NAME]` runs the cases whose names have WORD in them and keeps the other rows.
"""

import argparse
import json
import signal
import statistics
import time

import jax

jax.config.update("jax_enable_x64", True)

from _record import RESULTS, aligned, peak_memory_gib, store  # noqa: E402 (after the setting)
from choice_problems import CASES, Case  # noqa: E402

import gnflow as gn  # noqa: E402

SOLVERS = {
    "gradient": ("auto", "stabilised", "tsit5", "dopri8", "exponential"),
    "spectral": ("auto", "tsit5", "dopri8", "exponential"),
    "gauss_newton": ("auto", "tsit5", "dopri8", "exponential"),
    "gauss_newton_falling": ("auto", "tsit5", "dopri8", "exponential"),
}
# A rival is stopped at so many times the best time so far, and the first one after so many seconds.
PATIENCE, LONGEST, SHORTEST, LONGEST_COLD = 2.0, 150.0, 1.0, 60.0
# A run that compiled for longer is made once more, for it changed its solver for the first time; and so is a brief one, of
# which another program on the machine makes most. The less counts.
COMPILED, BRIEF = 0.2, 20.0


def main(only: str, solvers: tuple[str, ...]) -> None:
    stored = RESULTS / "solver_choice.json"
    rows = json.loads(stored.read_text())["rows"] if only and stored.exists() else []
    for case in CASES:
        if not (case.name == only or (only not in [c.name for c in CASES] and only in case.name)):
            continue
        rows = [row for row in rows if row["case"] != case.name]
        rows += run_case(case, [name for name in SOLVERS[case.flow] if name in solvers or not solvers])
        rows.sort(key=lambda row: [case.name for case in CASES].index(row["case"]))
        store("solver_choice", {**summary(rows), "rows": rows, "peak_gib": peak_memory_gib()})
    print(page(rows))


def run_case(case: Case, solvers: list[str]) -> list[dict]:
    problem, model, flow = case.build()
    cold: dict[str, float | None] = {}
    found: dict[float, dict[str, dict]] = {target: {} for target in case.targets}
    best = dict.fromkeys(case.targets, LONGEST / PATIENCE)
    for solver in solvers:
        jax.clear_caches()
        first = _seconds(problem, model, flow, case.targets[0], solver, LONGEST_COLD)
        cold[solver] = first["seconds"] if first["finished"] else None
        for target in case.targets:
            limit = max(PATIENCE * best[target], SHORTEST)
            run = _seconds(problem, model, flow, target, solver, limit)
            if run["finished"] and (run["seconds"] < BRIEF or run["compile_seconds"] > COMPILED):
                run = min(run, _seconds(problem, model, flow, target, solver, limit), key=lambda run: run["seconds"])
            found[target][solver] = run
            if run["finished"]:
                best[target] = min(best[target], run["seconds"])
    rows = []
    for target, runs in found.items():
        named = [run["seconds"] for name, run in runs.items() if name != "auto" and run["finished"]]
        ratio = runs["auto"]["seconds"] / min(named) if named and "auto" in runs else None
        rows.append({"case": case.name, "target": target, "ratio": ratio, "cold_seconds": cold, "runs": runs})
        print(line(rows[-1]), flush=True)
    named_cold = [seconds for name, seconds in cold.items() if name != "auto" and seconds is not None]
    if named_cold and cold.get("auto"):
        rows[0]["cold_ratio"] = cold["auto"] / min(named_cold)
        print(f"  cold: {rows[0]['cold_ratio']:.2f}  {cold}", flush=True)
    return rows


def _seconds(problem, model, flow, target: float, solver: str, limit: float, **options) -> dict:
    """One run to the target, ended after `limit` seconds."""
    stop = gn.RelativeLoss(target)

    def end(number, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit)
    began = time.perf_counter()
    try:
        trajectory = gn.simulate(problem, model, flow, stop=stop, solver=solver, throw=False, **options)
    except KeyboardInterrupt:
        return {"finished": False, "seconds": time.perf_counter() - began}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    stats = trajectory.stats
    return {
        "finished": not trajectory.result.failed,
        "seconds": time.perf_counter() - began,
        "result": str(trajectory.result.code),
        "solver": stats["solver"],
        "reason": stats["solver_reason"],
        "steps": stats["num_steps"],
        "velocities": stats.get("num_velocity_evaluations"),
        "solutions": stats["num_solutions"],
        "estimated_error": stats["estimated_error"],
        "end": float(trajectory.data.time[-1]),
        "compile_seconds": stats["compile_seconds"],
    }


def summary(rows: list[dict]) -> dict:
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    if not ratios:
        return {}
    cold = [row["cold_ratio"] for row in rows if "cold_ratio" in row]
    return {
        "num_rows": len(ratios),
        "worst_ratio": max(ratios),
        "median_ratio": statistics.median(ratios),
        "worst_cold_ratio": max(cold, default=None),
        "median_cold_ratio": statistics.median(cold) if cold else None,
    }


def line(row: dict) -> str:
    def cell(run: dict) -> str:
        return f"{run['seconds']:.2f}" if run["finished"] else f">{run['seconds']:.2f}"

    runs = row["runs"]
    taken = runs.get("auto", {}).get("solver", "")
    cells = "  ".join(f"{name} {cell(run)} ({run.get('steps', '')})" for name, run in runs.items())
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return f"{row['case']} {row['target']:g}: {cells}  [{taken}] {ratio}"


def page(rows: list[dict]) -> str:
    header = ["case", "target", "auto is", "ratio"]
    cells = [
        [row["case"], f"{row['target']:g}", row["runs"].get("auto", {}).get("solver", ""), row["ratio"] or ""]
        for row in rows
    ]
    return aligned(header, cells) + f"\n{summary(rows)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--solvers", default="")
    given = parser.parse_args()
    main(given.only, tuple(name for name in given.solvers.split(",") if name))
