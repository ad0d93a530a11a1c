"""Whether the fast tests see what they should: `python experiments/mutation/run.py [--commit COMMIT] [--jobs 2] [NAME ...]`.

Each place of mutants.toml is made wrong in a copy of the commit, and the tests beside it are run there until one fails.
Prints and stores under results/ which test that was, or that none was.
"""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LONGEST = 1800  # seconds, of the tests of one mutant: a run that does not end is seen, too


def copy_of(commit: str, folder: Path) -> None:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)


def mutate(mutant: dict[str, Any], folder: Path) -> None:
    file = folder / mutant["file"]
    text = file.read_text(encoding="utf-8")
    if text.count(mutant["text"]) != 1:
        sys.exit(f"{mutant['name']}: {mutant['text']!r} stands {text.count(mutant['text'])} times in {mutant['file']}.")
    file.write_text(text.replace(mutant["text"], mutant["replacement"]), encoding="utf-8")


def first_failure(mutant: dict[str, Any], folder: Path, compiled: str) -> str | None:
    """The test that fails, or None if all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *mutant["tests"]]
    environment = {**os.environ, "PYTHONPATH": str(folder), "JAX_COMPILATION_CACHE_DIR": compiled}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"no end within {LONGEST} s"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or found is None:
        sys.exit(f"{mutant['name']}: {done.stdout}{done.stderr}")
    return found[1]


def outcome(mutant: dict[str, Any], commit: str, compiled: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        copy_of(commit, Path(place))
        mutate(mutant, Path(place))
        seen_by = first_failure(mutant, Path(place), compiled)
    print(f"{mutant['name']}: {seen_by or 'SURVIVES'}", flush=True)
    return {"name": mutant["name"], "file": mutant["file"], "seen_by": seen_by}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*", help="of mutants; all by default")
    given = parser.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    chosen = [mutant for mutant in mutants if not given.names or mutant["name"] in given.names]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", given.commit], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    command = f"python experiments/mutation/run.py {' '.join(sys.argv[1:])}".strip()
    with tempfile.TemporaryDirectory() as compiled, concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        tried = [pool.submit(outcome, mutant, commit, compiled) for mutant in chosen]
        found = []
        for one in concurrent.futures.as_completed(tried):
            found.append(one.result())
            store(command, commit, found)  # what is known is kept, whatever happens to the rest


def store(command: str, commit: str, found: list[dict[str, Any]]) -> None:
    caught = sum(one["seen_by"] is not None for one in found)
    record = {"command": command, "commit": commit, "caught": caught, "of": len(found), "mutants": found}
    file = HERE / "results" / f"{commit}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
