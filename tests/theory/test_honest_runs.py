"""Runs that nobody has tampered with are never called violations: a sample of experiments/benchmarks/honest_runs.py."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

_FILE = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks" / "honest_runs.py"
_SPECIFICATION = importlib.util.spec_from_file_location("honest_runs", _FILE)
assert _SPECIFICATION is not None
assert _SPECIFICATION.loader is not None
honest_runs = importlib.util.module_from_spec(_SPECIFICATION)
sys.modules["honest_runs"] = honest_runs
_SPECIFICATION.loader.exec_module(honest_runs)

DRAWN = np.random.default_rng(12)


def test_there_are_400_runs_of_enough_combinations():
    combinations = honest_runs.COMBINATIONS.values()
    assert sum(one.seeds for one in combinations) == 400
    assert len(combinations) >= 20


# Seeds of which the exact rate used to be called violated, and others. On kinks a run takes very many steps.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 27, *DRAWN.choice(40, 2, replace=False).tolist()])
def test_undamped_gauss_newton_on_relu(seed):
    found = honest_runs.verdicts("relu, Gauss-Newton", seed)
    assert "violated" not in found.values(), found
    assert found["exact rate"] == found["sandwich"] == "assumptions not met"


@pytest.mark.slow
@pytest.mark.parametrize("name", honest_runs.COMBINATIONS)
def test_one_run_of_every_combination(name):
    seed = int(np.random.default_rng(sorted(honest_runs.COMBINATIONS).index(name)).integers(honest_runs.SEEDS))
    assert "violated" not in honest_runs.verdicts(name, seed).values()
