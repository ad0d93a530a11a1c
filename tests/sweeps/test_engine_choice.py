"""Engines by name, and what is said where one cannot be had: all of it without Dask."""

import sys

import pytest
from sweeps.processes import tiny_sweep

import gnflow as gn
from gnflow.sweeps import DaskEngine
from gnflow.sweeps._choice import make_engine


@pytest.mark.parametrize(
    ("cluster", "module", "extra"), [("local", "distributed", "dask"), ("slurm", "dask_jobqueue", "slurm")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, cluster, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(gn.ConfigError, match=rf"needs {module} .*pip install 'gnflow\[{extra}\]'"):
        list(DaskEngine(cluster).run(tiny_sweep().cells))


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("pbs", {}, "expected one of local, serial, dask, slurm"),
        ("slurm", {"workers": 0}, "workers = 0"),
        ("dask", {"memory_gib": 0.0}, "memory_gib = 0.0"),
        ("local", {"walltime": "1:00"}, "the local engine has no option 'walltime'"),
        ("serial", {"workers": 2}, "the serial engine has no option 'workers'; it has none"),
        ("dask", {"cluster": "slurm"}, "cluster = 'slurm' is given beside engine = 'dask'"),
        (DaskEngine(), {"workers": 2}, "workers is given beside an engine"),
        ("http://host", {}, "expected 'local', 'slurm' or the address"),
    ],
)
def test_bad_engines(engine, options, message):
    with pytest.raises(gn.ConfigError, match=message):
        make_engine(engine, **options)
