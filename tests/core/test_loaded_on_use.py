"""`import gnflow` loads nothing, every public name is there all the same, and LAPACK is loaded as it should be."""

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gnflow
from gnflow._core import load_lapack
from gnflow.simulate import Trajectory

ROOT = Path(__file__).resolve().parents[2]
SLOW_TO_LOAD = ("jax", "scipy.stats", "scipy.optimize", "matplotlib", "xarray", "pandas", "dask", "h5py")

FIRST_USE = f"""
import json, os, sys

def loaded():
    return [name for name in {SLOW_TO_LOAD} if name in sys.modules]

class Finder:  # notes how LAPACK is loaded
    def find_spec(self, name, path, target=None):
        if name == "scipy.linalg.cython_lapack":
            found["while_loading"] = os.environ.get("OPENBLAS_THREAD_TIMEOUT")

found = {{}}
sys.meta_path.insert(0, Finder())
before = dict(os.environ)
import gnflow
found["import"] = loaded()
found["environment_changed"] = dict(os.environ) != before
from gnflow.simulate import Trajectory  # binds the subpackage `simulate` to the package
found["simulate"] = type(gnflow.simulate).__name__
gnflow.problems, gnflow.models, gnflow.losses, gnflow.flows, gnflow.damping, gnflow.metrics, gnflow.optimisers
gnflow.iterate, gnflow.theory.verify, gnflow.solvers
found["use"] = loaded()
import jax
jax.config.update("jax_enable_x64", True)
problem = gnflow.Problem([[1.0], [2.0]], [1.0, 2.0], loss=gnflow.losses.SquaredLoss())
model = gnflow.models.MeanFieldNetwork.from_arrays([[1.0]], [0.0], [[1.0]], activation="silu")
found["lapack_before"] = "scipy.linalg.cython_lapack" in sys.modules
gnflow.System(problem, model)
found["lapack_after"] = "scipy.linalg.cython_lapack" in sys.modules
found["variable_left"] = "OPENBLAS_THREAD_TIMEOUT" in os.environ
print(json.dumps(found))
"""


def test_what_the_first_use_loads():
    # Not this process's environment, which gnflow may have changed already.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["import"] == []
    assert not found["environment_changed"]
    assert found["use"] == ["jax"]
    assert found["simulate"] == "function"
    assert not found["lapack_before"]
    assert found["lapack_after"]
    assert found["while_loading"] == "4"
    assert not found["variable_left"]


def test_a_waiting_time_of_the_user_s_stands(monkeypatch):
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "7")
    monkeypatch.delitem(sys.modules, "scipy.linalg.cython_lapack", raising=False)
    load_lapack()
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "7"
    assert "scipy.linalg.cython_lapack" not in sys.modules  # left to JAX


def declared():
    """Name by name, where type checkers are told that it comes from."""
    (block,) = (
        node
        for node in ast.parse(inspect.getsource(gnflow)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {alias.asname: line.module or "" for line in block.body for alias in line.names}


def test_type_checkers_and_users_see_the_same():
    assert declared() == gnflow._HOMES


def test_every_name_is_there():
    # In a module of its own, as a user's `from gnflow import *`.
    names = {}
    exec("from gnflow import *", names)
    assert declared().keys() <= names.keys()
    assert {*declared(), "__version__", "__doc__"} <= set(dir(gnflow))
    for name, home in declared().items():
        module = sys.modules[f"gnflow.{home or name}"]
        assert names[name] is getattr(gnflow, name) is (getattr(module, name) if home else module)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"no attribute 'GradientFlow'; it is gnflow\.flows\.GradientFlow"):
        gnflow.GradientFlow  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'Nonsense'$"):
        gnflow.Nonsense  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'gnflow' has no attribute 'simulat'"):
        gnflow.simulat  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Trajectori'"):
        exec("from gnflow import Trajectori")


def test_the_function_and_not_its_package():
    assert gnflow.simulate is sys.modules["gnflow.simulate"].simulate
    assert gnflow.Trajectory is Trajectory


def test_the_version_has_one_place():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    assert f"\nversion: {gnflow.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
