"""The digits studies of the reversible network, their numbers, figures and the tables of docs/reversible_study.md.

    python experiments/reversible/run.py [STUDY ...] [--out DIR] [--seeds 0 1 2 3 4] [--workers 2] [--smoke]

STUDY is full_batch, mini_batch, small_batch, full_batch_long or exact_flow; all of them if none is named. The cells lie in DIR
(runs/reversible), one folder for each sweep, and what is there is not computed again. results/ keeps the numbers of all studies
that have been run, from which figures and tables are made. With --smoke the sizes are tiny and everything is written to DIR.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import exact_flow  # noqa: E402 (after the setting)
import report  # noqa: E402
import studies  # noqa: E402

from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent
EXACT_FLOW = "exact_flow"


def main() -> None:
    known = studies.named_studies()
    arguments = read_arguments([*known, EXACT_FLOW])
    names, out = arguments.studies or [*known, EXACT_FLOW], Path(arguments.out)
    results = out / "results" if arguments.smoke else HERE / "results"
    results.mkdir(parents=True, exist_ok=True)
    seeds = tuple(arguments.seeds)
    selection = (100,) if arguments.smoke else studies.SELECTION_SEEDS
    for name in names:
        began = time.perf_counter()
        if name == EXACT_FLOW:
            record = exact_flow.run(seeds, results, 50 if arguments.smoke else studies.BOTTLENECK, out / name)
        else:
            study = studies.smoke(known[name]) if arguments.smoke else known[name]
            losses, chosen = studies.select(study, out / name / "select", selection, arguments.workers)
            print(f"{name}: chosen {chosen}", flush=True)
            studies.report(study, chosen, out / name / "report", seeds, arguments.workers)
            record = report.store(study, losses, chosen, out / name, results)
            record["step_seconds"] = report.step_seconds(study, out / name)
            record["selection_seeds"] = list(selection)
        record |= {
            "command": "python experiments/reversible/run.py",
            "seeds": list(seeds),
            "seconds_of_the_last_call": time.perf_counter() - began,
            "versions": versions(),
        }
        (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    finished = all((results / f"{name}.json").is_file() for name in known)
    if not finished:
        print("Not all studies in steps have been run: no figures, no tables.", file=sys.stderr)
        return
    report.write_up(results, out if arguments.smoke else None)


def read_arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The digits studies of the reversible network.")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--out", default="runs/reversible", help="folder of the cells")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(studies.REPORT_SEEDS), help="of what is reported")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    arguments = parser.parse_args()
    unknown = set(arguments.studies) - set(names)
    if unknown:
        parser.error(f"unknown study {', '.join(sorted(unknown))}; expected some of {', '.join(names)}")
    overlap = set(arguments.seeds) & set(studies.SELECTION_SEEDS)
    if overlap:
        parser.error(f"the seeds {sorted(overlap)} choose the learning rates; report others")
    return arguments


if __name__ == "__main__":
    main()
