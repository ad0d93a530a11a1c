import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
from sweeps.processes import by_seed, environment, is_running, tiny_sweep

import gnflow as gn
from gnflow._core import _machine, available_memory_gib, num_cores
from gnflow.sweeps import LocalEngine, run_cell
from gnflow.sweeps._cell import CellOutcome, read_cell
from gnflow.sweeps._environment import worker_settings
from gnflow.sweeps._memory import estimated_memory_gib
from gnflow.sweeps._schedule import Schedule
from gnflow.sweeps._task import Task, largest_first, program_of, tasks_of
from gnflow.sweeps._worker import READY, send
from gnflow.sweeps._worker_process import WorkerProcess

CELLS = tiny_sweep(seeds=range(5), scales=[1.0]).cells


def task(seed, program="a", memory=0.1):
    return Task(CELLS[seed], program, memory)


def seed_of(task):
    return task.cell.seed


def take_all(schedule, own=None):
    taken = []
    while (got := schedule.take(own, set(), 10.0)) is not None:
        taken.append(seed_of(got))
    return taken


class TestSchedule:
    def test_a_worker_keeps_its_program(self):
        tasks = [task(1, "a"), task(2, "b"), task(3, "a"), task(4, "b")]
        assert take_all(Schedule(tasks, lambda cell: True), own="b") == [2, 4, 1, 3]

    def test_a_program_that_no_other_worker_has_goes_first(self):
        schedule = Schedule([task(1, "a"), task(2, "b"), task(3, "b")], lambda cell: True)
        assert seed_of(schedule.take(None, {"a"}, 10.0)) == 2

    def test_then_the_one_with_most_waiting(self):
        schedule = Schedule([task(1, "a"), task(2, "b"), task(3, "b")], lambda cell: True)
        assert seed_of(schedule.take("c", {"a", "b"}, 10.0)) == 2

    def test_only_what_fits_into_memory_is_started(self):
        schedule = Schedule([task(1, "a", 5.0), task(2, "b", 1.0)], lambda cell: True)
        assert seed_of(schedule.take("a", set(), 2.0)) == 2
        assert schedule.take("a", set(), 2.0) is None
        assert seed_of(schedule.take("a", set(), np.inf)) == 1

    def test_what_is_not_wanted_any_more_is_passed_over(self):
        schedule = Schedule([task(seed) for seed in range(4)], lambda cell: cell.seed % 2 == 1)
        assert take_all(schedule) == [1, 3]
        assert len(schedule) == 0


class TestTasks:
    def test_a_program_is_shared_by_numbers_and_seeds_but_not_by_shapes(self):
        spec = tiny_sweep(seeds=(0, 1), scales=(0.1, 1.0))
        assert len({program_of(cell) for cell in spec.cells}) == 1
        wider = tiny_sweep(axes={"width": {"path": "model.width", "values": [6, 7]}})
        assert len({program_of(cell) for cell in wider.cells}) == 2

    def test_large_cells_come_first_and_equal_ones_in_order(self):
        spec = tiny_sweep(seeds=(0, 1), axes={"width": {"path": "model.width", "values": [6, 60]}})
        found = [(cell.model["width"], cell.seed) for cell in largest_first(spec.cells)]
        assert found == [(60, 0), (60, 1), (6, 0), (6, 1)]
        # The engines keep the order they are given.
        assert [each.cell for each in tasks_of(spec.cells)] == list(spec.cells)

    def test_memory_grows_with_the_arrays(self):
        spec = tiny_sweep(axes={"n": {"path": "problem.n_train", "values": [5, 300]}})
        small, large = map(estimated_memory_gib, spec.cells)
        assert 0 < small < 1e-3
        assert large >= 8 * 10 * 300**2 / 2**30


class TestEnvironment:
    def test_threads_are_the_worker_s_share(self, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=true --xla_dump_to=there")
        settings = worker_settings(1, None)
        assert settings["OPENBLAS_NUM_THREADS"] == settings["OMP_NUM_THREADS"] == settings["PJRT_NPROC"] == "1"
        assert settings["XLA_FLAGS"] == "--xla_dump_to=there --xla_cpu_multi_thread_eigen=false"
        assert "JAX_COMPILATION_CACHE_DIR" not in settings
        assert worker_settings(3, None)["XLA_FLAGS"].endswith("eigen=true")

    def test_the_machine_has_cores_and_memory(self):
        assert 1 <= num_cores() <= os.cpu_count()
        assert 0 < available_memory_gib() < 1e5

    def test_the_tightest_group_decides(self, monkeypatch, tmp_path):
        def group(path, **files):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (tmp_path / path / name.replace("_", ".", 1)).write_text(text)

        monkeypatch.setattr(_machine, "_CGROUPS", tmp_path)
        monkeypatch.setattr(_machine, "_MEMBERSHIP", tmp_path / "membership")
        (tmp_path / "membership").write_text("4:memory:/job\n0::/outer/inner\n")
        group("outer/inner", memory_max="max", memory_current="0", cpu_max="max 100000")
        group("outer", memory_max=str(2**27), memory_current=str(2**26), cpu_max="100000 100000")
        assert available_memory_gib() == 2**-4
        assert num_cores() == 1
        # Pages of files that can be dropped are not lost.
        group("outer", memory_stat=f"anon 5\ninactive_file {2**25}\n")
        assert available_memory_gib() == 3 * 2**-5
        group("memory/job", memory_limit_in_bytes=str(2**24), memory_usage_in_bytes=str(2**24 - 2**20))
        assert available_memory_gib() == 2**-10

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"workers": 0}, "workers = 0"),
            ({"memory_gib": -1.0}, "memory_gib = -1.0"),
            ({"retries": -1}, "retries = -1"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(gn.ConfigError, match=message):
            LocalEngine(**options)


class TestInThisProcess:
    def test_a_failing_cell_does_not_stop_the_others(self):
        axes = {"step": {"path": "integration.step_size", "values": [1e200, 0.5, -1.0]}}
        outcomes = list(LocalEngine(workers=1).run(tiny_sweep(axes=axes).cells))
        assert [outcome.record["code"] for outcome in outcomes] == ["non_finite", "num_steps_reached", "error"]
        assert "step_size = -1.0" in outcomes[2].record["message"]

    def test_cells_that_are_not_wanted_are_not_computed(self):
        cells = tiny_sweep(seeds=range(4), scales=[1.0]).cells
        outcomes = LocalEngine(workers=1).run(cells, lambda cell: cell.seed != 2)
        assert sorted(by_seed(outcomes, cells)) == [0, 1, 3]


class TestWorkers:
    def test_deaths_are_survived_and_blamed_on_the_guilty_alone(self, orders, tmp_path):
        cells = tiny_sweep(seeds=range(6), scales=[1.0]).cells
        orders.give(1, deaths=1)
        orders.give(3, deaths=100)
        orders.give(5, wait=True)
        engine = LocalEngine(workers=2, compilation_cache=tmp_path / "cache", retries=1)
        running = engine.run(cells)
        found = by_seed(itertools.islice(running, 5), cells)
        while orders.waiting(5) is None:
            time.sleep(0.05)
        # Closing it ends what still runs.
        running.close()
        assert not is_running(orders.waiting(5))
        codes = {seed: outcome.record["code"] for seed, outcome in found.items()}
        assert codes == {seed: "worker_died" if seed == 3 else "num_steps_reached" for seed in range(5)}
        assert "SIGKILL" in found[3].record["message"]
        assert found[3].record["failed"]
        attempts = [line["seed"] for line in orders.log]
        assert [attempts.count(seed) for seed in range(5)] == [1, 2, 1, 2, 1]
        # Each worker keeps its share of the cores busy, and no more.
        share = max(1, num_cores() // 2)
        assert {line["threads"] for line in orders.log} <= {0, share}
        assert share in {line["threads"] for line in orders.log}
        # What a worker computes is what this process computes.
        for cell in (cells[0], cells[1]):
            here, there = (
                read_cell(outcome.payload, outcome.content_hash)[0] for outcome in (run_cell(cell), found[cell.seed])
            )
            np.testing.assert_array_equal(here["train_loss"], there["train_loss"])

    def test_two_messages_at_once_are_both_received(self, monkeypatch, tmp_path):
        outcome = CellOutcome("0123", b"payload", {})
        # A worker that is ready and has finished a cell before anybody looked.
        with (tmp_path / "messages").open("wb") as file:
            send(READY, file)
            send(outcome, file)
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/messages; cat > /dev/null\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        with contextlib.closing(WorkerProcess(os.environ)) as worker:
            received = []
            for _ in range(2):
                assert wait([worker.fileno()], timeout=20)
                received.append(worker.receive())
        assert received == [None, outcome]

    @pytest.mark.slow
    def test_workers_do_not_outlive_their_engine(self, orders, tmp_path):
        orders.give(0, wait=True)
        program = (
            "from sweeps.processes import tiny_sweep; from gnflow.sweeps import LocalEngine; "
            "import jax; jax.config.update('jax_enable_x64', True); "
            "list(LocalEngine(workers=2).run(tiny_sweep(scales=[1.0]).cells))"
        )
        paths = os.pathsep.join([orders.environment["PYTHONPATH"], str(Path(__file__).parents[1])])
        engine = subprocess.Popen(
            [sys.executable, "-c", program], env=environment(tmp_path, PYTHONPATH=paths, MPLBACKEND="Agg")
        )
        while (worker := orders.waiting(0)) is None:
            assert engine.poll() is None
            time.sleep(0.05)
        assert is_running(worker)
        engine.send_signal(signal.SIGKILL)
        engine.wait()
        for _ in range(200):
            if not is_running(worker):
                break
            time.sleep(0.05)
        assert not is_running(worker)

    def test_workers_that_cannot_start_are_an_error_not_failed_cells(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(gn.ConfigError, match=r"no worker process can be started .*exit code 1"):
            list(LocalEngine(workers=2, compilation_cache=False).run(tiny_sweep().cells))

    def test_a_cell_too_large_for_the_budget_is_told(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(gn.ConfigError):
            list(LocalEngine(workers=2, compilation_cache=False, memory_gib=0.1).run(tiny_sweep().cells))
        assert "it runs alone" in capsys.readouterr().err
