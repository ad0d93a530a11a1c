import os
import sys
import time

import pytest
from sweeps.processes import by_seed, tiny_sweep

import gnflow as gn
from gnflow.config import RunSpec
from gnflow.sweeps import DaskEngine, _clusters, _dask, run_cell

# Neither comes with the tests: pip install 'gnflow[slurm]'.
dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

# Sockets and event loops of clusters that are closed are collected after the test; the engine's own tests look for leftovers.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def codes(outcomes, cells):
    return {seed: outcome.record["code"] for seed, outcome in by_seed(outcomes, cells).items()}


def test_a_worker_killed_midway_is_replaced_and_its_cell_tried_again(orders, tmp_path):
    cells = tiny_sweep(seeds=range(4), scales=[1.0]).cells
    orders.give(1, deaths=1)
    orders.give(2, deaths=100)
    engine = DaskEngine("local", workers=2, compilation_cache=tmp_path / "cache", retries=2)
    outcomes = list(engine.run(cells))
    found = codes(outcomes, cells)
    assert found == {seed: "worker_died" if seed == 2 else "num_steps_reached" for seed in range(4)}, [
        outcome.record["message"] for outcome in outcomes
    ]
    attempts = [line["seed"] for line in orders.log]
    assert attempts.count(2) == 3
    # A result that lay on the worker of another cell when that died is computed again: more than two are possible.
    assert attempts.count(1) >= 2
    # Nested pools would keep more cores busy than there are.
    assert max(line["threads"] for line in orders.log) <= max(1, (os.cpu_count() or 1) // 2)


def test_workers_that_cannot_start_are_an_error_not_waited_for(monkeypatch):
    monkeypatch.setattr(_dask, "_TICK", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(gn.GnflowError, match="no worker process"):
        list(DaskEngine("local", workers=1, compilation_cache=False).run(tiny_sweep().cells))


@pytest.mark.parametrize("name", ["walltime", "n_workers", "worker_class"])
def test_options_a_local_cluster_does_not_have(name):
    with pytest.raises(gn.ConfigError, match=rf"no option '{name}'; it has .*dashboard_address"):
        list(DaskEngine("local", **{name: "1"}).run(tiny_sweep().cells))


@pytest.fixture(scope="module")
def address():
    # A worker in a thread of this process: what is tested is the way there.
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def engine(address, monkeypatch):
    monkeypatch.setattr(_dask, "_ADDRESSES", ("inproc://",))
    return DaskEngine(address)


RUNNING, AT_ONCE = [], []


def counted(table, sources):
    """The work of a worker, which notes how many cells it has at once."""
    RUNNING.append(table)
    AT_ONCE.append(len(RUNNING))
    time.sleep(0.1)
    RUNNING.pop()
    return run_cell(RunSpec.from_dict(table))


class TestSchedulerThatRuns:
    def test_failing_and_unwanted_cells(self, engine):
        axes = {"step": {"path": "integration.step_size", "values": [1e200, 0.5, -1.0]}}
        cells = tiny_sweep(seeds=(0, 1), axes=axes).cells
        outcomes = list(engine.run(cells, lambda cell: cell.seed == 0))
        assert sorted(outcome.record["code"] for outcome in outcomes) == ["error", "non_finite", "num_steps_reached"]

    def test_a_worker_of_many_threads_has_one_cell_at_a_time(self, engine, monkeypatch):
        cells = tiny_sweep(seeds=range(4), scales=[1.0]).cells
        monkeypatch.setattr(_dask, "work", counted)
        assert len(list(engine.run(cells))) == 4
        assert AT_ONCE == [1] * 4

    def test_closing_early(self, engine):
        cells = tiny_sweep(seeds=range(5), scales=[1.0]).cells
        running = engine.run(cells)
        next(running)
        running.close()
        assert len(list(engine.run(cells))) == 5

    def test_no_cells(self, engine):
        assert list(engine.run([])) == []

    def test_its_workers_are_its_own(self):
        with pytest.raises(gn.ConfigError, match=r"memory_gib = 2\.0, but the scheduler at tcp://there:1 has workers"):
            DaskEngine("tcp://there:1", memory_gib=2.0)


def test_no_scheduler_at_the_address(monkeypatch):
    monkeypatch.setattr(_dask, "_CONNECT", 0.2)
    with pytest.raises(gn.ConfigError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        list(DaskEngine("tcp://127.0.0.1:9").run(tiny_sweep().cells))


_SBATCH = """#!/bin/sh
number=$(ls "$FAKE"/job-*.sh 2>/dev/null | wc -l)
cp "$1" "$FAKE/job-$number.sh"
setsid bash "$FAKE/job-$number.sh" > "$FAKE/job-$number.log" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
_SCANCEL = """#!/bin/sh
echo "$@" >> "$FAKE/cancelled"
for job in "$@"; do kill -KILL -- "-$job" 2>/dev/null; done
exit 0
"""


class TestSlurm:
    @pytest.fixture
    def queue(self, tmp_path, monkeypatch):
        """Commands sbatch and scancel that run job scripts on this machine."""
        for name, text in (("sbatch", _SBATCH), ("scancel", _SCANCEL)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("FAKE", str(tmp_path))
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return tmp_path

    @pytest.mark.slow
    def test_a_job_that_ends_is_submitted_again(self, queue, orders, monkeypatch):
        monkeypatch.setattr(_dask, "_TICK", 0.5)
        cells = tiny_sweep(seeds=range(2), scales=[1.0]).cells
        orders.give(1, deaths=1, group=True)  # as at the job's time limit
        engine = DaskEngine(
            "slurm", workers=1, threads=3, memory_gib=2.5, walltime="00:20:00", queue="long", compilation_cache=False
        )
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "500 ms"}):
            found = codes(engine.run(cells), cells)
        assert found == {0: "num_steps_reached", 1: "num_steps_reached"}
        assert [line["seed"] for line in orders.log].count(1) == 2
        scripts = sorted(queue.glob("job-*.sh"))
        assert len(scripts) == 2
        script = scripts[0].read_text()
        for line in (
            "#SBATCH -p long",
            "#SBATCH -t 00:20:00",
            "#SBATCH --cpus-per-task=3",
            "#SBATCH --mem=3G",
            "export OPENBLAS_NUM_THREADS='3'",
            "export PJRT_NPROC='3'",
            "export JAX_ENABLE_X64='1'",
        ):
            assert line in script.splitlines()
        assert "--nthreads 1 " in script  # one cell at a time
        assert (queue / "cancelled").read_text().strip()  # no job is left behind

    def test_options_it_does_not_have(self, queue):
        with pytest.raises(gn.ConfigError, match=r"make no dask_jobqueue\.SLURMCluster"):
            list(DaskEngine("slurm", ouch=1).run(tiny_sweep().cells))

    def test_a_machine_without_slurm(self, monkeypatch):
        monkeypatch.setattr(_clusters.shutil, "which", lambda name: None)
        with pytest.raises(gn.ConfigError, match="no command sbatch"):
            list(DaskEngine("slurm").run(tiny_sweep().cells))
