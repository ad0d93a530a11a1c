"""The protocol of Arbel et al.'s released code, as far as it fits the time: one command that goes on where it stopped.

    python experiments/arbel/run.py [--out runs/arbel] [--seeds 5] [--minutes 60] [--only PART ...] [--size smoke]

Parts, in this order, each seed by seed so that a grid that is not finished has whole seeds: random features in closed form
(random_features.py), what the a priori theorem says of pre-trained starts (pretrained.py), runs from such starts
(pretrained.toml), gradient flow and Gauss-Newton flow (protocol.toml), and steps of lambda = 10 (gradient_steps.toml,
gauss_newton_steps.toml). No part begins a seed when the minutes are over. Then results/*.csv and the tables of
docs/paper_size.md are written from what is there (report.py), and what is not there is marked as not run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)
sys.path.append(str(Path(__file__).parents[1]))

import pretrained  # noqa: E402 (after the setting)
import random_features  # noqa: E402
import report  # noqa: E402

import gnflow as gn  # noqa: E402

HERE = Path(__file__).parent


def main() -> None:
    """Compute what is missing, as long as there is time, and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/arbel"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--size", choices=("smoke",))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.only:
        if part in _ROWS:
            compute, size, most = _ROWS[part]
            seeds = range(min(1 if arguments.size else arguments.seeds, most))
            in_rows(arguments.out / f"{part}.jsonl", arguments.size or size, seeds, compute, until)
        else:
            for count in range(1, arguments.seeds + 1):
                sweep_to(count, part, arguments.out, arguments.size, until)
    if not arguments.size:
        report.write(arguments.out)


# Parts that are rows of numbers: what computes one, the size of protocol.toml, the most seeds.
_ROWS: dict[str, tuple[Callable[..., dict[str, Any]], str | None, int]] = {
    "random_features_laptop": (random_features.three_ways, "laptop", 3),
    "pretrained_start": (pretrained.row_of, "laptop", 3),
    "random_features": (random_features.three_ways, None, 5),
}
PARTS = (*_ROWS, "pretrained", "protocol", "gradient_steps", "gauss_newton_steps")


def in_rows(
    path: Path,
    size: str | None,
    seeds: range,
    compute: Callable[[gn.Problem, gn.models.MeanFieldNetwork], dict[str, float]],
    until: float,
) -> None:
    """A line of JSON for each seed and scale that `path` does not have yet."""
    spec = gn.read_sweep(HERE / "protocol.toml", size, [(("seeds",), list(seeds))])
    done = set()
    if path.is_file():
        done = {(row["tau0"], row["seed"]) for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    cells = [cell for cell in spec.cells if cell.flow_name == "gradient_flow"]
    for cell in sorted(cells, key=lambda cell: cell.seed):
        place = {"tau0": cell.model["init_scale"], "seed": cell.seed}
        if tuple(place.values()) in done or time.monotonic() > until:
            continue
        made = cell.prepare()
        row = place | compute(made.problem, made.model)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(path.stem, place, flush=True)


def sweep_to(seeds: int, name: str, out: Path, size: str | None, until: float) -> None:
    """The first seeds of a sweep, as many as are given and it has, unless the time is over."""
    if time.monotonic() < until:
        spec = gn.read_sweep(HERE / f"{name}.toml", size)
        gn.sweep(
            gn.read_sweep(HERE / f"{name}.toml", size, [(("seeds",), spec.seeds[:seeds])]), out / name, engine="serial"
        )


if __name__ == "__main__":
    main()
