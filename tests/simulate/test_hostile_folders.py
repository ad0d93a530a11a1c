"""Folders that somebody else wrote: whatever stands in them, reading gives a run or one clear error, and little memory.

What a folder may make its reader do is stated in docs/bad_input.md; these are attempts at more.
"""

import contextlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import gnflow as gn

GOOD = Path(__file__).parents[1] / "fixtures" / "version_0_1_0" / "own_model"
ARRAYS, DATA, RECORD = "arrays.npz", "trajectory.nc", "run.json"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOOD, tmp_path / "run"))


def rewrite(folder, name, content, compression=zipfile.ZIP_STORED):
    """The arrays of a run, one of which has other bytes."""
    with zipfile.ZipFile(folder / ARRAYS) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    entries[name] = content
    with zipfile.ZipFile(folder / ARRAYS, "w", compression) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)


def npy(header, data=b""):
    """A file of NumPy's format with a header of one's own."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def refused(folder, message):
    with pytest.raises(gn.RunFolderError, match=message):
        gn.load(folder)


class TestArrays:
    def test_compressed_ones_are_not_expanded(self, folder):
        zeros = io.BytesIO()
        np.save(zeros, np.zeros((4_000_000,)))
        rewrite(folder, "model.hidden_weight.npy", zeros.getvalue(), zipfile.ZIP_DEFLATED)
        assert (folder / ARRAYS).stat().st_size < 2**20
        refused(folder, "compressed")

    def test_a_header_of_80_terabytes(self, folder):
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
        rewrite(folder, "model.hidden_weight.npy", npy(header, bytes(96)))
        refused(folder, "its header states")

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': 3, }",
            "{'descr': '<f8', 'fortran_order': False}",
            "__import__('os').system('false')",
            "(" * 90,
            "",
        ],
    )
    def test_headers_that_are_none(self, folder, header):
        rewrite(folder, "model.hidden_weight.npy", npy(header, bytes(24)))
        refused(folder, "damaged")

    def test_a_pickle_is_not_loaded(self, folder):
        pickled = io.BytesIO()
        np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        rewrite(folder, "model.hidden_weight.npy", pickled.getvalue())
        refused(folder, "Python objects, which are never read")

    def test_entries_that_say_less_than_they_hold(self, folder):
        content = bytearray((folder / ARRAYS).read_bytes())
        place = content.rfind(b"PK\x01\x02")
        content[place + 24 : place + 28] = (2**31).to_bytes(4, "little")  # the size in the directory
        (folder / ARRAYS).write_bytes(content)
        refused(folder, "damaged|compressed")


class TestRecord:
    def test_nested_deep(self, folder):
        record = json.loads((folder / RECORD).read_text())
        record["stats"]["deep"] = "HERE"
        text = json.dumps(record).replace('"HERE"', "[" * 100_000 + "]" * 100_000)
        (folder / RECORD).write_text(text)
        refused(folder, "nested too deep")

    def test_larger_than_any(self, folder, monkeypatch):
        monkeypatch.setattr("gnflow._core._foreign._LARGEST_JSON", 1000)
        refused(folder, "too many for what gnflow keeps")

    @pytest.mark.parametrize("part", ["result", "stats", "settings", "objects", "versions"])
    @pytest.mark.parametrize("value", [None, 5, "text", [1]])
    def test_parts_of_another_type(self, folder, part, value):
        record = json.loads((folder / RECORD).read_text())
        record[part] = value
        (folder / RECORD).write_text(json.dumps(record))
        refused(folder, "damaged")

    def test_objects_of_two_runs(self, folder):
        record = json.loads((folder / RECORD).read_text())
        with np.load(folder / ARRAYS) as file:
            arrays = {name: file[name] for name in file.files}
        arrays["model.hidden_weight"] = np.zeros((6, 3))  # of three inputs, where the data have two
        np.savez(folder / ARRAYS, **arrays)
        (folder / RECORD).write_text(json.dumps(record))
        refused(folder, "cannot be called on one training input")


def places(tree, path=()):
    """Every place of a JSON tree."""
    yield path
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(item, (*path, key))


PLACES = list(places(json.loads((GOOD / RECORD).read_text())))[1:]
ODD = [None, True, -1, 1e400, "", "x\0", [], {}, 10**30, ["a"], {"__class__": "gnflow.__main__:X"}, {"__tuple__": 3}]
ODD += [{"__array__": ["a"]}, {"__opaque__": 1}, {"__array__": "problem.x_train"}, {"__class__": None}, [[[[]]]]]


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), st.sampled_from(ODD))
def test_any_value_in_any_place(tmp_path_factory, path, value):
    record = json.loads((GOOD / RECORD).read_text())
    above = record
    for key in path[:-1]:
        above = above[key]
    above[path[-1]] = value
    folder = Path(shutil.copytree(GOOD, tmp_path_factory.mktemp("hostile") / "run"))
    (folder / RECORD).write_text(json.dumps(record))
    try:
        said = str(gn.load(folder).result)
    except gn.RunFolderError as error:
        said = str(error)
        assert str(folder) in said
    finally:
        shutil.rmtree(folder)
    assert "\n" not in said


class TestData:
    def edit(self, folder, change):
        with h5py.File(folder / DATA, "r+") as file:
            change(file)

    def test_a_data_set_that_is_larger_than_its_file(self, folder):
        self.edit(folder, lambda file: file.create_dataset("huge", shape=(10**10,), dtype="f8", chunks=(1000,)))
        refused(folder, "says that it holds")

    def test_a_link_to_another_file(self, folder, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["secret"] = np.arange(3.0)
        self.edit(folder, lambda file: file.__setitem__("x", h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")))
        refused(folder, "a link to something else, which is not followed")

    def test_the_bytes_of_another_file(self, folder, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(24))
        outside = [(str(tmp_path / "secret"), 0, 24)]
        self.edit(folder, lambda file: file.create_dataset("x", shape=(3,), dtype="f8", external=outside))
        refused(folder, "refers to other files, which are not read")

    def test_a_view_of_another_file(self, folder, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["secret"] = np.arange(3.0)

        def view(file):
            layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", shape=(3,))
            file.create_virtual_dataset("x", layout)

        self.edit(folder, view)
        refused(folder, "refers to other files, which are not read")

    def test_many_texts_that_are_one(self, folder):
        def repeat(file):
            kind = h5py.string_dtype()
            file.create_dataset("texts", shape=(10**6,), dtype=kind, fillvalue="x" * 2000, chunks=(10**6,))

        self.edit(folder, repeat)
        refused(folder, "texts, which may take more memory")

    @pytest.mark.parametrize(
        "change",
        [
            lambda file: file.__delitem__("train_loss"),
            lambda file: file.__delitem__("time"),
            lambda file: file.create_group("nested"),
        ],
        ids=["no loss", "no time", "a group"],
    )
    def test_what_is_no_trajectory(self, folder, change):
        self.edit(folder, change)
        refused(folder, "damaged|no variable")

    def test_bit_flips(self, folder):
        """Wherever a bit turns, what is read is an error, or losses that somebody could have written."""
        content = (folder / DATA).read_bytes()
        for place in range(0, len(content), len(content) // 25):
            flipped = bytearray(content)
            flipped[place] ^= 0x10
            (folder / DATA).write_bytes(flipped)
            with contextlib.suppress(gn.RunFolderError):
                assert gn.load(folder).data["train_loss"].ndim == 1
