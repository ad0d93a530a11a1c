"""The study of dual directions: its runs, numbers, figures and the tables of docs/dual_study.md.

    python experiments/dual/run.py [PART ...] [--out DIR]

PART is phase (the sweep of phase.toml into DIR, runs/dual_phase; cells that are there are not computed again), digits,
convolutional (on mnist_5k and Fashion-MNIST, with its tables; it goes on where it was stopped), benchmark (the cost of a
direction) or report (tables and figures from what is stored); all of them, in this order, if none is named.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("phase", "digits", "convolutional", "benchmark", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description="The study of dual directions.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", default="runs/dual_phase", help="folder of the sweep")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    commands = {
        "phase": [["-m", "gnflow", "sweep", str(HERE / "phase.toml"), "--out", arguments.out]],
        "digits": [[str(HERE / "digits.py")]],
        "convolutional": [[str(HERE / "convolutional.py")], [str(HERE / "report_convolutional.py")]],
        "benchmark": [[str(HERE.parent / "benchmarks" / "run.py"), "dual_direction"]],
        "report": [[str(HERE / "report.py"), arguments.out], [str(HERE / "report_convolutional.py")]],
    }
    # Each in a process of its own: the times of one are not those of a process that holds the others' programs.
    for part in arguments.parts or PARTS:
        print(f"== {part}", flush=True)
        for command in commands[part]:
            subprocess.run([sys.executable, *command], check=True)


if __name__ == "__main__":
    main()
