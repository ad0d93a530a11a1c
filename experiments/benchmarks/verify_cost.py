"""Checking every theorem about a single run, against the run itself, at the paper's size and with the default saves."""

import time

import jax

jax.config.update("jax_enable_x64", True)

from _record import aligned, peak_memory_gib, store  # noqa: E402 (after the setting)
from paper_problem import paper_problem  # noqa: E402

import gnflow as gn  # noqa: E402


def main() -> None:
    problem, model, gauss_newton = paper_problem()
    rows = []
    for name, flow in (("gradient", gn.flows.GradientFlow()), ("gauss_newton", gauss_newton)):

        def run(flow=flow):
            return gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-8))

        seconds, peaks, trajectory = {}, {}, None
        for compiled in ("with", "without"):
            began = time.perf_counter()
            trajectory = run()
            seconds[f"run_{compiled}_compilation"] = time.perf_counter() - began
            peaks["run"] = peak_memory_gib()
            began = time.perf_counter()
            certificates = gn.theory.verify(trajectory)
            seconds[f"verify_{compiled}_compilation"] = time.perf_counter() - began
        evidence = gn.theory.Evidence(trajectory)
        parts = {}
        for kind in gn.theory.theorem_kinds.values():
            if not kind.own_runs:
                began = time.perf_counter()
                kind().certify(evidence)
                parts[kind.name] = time.perf_counter() - began
        verdicts = {c.theorem: str(c.verdict) for c in certificates}
        rows.append({"flow": name, "seconds": seconds, "by_theorem": parts, "verdicts": verdicts})
        rows[-1] |= {"peak_gib_after_run": peaks["run"], "peak_gib_after_verify": peak_memory_gib()}
    store("verify_cost", {"n_train": 500, "width": 5000, "rows": rows})
    names = list(rows[0]["seconds"])
    print(aligned(["flow", *names], [[row["flow"], *(row["seconds"][n] for n in names)] for row in rows]))
    for row in rows:
        print(row["flow"], {k: round(v, 2) for k, v in row["by_theorem"].items()}, row["verdicts"])


if __name__ == "__main__":
    main()
