"""The table of truth: default runs of 200 small problems against an independent solution of the same flow (docs/truth.md).

References do not depend on gnflow's solvers. They are stored in a folder, and computed anew where there is none yet or where
the flow itself has changed; remaking the table from them takes the time of the runs. Each row is written
to that folder as it comes, so that --resume goes on where a table of this tree was left; the table is stored once its last
row is there.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)
from _record import RESULTS, aligned, store  # noqa: E402
from truth_page import write_page  # noqa: E402
from truth_problems import COMBINATIONS, DATA_KINDS, Row, rows  # noqa: E402
from truth_reference import RECOMPUTE, reference  # noqa: E402
from truth_run import PROMISE, ROUNDING_ALLOWANCE, VERDICTS, compare  # noqa: E402

from gnflow._core import forget_compiled_programs  # noqa: E402

REFERENCES = Path(__file__).parent / "references"
TIME_LIMIT = 20.0
_SHOWN = ("index", "combination", "data", "result", "steps", "error", "estimated_error", "test_output_error", "verdict")


def main() -> None:
    """Compute the references that are missing, run, compare, store, write the page."""
    options = _options()
    if options.page_only:
        write_page(json.loads((RESULTS / "truth.json").read_text())["rows"])
        return
    records = []
    for row in _chosen(options):
        kept = options.references / "rows" / f"{row.index}.json"
        if options.resume and kept.exists():
            records.append(json.loads(kept.read_text()))
            continue
        found = reference(row, options.references, options.time_limit, options.recompute)
        print(f"{row.title}: reference {found.status} ({found.method}, {found.seconds:.1f} s)", flush=True)
        if options.references_only:
            continue
        records.append(_as_json(compare(row, found)))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(records[-1]))
        print("  " + ", ".join(f"{name} {_text(records[-1].get(name))}" for name in _SHOWN[3:]), flush=True)
        forget_compiled_programs()
    if options.references_only:
        return
    print(aligned(list(_SHOWN), [[_text(record.get(name)) for name in _SHOWN] for record in records]))
    print({verdict: sum(record["verdict"] == verdict for record in records) for verdict in VERDICTS})
    if len(records) == len(rows()):
        store("truth", {"promise": PROMISE, "rounding_allowance": ROUNDING_ALLOWANCE, "rows": records})
        write_page(records)


def _chosen(options: argparse.Namespace) -> list[Row]:
    return [
        row
        for row in rows()
        if (not options.rows or row.index in options.rows)
        and (not options.combination or row.combination.name in options.combination)
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--references", type=Path, default=REFERENCES, help="the folder of references")
    parser.add_argument("--references-only", action="store_true", help="compute what is missing and end")
    parser.add_argument("--recompute", choices=RECOMPUTE, default="none", help="which stored references to ignore")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="processor seconds for each integration")
    parser.add_argument("--rows", type=int, nargs="*", help=f"some of 0 to {len(COMBINATIONS) * len(DATA_KINDS) - 1}")
    names = [combination.name for combination in COMBINATIONS]
    parser.add_argument("--combination", nargs="*", choices=names, help="all rows of these")
    parser.add_argument("--resume", action="store_true", help="take the rows that a run of this tree has left")
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored table")
    return parser.parse_args()


def _text(value: Any) -> str:
    return f"{value:.2e}" if isinstance(value, float) else "" if value is None else str(value)


def _as_json(value: Any) -> Any:
    """JSON has no nan: nothing stands for it."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s")
