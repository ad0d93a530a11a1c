"""Folders of sweeps that somebody else wrote, or edited: what is not gnflow's is found out, and costs its reader nothing."""

import io
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from grids import TABLE, outcome_like

import gnflow as gn
from gnflow.config import Specification
from gnflow.sweeps import SweepStore, _store
from gnflow.sweeps._cell import _digest, read_cell
from gnflow.sweeps._netcdf import from_netcdf, to_netcdf

SPEC = Specification.from_dict(TABLE)
OLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1_0" / "sweep"


@pytest.fixture(scope="module")
def outcomes():
    trajectory = SPEC.cells[0].run()
    return {cell.content_hash(): outcome_like(cell, trajectory) for cell in SPEC.cells}


@pytest.fixture
def full(tmp_path, outcomes):
    store = SweepStore(tmp_path / "sweep")
    store.begin(SPEC)
    for outcome in outcomes.values():
        store.put(outcome)
    return store


@pytest.fixture
def opened(monkeypatch):
    """The cells whose files are read."""
    found = []
    whole = _store.read_cell
    monkeypatch.setattr(_store, "read_cell", lambda payload, key: found.append(key) or whole(payload, key))
    return found


def edit_line(store, number, **changes):
    """One line of the index, changed."""
    index = store.folder / "index.jsonl"
    lines = index.read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **changes})
    index.write_text("\n".join(lines) + "\n")


def values_of(records):
    return {key: {k: v for k, v in record.items() if k != "mtime_ns"} for key, record in records.items()}


def in_truth(outcomes):
    return {key: outcome.record for key, outcome in outcomes.items()}


class TestIndex:
    @pytest.mark.parametrize(
        "changes",
        [{"finals": {"train_loss": 1e-9}}, {"code": "stop_rule_met"}, {"time": 7.0}, {"gnflow": "9"}],
    )
    def test_edited_numbers_are_found_out_by_checking(self, changes, full, outcomes, capsys):
        edit_line(full, 1, **changes)
        assert values_of(full.finished(SPEC.hashes)) != in_truth(outcomes)  # the index is believed
        assert values_of(full.finished(SPEC.hashes, check=True)) == in_truth(outcomes)
        told = capsys.readouterr().err
        assert "index.jsonl said otherwise of 1 cells" in told
        assert SPEC.hashes[1] in told
        # And the line is mended.
        assert values_of(full.finished(SPEC.hashes)) == in_truth(outcomes)
        full.finished(SPEC.hashes, check=True)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        "changes",
        [
            *(
                {name: None}
                for name in ("hash", "code", "message", "failed", "time", "wall_seconds", "finals", "targets")
            ),
            *({name: None} for name in ("gnflow", "size", "sha256")),
            {"finals": 5},
            {"finals": {"train_loss": None}},
            {"finals": {"train_loss": [1.0]}},
            {"finals": {"train_loss": "1_0"}},
            {"finals": [["train_loss", 1.0]]},
            {"targets": {"1e-01": {}}},
            {"num_steps": "3"},
            {"num_steps": -1},
            {"num_steps": True},
            {"num_steps": 10**30},
            {"failed": 0},
            {"failed": "no"},
            {"failed": True},  # with a code of a run that did not fail
            {"code": "x"},
            {"finals": {}},
            {"time": "soon"},
            {"time": 10**400},
            {"time": True},
            {"message": 3},
            {"code": ["error"]},
            {"size": 1.5},
        ],
        ids=str,
    )
    def test_a_field_of_another_type_makes_no_line(self, changes, full, outcomes, opened):
        edit_line(full, 0, **changes)
        assert values_of(full.finished(SPEC.hashes)) == in_truth(outcomes)
        assert opened == [SPEC.hashes[0]]
        assert full.set_aside == []

    @pytest.mark.parametrize(
        "text", ["[" * 200_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "x" * 3 * 2**20, "9" * 10_000]
    )
    def test_deep_and_long_lines_are_passed_over(self, text, full, outcomes):
        index = full.folder / "index.jsonl"
        index.write_text(text + "\n" + index.read_text() + text)
        assert values_of(full.finished(SPEC.hashes)) == in_truth(outcomes)


def changed_cell(outcome, change):
    """A cell's file with a right checksum, changed by somebody who knows how they are made."""
    data = from_netcdf(outcome.payload)
    data = change(data) or data
    data.attrs["digest"] = _digest(data)
    return to_netcdf(data)


def attribute(name, value):
    return lambda data: data.attrs.update({name: value})


def without(name):
    return lambda data: data.attrs.pop(name) and None


SPECIFICATION = SPEC.cells[0].to_dict()
CHANGES = {
    **{f"no {name}": without(name) for name in ("specification", "versions", "result_code", "failed", "wall_seconds")},
    "no losses": lambda data: data.drop_vars("train_loss"),
    "losses of two dimensions": lambda data: data.assign(train_loss=(("step", "b"), np.ones((data.sizes["step"], 2)))),
    "no times": lambda data: data.drop_vars("flow_time"),
    "a null specification": attribute("specification", "null"),
    "a deep specification": attribute("specification", "[" * 60_000),
    "null fields": attribute("specification", json.dumps({**SPECIFICATION, "problem": None})),
    "null metrics": attribute("specification", json.dumps({**SPECIFICATION, "metrics": [None]})),
    "a variant that is a number": attribute("specification", json.dumps({**SPECIFICATION, "variant": 3})),
    "versions that are a list": attribute("versions", "[]"),
    "a version that is a number": attribute("versions", '{"gnflow": 3}'),
    "deep versions": attribute("versions", '{"a":' * 10_000),
    "stats that are a number": attribute("stats", "3"),
    "steps that are text": attribute("stats", '{"num_steps": "many"}'),
    "a message that is an array": attribute("result_message", np.ones(3)),
    "a format that is an array": attribute("gnflow_cell_format", np.ones(3)),
    "a code that is a number": attribute("result_code", 3),
    "a wall time that is text": attribute("wall_seconds", "long"),
    "a minimum that is an array": attribute("loss_minimum", np.ones(7)),
}


class TestCells:
    @pytest.mark.parametrize("kind", CHANGES)
    def test_what_no_run_gives_is_set_aside_with_a_reason(self, kind, full, outcomes, capsys):
        victim = SPEC.hashes[0]
        full.place(victim).write_bytes(changed_cell(outcomes[victim], CHANGES[kind]))
        assert set(full.finished(SPEC.hashes)) == set(SPEC.hashes) - {victim}
        (told,) = full.set_aside
        assert victim in told
        assert told in capsys.readouterr().err

    def test_a_right_checksum_alone_is_no_reason_to_set_aside(self, full, outcomes):
        victim = SPEC.hashes[0]
        full.place(victim).write_bytes(changed_cell(outcomes[victim], lambda data: None))
        assert set(full.finished(SPEC.hashes)) == set(SPEC.hashes)

    def write(self, outcomes, change):
        """A file that `change` has written to as HDF5."""
        content = io.BytesIO(outcomes[SPEC.hashes[0]].payload)
        with h5py.File(content, "r+") as file:
            change(file)
        return content.getvalue()

    def refused(self, payload, reason):
        with pytest.raises(gn.RunFolderError, match=reason):
            read_cell(payload, SPEC.hashes[0])

    def test_a_file_that_expands_is_not_expanded(self, outcomes):
        def expand(file):
            file.create_dataset("huge", shape=(10**12,), dtype="f8", chunks=(10**6,), compression="gzip")

        self.refused(self.write(outcomes, expand), "says that it holds")

    def test_a_link_is_not_followed(self, outcomes):
        def link(file):
            file["other"] = h5py.ExternalLink("/etc/hostname", "/")

        self.refused(self.write(outcomes, link), "is a link to something else")

    def test_text_that_many_entries_share_is_not_read(self, outcomes):
        self.refused(
            self.write(outcomes, lambda file: file.create_dataset("text", data=["a"] * 5, dtype=h5py.string_dtype())),
            "gnflow's are numbers",
        )
        self.refused(
            self.write(outcomes, lambda file: file.attrs.create("texts", ["a" * 100] * 100, dtype=h5py.string_dtype())),
            "an array of .* texts",
        )

    def test_a_file_larger_than_any_cell_is_not_opened(self, full):
        victim = SPEC.hashes[0]
        os.truncate(full.place(victim), 2**33)  # sparse: it takes no disk
        assert victim not in full.finished(SPEC.hashes)
        assert "more than a cell" in full.set_aside[0]


class TestVersions:
    def test_cells_of_two_versions_are_said_once_and_stand_in_the_data_set(self, full, capsys):
        edit_line(full, 0, gnflow="0.0.9")
        capsys.readouterr()
        data = gn.load(full.folder)
        assert data.attrs["versions"] == f"0.0.9, {gn.__version__}"
        told = capsys.readouterr().err
        assert told.count("several versions of gnflow: 0.0.9") == 1
        gn.sweep(SPEC, full.folder, workers=1)
        assert capsys.readouterr().err.count("several versions of gnflow: 0.0.9") == 1

    def test_of_one_version_nothing_is_said(self, full, capsys):
        assert gn.load(full.folder).attrs["versions"] == gn.__version__
        assert capsys.readouterr().err == ""


class TestOlderFolders:
    def test_a_sweep_is_read_checked_and_gone_on_with(self, tmp_path):
        folder = shutil.copytree(OLDER, tmp_path / "sweep")
        before = gn.load(folder)
        assert before.attrs["versions"] == "0.1.0"
        (folder / "index.jsonl").unlink()
        xr.testing.assert_identical(gn.load(folder), before)
        spec = SweepStore(folder).read_specification()
        victim = spec.hashes[-1]
        SweepStore(folder).place(victim).unlink()
        again = gn.sweep(folder / "sweep.toml", folder, workers=1, check=True)
        assert not (again["result"] == "missing").any()
        assert len(gn.sweeps.load_curves(folder)["train_loss"].dims) == 4


class TestPlaces:
    def test_a_folder_within_a_file_is_refused_before_anything_is_computed(self, tmp_path):
        (tmp_path / "note").write_text("mine")
        with pytest.raises(gn.RunFolderError, match=r"cannot be made, because .*note is a file"):
            gn.sweep(SPEC, tmp_path / "note" / "x", workers=1)

    def test_an_index_that_cannot_be_read(self, full):
        (full.folder / "index.jsonl").unlink()
        (full.folder / "index.jsonl").mkdir()
        with pytest.raises(gn.RunFolderError, match=r"index\.jsonl cannot be read"):
            full.finished(SPEC.hashes)

    def test_the_home_folder_is_meant_by_a_tilde(self, full, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert SweepStore("~/sweep").folder == full.folder
        xr.testing.assert_identical(gn.load("~/sweep"), gn.load(full.folder))
        assert gn.sweeps.load_curves("~/sweep")["train_loss"].dims[-1] == "save"
        assert (gn.sweep(SPEC, "~/sweep", workers=1)["result"] == "num_steps_reached").all()

    @pytest.mark.parametrize("name", ["", "a\0", "n" * 300])
    def test_what_is_no_path(self, name):
        for read in (SweepStore, gn.load, gn.sweeps.load_sweep, gn.sweeps.load_curves):
            with pytest.raises(gn.RunFolderError):
                read(name)


class TestSweepFiles:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"a = " + b"[" * 5000,
            b"a" + b".a" * 500 + b" = 1",
            b"seeds = 3",
            b"#" * 2**25,
            b"x = 2020-01-01",
        ],
        ids=lambda content: repr(content[:8]),
    )
    def test_one_that_is_none_is_named(self, content, full):
        (full.folder / "config.toml").write_bytes(content)
        for read in (gn.load, gn.sweeps.load_curves, lambda folder: gn.sweep(SPEC, folder, workers=1)):
            with pytest.raises(gn.RunFolderError, match=r"config\.toml cannot be read"):
                read(full.folder)

    def test_a_byte_order_mark_is_none_of_it(self, full):
        file = full.folder / "config.toml"
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert not (gn.load(full.folder)["result"] == "missing").any()

    def test_an_axis_of_an_earlier_version_that_hides_what_is_measured_is_refused(self, full):
        file = full.folder / "config.toml"
        file.write_text(file.read_text().replace("[axes.tau0]", "[axes.test_loss]"))
        with pytest.raises(gn.RunFolderError, match=r"'test_loss' cannot name a dimension.*test_loss_axis"):
            gn.load(full.folder)
        # Cells have no names: another name for the axis finds them again.
        file.write_text(file.read_text().replace("[axes.test_loss]", "[axes.scale]"))
        assert not (gn.load(full.folder)["result"] == "missing").any()
