"""Compiled programs on disk: where, how many, and that the next process finds them."""

import os
import subprocess
import sys

import jax
import pytest

import gnflow as gn
from gnflow._core import compilation_cache_folder

TWICE = """
import jax
jax.config.update("jax_enable_x64", True)
import gnflow as gn
counts = {"/jax/compilation_cache/cache_hits": 0, "/jax/compilation_cache/cache_misses": 0}
def count(event, **_):
    if event in counts:
        counts[event] += 1
jax.monitoring.register_event_listener(count)
gn.compilation_cache(shortest=0.0)
problem = gn.problems.teacher_student(n_train=8, n_test=8, input_dim=2, teacher_width=2, key=jax.random.key(0))
model = gn.models.MeanFieldNetwork(input_dim=2, width=10, key=jax.random.key(1))
gn.simulate(problem, model, gn.flows.GaussNewtonFlow(), metrics=(gn.metrics.PathLength(),))
print(*counts.values())
"""


@pytest.fixture
def kept_configuration(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    values = [getattr(jax.config, name) for name in names]
    yield
    for name, value in zip(names, values, strict=True):
        jax.config.update(name, value)


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation_cache_folder(False, "folder") is None
    assert compilation_cache_folder(True, "folder") == tmp_path / "gnflow" / "compiled"
    assert compilation_cache_folder(tmp_path / "here", "folder") == tmp_path / "here"
    assert (tmp_path / "here").is_dir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert compilation_cache_folder(True, "folder") == tmp_path / "mine"
    (tmp_path / "file").touch()
    with pytest.raises(gn.ConfigError, match=r"^folder = .* cannot be made a folder"):
        gn.compilation_cache(tmp_path / "file" / "folder")


def test_programs_that_were_longest_not_used_are_removed(kept_configuration, tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert gn.compilation_cache(tmp_path, max_bytes=250) == tmp_path
    assert sorted(file.name for file in tmp_path.iterdir()) == ["middle", "new"]
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert gn.compilation_cache(False) is None
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.slow
def test_the_next_process_compiles_nothing(tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    hits_and_misses = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True, check=True
        )
        hits_and_misses.append([int(count) for count in done.stdout.split()])
    (_, compiled), (found, missed) = hits_and_misses
    assert compiled > 5
    assert found > 5
    assert missed == 0
