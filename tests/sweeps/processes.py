"""Cells that cost next to nothing, and worker processes that die or wait where a test says so."""

import json
import os
from pathlib import Path

from gnflow.config import Specification

SIZES = {"n_train": 5, "n_test": 4, "input_dim": 2}


def tiny_table(seeds=(0,), scales=(0.1, 1.0), **sections):
    """A sweep over tau0 and seeds whose runs take three steps."""
    return {
        "problem": {"kind": "teacher_student", **SIZES},
        "model": {"kind": "mean_field", "width": 6},
        "flows": {"descent": {"kind": "gradient"}},
        "integration": {"method": "iterate", "step_size": 0.5, "num_steps": 3},
        "axes": {"tau0": {"path": "model.init_scale", "values": list(scales)}},
        "seeds": list(seeds),
        **sections,
    }


def tiny_sweep(*args, **sections):
    return Specification.from_dict(tiny_table(*args, **sections))


# Python imports a module of this name when it starts, so it reaches any process, however that was started.
_SITE = """
import importlib.machinery, importlib.util, json, os, signal, sys, time
from pathlib import Path

FOLDER = Path(os.environ["GNFLOW_TEST_ORDERS"])
# Tests that run in the background of a shell ignore Ctrl-C, and their children with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


def thread_names():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            names.append(Path(f"/proc/self/task/{task}/comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):  # The thread has ended since it was listed.
            pass
    return names


def obey(seed):
    with (FOLDER / "threads.jsonl").open("a") as file:
        names = thread_names()
        file.write(json.dumps({"pid": os.getpid(), "seed": seed, "threads": names.count("tf_XLAEigen")}) + "\\n")
    order = FOLDER / f"{seed}.json"
    if not order.exists():
        return
    what = json.loads(order.read_text())
    if what["deaths"] > 0:
        order.write_text(json.dumps({**what, "deaths": what["deaths"] - 1}))
        if what["group"]:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if what["wait"]:
        (FOLDER / f"{seed}.waiting").write_text(str(os.getpid()))
        time.sleep(600)


class Finder:
    def find_spec(self, name, path, target=None):
        if name != "gnflow.config._run":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            run = module.RunSpec.run

            def obedient(cell, progress=False):
                obey(cell.seed)
                return run(cell, progress)

            module.RunSpec.run = obedient

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


class Orders:
    """What happens in processes that start from now on when they come to the cells of a seed.

    **Arguments:** `folder`: an empty one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "sitecustomize.py").write_text(_SITE)
        self.environment = {"PYTHONPATH": str(folder), "GNFLOW_TEST_ORDERS": str(folder)}

    def give(self, seed, deaths=0, wait=False, group=False):
        """Kill the process, or its group, at the first `deaths` attempts; wait for ever in the others."""
        text = json.dumps({"deaths": deaths, "wait": wait, "group": group})
        (self.folder / f"{seed}.json").write_text(text)

    def waiting(self, seed):
        """The process that waits at `seed`, or None."""
        file = self.folder / f"{seed}.waiting"
        text = file.read_text() if file.exists() else ""
        return int(text) if text else None

    @property
    def log(self):
        """A dictionary for each cell that was begun: pid, seed, threads."""
        return [json.loads(line) for line in (self.folder / "threads.jsonl").read_text().splitlines()]


def is_running(pid):
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment(cache: Path, **more):
    """Environment of a subprocess: as a user would start it, with programs compiled once for all of them."""
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    return {**inherited, "XDG_CACHE_HOME": str(cache), **more}


def by_seed(outcomes, cells):
    """The outcomes by the seed of their cell."""
    seeds = {cell.content_hash(): cell.seed for cell in cells}
    return {seeds[outcome.content_hash]: outcome for outcome in outcomes}
