"""Every theorem about a single run on a grid of (flow, tau0, N, activation), and [A]'s figure: rates against the conditioning.

    python experiments/theorems/run.py [smoke | laptop | paper]

Writes results/SIZE.csv (a line for each run and theorem), results/SIZE-rates.csv and, for the size of the docs (laptop), the
figure docs/images/theorems_rates.png and results/table.md. The results are written after each run.
"""

import csv
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import figures  # noqa: E402 (after the setting)
from tqdm import tqdm  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Size:
    """The grid of one size: every combination, to one relative loss."""

    samples: tuple[int, ...]
    width: int
    init_scales: tuple[float, ...]
    activations: tuple[str, ...]
    relative_loss: float


SIZES = {
    "smoke": Size((6,), 40, (1.0,), ("silu",), 1e-3),
    "laptop": Size((20, 100), 1000, (0.1, 1.0, 10.0), ("silu", "tanh"), 1e-6),
    "paper": Size((100, 500, 1000), 5000, (0.1, 1.0, 10.0), ("silu", "tanh"), 1e-6),
}
FLOWS = {
    "gradient flow": gn.flows.GradientFlow(),
    "Gauss-Newton, eps = sigma_min": gn.flows.GaussNewtonFlow(damping=gn.damping.SmallestEigenvalue(1.0, floor=0.0)),
    "Gauss-Newton, eps = 0": gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0)),
    "spectral flow, s = 1/2": gn.flows.SpectralFlow(0.5),
    "random features, gradient flow": gn.flows.Frozen(gn.flows.GradientFlow()),
}


def main(name: str) -> None:
    size = SIZES[name]
    cells = list(itertools.product(size.activations, size.samples, FLOWS, size.init_scales))
    rows, rates = [], []
    for activation, count, flow_name, init_scale in tqdm(cells, unit="run", disable=not sys.stderr.isatty()):
        labels = {"activation": activation, "N": count, "flow": flow_name, "tau0": init_scale}
        cell_rows, cell_rates = cell(labels, size)
        rows += cell_rows
        rates += cell_rates
        write_csv(HERE / "results" / f"{name}.csv", rows)
        write_csv(HERE / "results" / f"{name}-rates.csv", rates)
    environment = {"command": f"python experiments/theorems/run.py {name}", "versions": versions()}
    (HERE / "results" / f"{name}.json").write_text(json.dumps(environment, indent=1) + "\n")
    for verdict in gn.theory.Verdict:
        print(f"{verdict}: {sum(row['verdict'] == str(verdict) for row in rows)} of {len(rows)}")
    if name == "laptop":
        figures.main()


def cell(labels: dict, size: Size) -> tuple[list[dict], list[dict]]:
    """The verdicts of one run, and the rates and bands at its times."""
    key = jax.random.key(0)
    problem = gn.problems.teacher_student(
        n_train=labels["N"], n_test=500, input_dim=10, teacher_width=5, activation=labels["activation"], key=key
    )
    model = gn.models.MeanFieldNetwork(
        10, size.width, activation=labels["activation"], init_scale=labels["tau0"], key=key
    )
    began = time.perf_counter()
    stop = gn.RelativeLoss(size.relative_loss)
    trajectory = gn.simulate(problem, model, FLOWS[labels["flow"]], stop=stop, throw=False)
    run_seconds, began = time.perf_counter() - began, time.perf_counter()
    evidence = gn.theory.Evidence(trajectory)
    certificates = [kind().certify(evidence) for kind in gn.theory.theorem_kinds.values() if not kind.own_runs]
    seconds = {"run_seconds": run_seconds, "verify_seconds": time.perf_counter() - began}
    steps = {"result": str(trajectory.result.code), "steps": trajectory.stats["num_accepted_steps"]}
    rows = [
        labels | {"theorem": c.theorem, "verdict": str(c.verdict), "reason": c.reason} | steps | seconds
        for c in certificates
    ]
    return rows, [] if evidence.reference is None else rates_of(labels, evidence)


def rates_of(labels: dict, evidence: gn.theory.Evidence) -> list[dict]:
    """A line for each measured time."""
    band = evidence.band
    columns = {
        "rate": band.rate,
        "low": band.lower,
        "high": band.upper,
        "smallest": band.smallest,
        "largest": band.largest,
        "eigenvalue_error": band.eigenvalue_error,
        "damping": band.damping,
        "time": band.times,
    }
    return [labels | {name: float(values[i]) for name, values in columns.items()} for i in range(len(band.times))]


def write_csv(path: Path, rows: list[dict]) -> None:
    if rows:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1] not in SIZES):
        sys.exit(f"usage: python experiments/theorems/run.py [{' | '.join(SIZES)}]")
    main(sys.argv[1] if len(sys.argv) == 2 else "laptop")
