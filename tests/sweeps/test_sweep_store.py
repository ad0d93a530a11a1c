import errno
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from grids import TABLE, outcome_like, table_with, with_axes

import gnflow as gn
from gnflow import RunFolderError
from gnflow._core import make_writable
from gnflow.config import Specification
from gnflow.sweeps import SweepStore, _cell, _index, _store
from gnflow.sweeps._cell import outcome_of_code

SPEC = Specification.from_dict(TABLE)


@pytest.fixture(scope="module")
def outcomes():
    trajectory = SPEC.cells[0].run()
    return {cell.content_hash(): outcome_like(cell, trajectory) for cell in SPEC.cells}


@pytest.fixture
def store(tmp_path):
    store = SweepStore(tmp_path / "sweep")
    store.begin(SPEC)
    return store


@pytest.fixture
def full(store, outcomes):
    """A store that holds every cell."""
    for outcome in outcomes.values():
        store.put(outcome)
    return store


def same(records, outcomes):
    """Whether the records are those of the outcomes, whatever else a line of the index has."""
    return {key: {k: v for k, v in record.items() if k != "mtime_ns"} for key, record in records.items()} == {
        key: outcome.record for key, outcome in outcomes.items()
    }


def files(store):
    return sorted(path for path in (store.folder / "cells").rglob("*") if path.is_file())


class TestKeeping:
    def test_what_is_put_is_finished(self, store, outcomes):
        first, second, *_ = SPEC.hashes
        assert store.finished(SPEC.hashes) == {}
        store.put(outcomes[first])
        assert store.holds(first)
        assert not store.holds(second)
        assert same(store.finished(SPEC.hashes), {first: outcomes[first]})
        assert same(SweepStore(store.folder).finished([second, first]), {first: outcomes[first]})

    def test_a_cell_is_a_netcdf_file_that_says_what_it_is(self, full, outcomes):
        first = SPEC.hashes[0]
        with xr.open_dataset(full.place(first), engine="h5netcdf") as file:
            data = file.load()
        xr.testing.assert_identical(data.drop_attrs(), full.read(first).drop_attrs())
        trajectory = SPEC.cells[0].run()
        xr.testing.assert_equal(data, trajectory.data)
        assert data["kernel_distance"].attrs == trajectory.data["kernel_distance"].attrs
        assert gn.config.RunSpec.from_dict(json.loads(data.attrs["specification"])) == SPEC.cells[0]
        assert data.attrs["content_hash"] == first
        assert (data.attrs["result_code"], data.attrs["failed"]) == ("num_steps_reached", 0)
        assert data.attrs["wall_seconds"] == 0.5
        assert json.loads(data.attrs["versions"])["gnflow"] == gn.__version__
        assert json.loads(data.attrs["stats"])["num_steps"] == 3

    def test_a_cell_without_data_is_kept_too(self, store):
        outcome = outcome_of_code(SPEC.cells[0], "worker_died", "the process ended \0 with signal 9 \ud800")
        store.put(outcome)
        (store.folder / "index.jsonl").unlink()
        (record,) = store.finished(SPEC.hashes).values()
        assert (record["code"], record["failed"], record["finals"]) == ("worker_died", True, {})
        assert record["message"].startswith("the process ended")

    def test_many_finished_cells_are_not_opened(self, full, monkeypatch):
        def refuse(*arguments):
            raise AssertionError("a file was opened")

        monkeypatch.setattr(_store, "read_cell", refuse)
        assert len(full.finished(SPEC.hashes)) == len(SPEC.cells)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def turn_a_bit(path):
    # Somewhere in the numbers, where HDF5 itself notices nothing.
    data = xr.load_dataset(path, engine="h5netcdf")
    content = bytearray(path.read_bytes())
    place = content.find(data["train_loss"].to_numpy().tobytes())
    assert place > 0
    content[place + 5] ^= 1
    path.write_bytes(content)


def foreign(path):
    other = next(cell for cell in files_beside(path) if cell != path)
    shutil.copyfile(other, path)


def files_beside(path):
    return sorted(path.parents[1].rglob("*.nc"))


def other_format(path):
    xr.Dataset({"a": ("b", [1.0])}).to_netcdf(path, engine="h5netcdf")


DAMAGE = {
    "truncated": (truncate, "cannot be read as netCDF"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as netCDF"),
    "text": (lambda path: path.write_text("a note"), "cannot be read as netCDF"),
    "one bit": (turn_a_bit, "its content is not what was written"),
    "another cell": (foreign, "it holds the cell"),
    "another file": (other_format, "no cell of format 1"),
}


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGE)
    @pytest.mark.parametrize("indexed", [True, False])
    def test_a_bad_file_is_named_set_aside_and_made_again(self, kind, indexed, full, outcomes, capsys):
        damage, reason = DAMAGE[kind]
        victim = SPEC.hashes[0]
        damage(full.place(victim))
        content = full.place(victim).read_bytes()
        if not indexed:
            (full.folder / "index.jsonl").unlink()
        store = SweepStore(full.folder)
        rest = {key: outcome for key, outcome in outcomes.items() if key != victim}
        assert same(store.finished(SPEC.hashes), rest)
        (told,) = store.set_aside
        assert victim in told
        assert reason in told
        assert told in capsys.readouterr().err
        assert (full.folder / "set_aside" / f"{victim}.nc").read_bytes() == content
        assert not store.holds(victim)
        store.put(outcomes[victim])
        assert same(SweepStore(full.folder).finished(SPEC.hashes), outcomes)

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE])
    def test_what_says_nothing_about_a_file_sets_none_aside(self, number, full, outcomes, monkeypatch):
        def fail(path):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", fail)
            patched.setattr(_index.Index, "read", lambda index: {})
            with pytest.raises(RunFolderError, match="cannot be read now"):
                full.finished(SPEC.hashes)
        assert full.set_aside == []
        assert same(full.finished(SPEC.hashes), outcomes)

    def test_too_little_memory_sets_none_aside(self, full, outcomes, monkeypatch):
        def fail(content):
            raise MemoryError

        (full.folder / "index.jsonl").unlink()
        with monkeypatch.context() as patched:
            patched.setattr(_cell, "from_netcdf", fail)
            with pytest.raises(MemoryError):
                full.finished(SPEC.hashes)
        assert same(full.finished(SPEC.hashes), outcomes)

    def test_files_of_the_same_name_are_all_kept_aside(self, full, outcomes):
        victim = SPEC.hashes[0]
        for _ in range(3):
            truncate(full.place(victim))
            full.finished(SPEC.hashes)
            full.put(outcomes[victim])
        assert len(list((full.folder / "set_aside").iterdir())) == 3

    def test_a_change_that_keeps_size_and_time_is_found_by_checking(self, full, outcomes):
        victim = SPEC.hashes[0]
        place = full.place(victim)
        before = place.stat()
        turn_a_bit(place)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert len(full.finished(SPEC.hashes)) == len(SPEC.cells)
        assert victim not in full.finished(SPEC.hashes, check=True)
        full.put(outcomes[victim])
        assert same(full.finished(SPEC.hashes, check=True), outcomes)

    def test_duplicates_and_strangers_are_set_aside_and_others_cells_stay(self, full, outcomes, capsys):
        first = full.place(SPEC.hashes[0])
        shutil.copyfile(first, first.with_name(f"{first.stem} (1).nc"))
        elsewhere = full.folder / "cells" / "zz"
        elsewhere.mkdir()
        shutil.copyfile(first, elsewhere / first.name)
        (full.folder / "cells" / "notes.txt").write_text("mine")
        (first.parent / ".hidden").write_text("a file manager's")
        mine = SPEC.hashes[:3]
        assert same(full.finished(mine), {key: outcomes[key] for key in mine})
        assert sorted(path.name for path in (full.folder / "set_aside").iterdir()) == sorted(
            [f"{first.stem} (1).nc", first.name, "notes.txt"]
        )
        assert len(full.set_aside) == 3
        assert same(full.finished(SPEC.hashes), outcomes)

    def test_a_good_file_that_replaced_a_bad_one_meanwhile_stays(self, full, outcomes, monkeypatch):
        victim = SPEC.hashes[0]
        truncate(full.place(victim))
        whole = _store.read_cell

        def slow(*arguments):
            # Another process is faster: it finds the file bad, and computes the cell.
            SweepStore(full.folder).put(outcomes[victim])
            return whole(*arguments)

        monkeypatch.setattr(_store, "read_cell", slow)
        full.finished([victim])
        assert full.set_aside == []
        assert same(full.finished(SPEC.hashes), outcomes)


class TestIndex:
    def test_without_it_everything_is_found_again(self, full, outcomes):
        before = full.finished(SPEC.hashes)
        index = full.folder / "index.jsonl"
        index.unlink()
        assert full.finished(SPEC.hashes) == before
        assert len(index.read_text().splitlines()) == len(SPEC.cells)

    def test_a_torn_line_loses_nothing(self, full, outcomes, monkeypatch):
        index = full.folder / "index.jsonl"
        os.truncate(index, index.stat().st_size - 40)
        opened = []
        whole = _store.read_cell
        monkeypatch.setattr(_store, "read_cell", lambda payload, key: opened.append(key) or whole(payload, key))
        assert same(full.finished(SPEC.hashes), outcomes)
        assert opened == [SPEC.hashes[-1]]
        # What was appended after the torn line is a line of its own.
        assert same(full.finished(SPEC.hashes), outcomes)
        assert len(opened) == 1

    def test_nonsense_in_it_is_passed_over(self, full, outcomes):
        index = full.folder / "index.jsonl"
        index.write_bytes(b'\xff\xfe[1]\n3\n{"hash": 3}\nnull\n\n' + index.read_bytes() + b'{"hash": "x"}\n')
        assert same(full.finished(SPEC.hashes), outcomes)

    def test_a_line_without_its_file_counts_for_nothing(self, full):
        full.place(SPEC.hashes[2]).unlink()
        assert set(full.finished(SPEC.hashes)) == set(SPEC.hashes) - {SPEC.hashes[2]}

    def test_a_copied_folder_is_trusted_by_its_checksums(self, full, outcomes, tmp_path, monkeypatch):
        shutil.copytree(full.folder, tmp_path / "copy", copy_function=shutil.copyfile)
        monkeypatch.setattr(_store, "read_cell", None)
        copied = SweepStore(tmp_path / "copy")
        assert same(copied.finished(SPEC.hashes), outcomes)


class Killed(BaseException):
    pass


class TestKilled:
    @pytest.mark.parametrize("call", ["fsync", "replace", "write"])
    @pytest.mark.parametrize("number", range(4))
    def test_at_any_call_a_cell_is_whole_or_missing(self, call, number, store, outcomes, monkeypatch):
        first, second, *_ = SPEC.hashes
        store.put(outcomes[first])
        count = 0
        true = getattr(os, call)

        def dies(*arguments):
            nonlocal count
            count += 1
            if count > number:
                raise Killed  # and so does every call after it: nothing can be tidied up
            return true(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, dies)
            patched.setattr(Path, "unlink", lambda *arguments, **options: None)
            try:
                store.put(outcomes[second])
                survived = True
            except Killed:
                survived = False
        again = SweepStore(store.folder)
        finished = again.finished(SPEC.hashes)
        assert again.set_aside == []
        assert first in finished
        assert survived <= (second in finished)
        again.put(outcomes[second])
        assert same(SweepStore(store.folder).finished(SPEC.hashes), {key: outcomes[key] for key in (first, second)})

    def test_what_dead_writers_left_is_removed(self, full):
        host = os.uname().nodename
        place = full.place(SPEC.hashes[0]).parent
        ended = subprocess.Popen(["true"])
        ended.wait()
        dead = place / f".{SPEC.hashes[0]}.nc~{host}~{ended.pid}~0.tmp"
        alive = place / f".{SPEC.hashes[0]}.nc~{host}~{os.getpid()}~9.tmp"
        elsewhere = place / f".{SPEC.hashes[0]}.nc~other-host~1~0.tmp"
        long_ago = place / f".{SPEC.hashes[0]}.nc~other-host~2~0.tmp"
        of_the_folder = full.folder / f".config.toml~{host}~{ended.pid}~0.tmp"
        for path in (dead, alive, elsewhere, long_ago, of_the_folder):
            path.write_bytes(b"half")
        os.utime(long_ago, (0, 0))
        assert len(full.finished(SPEC.hashes)) == len(SPEC.cells)
        assert [path.exists() for path in (dead, alive, elsewhere, long_ago, of_the_folder)] == [
            False,
            True,
            True,
            False,
            False,
        ]
        assert full.set_aside == []


def test_two_writers_do_not_corrupt_the_folder(store, outcomes):
    orders = [list(SPEC.hashes), list(SPEC.hashes)[::-1], list(SPEC.hashes)]
    failures = []

    def write(order):
        mine = SweepStore(store.folder)
        try:
            for _ in range(3):
                for content_hash in order:
                    mine.put(outcomes[content_hash])
                    mine.finished(SPEC.hashes)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    lines = (store.folder / "index.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) >= 9 * len(SPEC.cells)
    after = SweepStore(store.folder)
    assert same(after.finished(SPEC.hashes, check=True), outcomes)
    assert after.set_aside == []
    assert len(files(store)) == len(SPEC.cells)


def test_a_writer_waits_while_another_has_the_index(store, outcomes):
    first = SPEC.hashes[0]
    writer = threading.Thread(target=SweepStore(store.folder).put, args=(outcomes[first],))
    with store._index.locked():
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert not store.holds(first)
    writer.join()
    assert store.holds(first)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=512k", "gnflow", str(place)], check=False).returncode
    ):
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class TestFullDisk:
    def test_nothing_half_written_stays_and_the_cells_do(self, small_disk, outcomes):
        store = SweepStore(small_disk / "sweep")
        store.begin(SPEC)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(400_000))
        kept = []

        def put_all():
            for content_hash, outcome in outcomes.items():
                store.put(outcome)
                kept.append(content_hash)

        with pytest.raises(RunFolderError, match=r"cannot write to .*: the disk is full: free some space"):
            put_all()
        assert 0 < len(kept) < len(SPEC.cells)
        assert [path for path in files(store) if path.suffix != ".nc"] == []
        with pytest.raises(RunFolderError, match="the disk is full"):
            make_writable(store.folder)
        assert set(kept) <= set(SweepStore(store.folder).finished(SPEC.hashes))
        assert gn.load(store.folder)["result"].isin(["missing", "num_steps_reached"]).all()
        ballast.unlink()
        make_writable(store.folder)
        for outcome in outcomes.values():
            if not store.holds(outcome.content_hash):
                store.put(outcome)
        after = SweepStore(store.folder)
        assert same(after.finished(SPEC.hashes, check=True), outcomes)
        assert after.set_aside == []

    def test_an_index_that_cannot_grow_keeps_its_lines_whole(self, full, outcomes, monkeypatch):
        def no_space(descriptor, content):
            true(descriptor, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        true = os.write
        with monkeypatch.context() as patched:
            patched.setattr(_index.os, "write", no_space)
            with pytest.raises(RunFolderError, match="the disk is full"):
                full.put(outcomes[SPEC.hashes[0]])
        for line in (full.folder / "index.jsonl").read_text().splitlines():
            json.loads(line)
        assert same(full.finished(SPEC.hashes), outcomes)


class TestReadOnly:
    def test_what_is_there_can_be_read_and_nothing_is_computed(self, small_disk, outcomes, capsys):
        store = SweepStore(small_disk / "sweep")
        store.begin(SPEC)
        for content_hash in SPEC.hashes[:4]:
            store.put(outcomes[content_hash])
        truncate(store.place(SPEC.hashes[0]))
        (store.folder / "index.jsonl").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        store = SweepStore(store.folder)
        store.begin(SPEC)
        assert set(store.finished(SPEC.hashes)) == set(SPEC.hashes[1:4])
        assert "it is passed over, and cannot be set aside (Read-only file system)" in store.set_aside[0]
        assert int((gn.load(store.folder)["result"] != "missing").sum()) > 0
        for attempt in (lambda: make_writable(store.folder), lambda: store.put(outcomes[SPEC.hashes[5]])):
            with pytest.raises(RunFolderError, match=r"read-only file system: copy the folder"):
                attempt()
        with pytest.raises(RunFolderError, match="read-only file system"):
            SweepStore(small_disk / "new").begin(SPEC)


class TestBegin:
    def test_of_two_that_begin_at_once_the_second_sees_the_first(self, tmp_path, monkeypatch):
        first = with_axes(tau0={"path": "model.init_scale", "values": [3.0]})
        fits = SweepStore._fits

        def overtaken(store, *arguments):
            found = fits(store, *arguments)
            monkeypatch.setattr(SweepStore, "_fits", fits)
            SweepStore(tmp_path).begin(first)
            return found

        monkeypatch.setattr(SweepStore, "_fits", overtaken)
        with pytest.raises(RunFolderError, match="holds another sweep"):
            SweepStore(tmp_path).begin(SPEC)
        assert SweepStore(tmp_path).read_specification() == first

    def test_the_configuration_is_kept_and_read_back(self, store):
        assert store.read_specification() == SPEC
        store.begin(SPEC)
        assert sorted(path.name for path in store.folder.iterdir()) == ["config.toml", "index.jsonl"]

    def test_a_file_or_a_folder_of_other_things_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(RunFolderError, match="is a file; choose a folder"):
            SweepStore(tmp_path / "file").begin(SPEC)
        with pytest.raises(RunFolderError, match=r"holds other files \(file\) and no config\.toml"):
            SweepStore(tmp_path).begin(SPEC)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_another_sweep_is_refused_and_stays(self, store):
        other = Specification.from_dict(table_with(seeds=[0]))
        with pytest.raises(
            RunFolderError, match=r"holds another sweep: 9 of its 18 cells are not in this one \(such as tau0"
        ):
            store.begin(other)
        assert store.read_specification() == SPEC

    def test_values_and_seeds_may_be_added(self, full, outcomes):
        axes = {**TABLE["axes"], "tau0": {**TABLE["axes"]["tau0"], "values": [10, 1, 100.0, 0.1], "label": "tau0"}}
        larger = Specification.from_dict(table_with(axes=axes, seeds=[1, 0, 3]))
        full.begin(larger)
        assert full.read_specification() == larger
        assert same(full.finished(larger.hashes), outcomes)

    def test_cells_without_a_configuration_are_taken_over(self, full, outcomes):
        (full.folder / "config.toml").unlink()
        with pytest.raises(RunFolderError, match=r"holds no runs: there is no config\.toml"):
            full.read_specification()
        part = Specification.from_dict(table_with(seeds=[0]))
        full.begin(part)
        assert len(full.finished(part.hashes)) == 9

    def test_a_damaged_configuration_is_named(self, store):
        (store.folder / "config.toml").write_text("name = ")
        for attempt in (store.read_specification, lambda: store.begin(SPEC)):
            with pytest.raises(RunFolderError, match=r"config\.toml cannot be read: .* is not valid TOML"):
                attempt()


def test_a_missing_cell_cannot_be_read(store):
    with pytest.raises(RunFolderError, match="No such file"):
        store.read(SPEC.hashes[0])


def test_the_numbers_survive_exactly(full):
    first = SPEC.hashes[0]
    record = full.finished([first])[first]
    data = full.read(first)
    for name, value in record["finals"].items():
        np.testing.assert_equal(float(value), float(data[name].to_numpy()[-1]))
    assert set(record["finals"]) == {name for name in data.data_vars if data[name].ndim == 1}
