"""Features first against flows to convergence, early stopping and Adam: docs/features_first.md.

    python experiments/features_first/run.py [--size smoke|laptop|paper] [--out DIR] [--tiers K] [--cells NAME ...]

Each run is a line of results/SIZE.jsonl (or of DIR), written when it ends. What is there is not run again, so the command can
be stopped and repeated. Cells, methods and tiers are in cells.py and methods.py, tables and the figure come from report.py.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parent))

from cells import SIZES, Cell  # noqa: E402 (after the setting)
from methods import TIERS, Method, gradient_seconds  # noqa: E402

import gnflow as gn  # noqa: E402
from gnflow.simulate import versions  # noqa: E402

HERE = Path(__file__).parent
OF_ALL = "one gradient"  # the record of a cell and seed that is no method


def main(size: str, out: Path, tiers: int, only: list[str]) -> None:
    gn.compilation_cache()
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{size}.jsonl"
    (out / f"{size}_versions.json").write_text(json.dumps(versions(), indent=1) + "\n")
    cells, seeds = SIZES[size]
    known = read(file)
    for tier in TIERS[:tiers]:
        for cell in cells:
            for seed in seeds if not only or cell.name in only else ():
                missing = {name: method for name, method in tier.items() if (cell.name, seed, name) not in known}
                if missing:
                    _run(cell, seed, missing, known, file)


def _run(cell: Cell, seed: int, methods: dict[str, Method], known: dict[tuple[str, int, str], Any], file: Path) -> None:
    problem = cell.problem(seed)
    model = cell.model(seed, problem)
    if (cell.name, seed, OF_ALL) not in known:
        _keep(cell, seed, OF_ALL, {"cpu_seconds": gradient_seconds(problem, model)}, known, file)
    for name, method in methods.items():
        began, spent = time.perf_counter(), time.process_time()
        earlier = {method: record for (of, at, method), record in known.items() if (of, at) == (cell.name, seed)}
        record = method(problem, model, seed, earlier)
        record["cpu_seconds"] = time.process_time() - spent  # other work may share the machine
        _keep(cell, seed, name, record, known, file)
        print(
            f"{cell.name}, seed {seed}, {name}: {record['test_loss']:.3g} in {time.perf_counter() - began:.0f} s",
            flush=True,
        )


def _keep(
    cell: Cell, seed: int, name: str, record: dict[str, Any], known: dict[tuple[str, int, str], Any], file: Path
) -> None:
    known[cell.name, seed, name] = record
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"cell": cell.name, "seed": seed, "method": name, **record}) + "\n")


def read(file: Path) -> dict[tuple[str, int, str], Any]:
    """The stored records by cell, seed and method."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    records = [json.loads(line) for line in lines]
    return {(record["cell"], record["seed"], record["method"]): record for record in records}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--tiers", type=int, default=len(TIERS), help="how many of the tiers of methods to run")
    parser.add_argument("--cells", nargs="*", default=[], help="only these")
    given = parser.parse_args()
    main(given.size, given.out, given.tiers, given.cells)
