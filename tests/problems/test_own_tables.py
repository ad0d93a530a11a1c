"""Problems of the user's tables: splits by a seed, data frames, Parquet, columns of text."""

import importlib.util
import re

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest

from gnflow._core import DataError
from gnflow.losses import SoftmaxCrossEntropy
from gnflow.problems import Names, Problem, diabetes, digits, from_file, from_frame, teacher_student

KEY = jax.random.key(0)
RNG = np.random.default_rng(5)
SPECIES = ["b", "a", "c"] * 10
FRAME = pd.DataFrame(RNG.normal(3.0, 2.0, (30, 4)), columns=["w", "x", "y", "z"]).assign(species=SPECIES)


@pytest.fixture
def table(tmp_path):
    """FRAME as a CSV file, with all digits."""
    FRAME.to_csv(tmp_path / "flowers.csv", index=False, float_format="%.17g")
    return tmp_path / "flowers.csv"


def rows_of(problem, which):
    """The rows of FRAME that a set holds, by its first input."""
    inputs = getattr(problem, f"x_{which}")
    found = [] if inputs is None else np.asarray(problem.restore_inputs(inputs))[:, 0]
    return [int(np.argmin(np.abs(FRAME["w"].to_numpy() - value))) for value in found]


def columns(**changed):
    return {"target": "z", "features": ["w", "x", "y"], "key": KEY, **changed}


def test_a_split_has_three_disjoint_parts(table):
    problem = from_file(table, **columns(n_train=12, n_validation=8, n_test=5, standardise=True))
    parts = [rows_of(problem, which) for which in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [12, 8, 5]
    assert len(set().union(*parts)) == 25
    # The way back gives the file's own numbers, and the training samples alone decide on the scale.
    np.testing.assert_allclose(problem.restore_outputs(problem.y_test)[:, 0], FRAME["z"].iloc[parts[2]], rtol=1e-12)
    np.testing.assert_allclose(problem.input_standardisation.mean, FRAME[["w", "x", "y"]].iloc[parts[0]].mean())
    np.testing.assert_allclose(problem.target_standardisation.scale, [FRAME["z"].iloc[parts[0]].std(ddof=0)])
    np.testing.assert_allclose(problem.x_train.mean(axis=0), 0.0, atol=1e-12)
    assert problem.names == Names(("w", "x", "y"), ("z",))


def test_validation_and_test_rows_do_not_depend_on_the_training_set(table):
    small, large = (from_file(table, **columns(n_train=n, n_validation=8, n_test=5)) for n in (4, 17))
    for which in ("validation", "test"):
        assert rows_of(small, which) == rows_of(large, which)
    assert rows_of(large, "train")[:4] == rows_of(small, "train")
    other = from_file(table, **columns(n_train=4, n_validation=8, n_test=5, key=jax.random.key(1)))
    assert rows_of(other, "test") != rows_of(small, "test")


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"n_train": 12, "n_validation": 8}, (12, 8, 10)),
        ({"n_validation": 8}, (22, 8, 0)),
        ({"n_validation": 8, "n_test": 5}, (17, 8, 5)),
        ({"n_train": 30}, (30, 0, 0)),
        ({"n_test": 4}, (26, 0, 4)),
    ],
)
def test_what_is_left_out_of_a_split_follows(table, counts, sizes):
    problem = from_file(table, **columns(**counts))
    assert tuple(len(rows_of(problem, which)) for which in ("train", "validation", "test")) == sizes


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"n_train": 20, "n_validation": 8, "n_test": 5}, r"n_train \+ n_validation \+ n_test = 20 \+ 8 \+ 5 = 33, .* has 30"),
        ({"n_validation": -1}, "n_validation = -1"),
        ({"n_validation": 30}, "n_train = 0"),
        ({"n_validation": 3, "key": None}, "n_validation draws samples at random, which needs key="),
    ],
)  # fmt: skip
def test_wrong_splits_are_refused(table, counts, message):
    with pytest.raises(DataError, match=message):
        from_file(table, **columns(**counts))


def test_an_npz_file_with_validation_data_of_its_own(tmp_path):
    data = {f"{name}_{which}": RNG.normal(size=(4, 2)) for which in ("train", "validation", "test") for name in "xy"}
    np.savez(tmp_path / "data.npz", **data)
    whole = from_file(tmp_path / "data.npz")
    np.testing.assert_array_equal(whole.y_validation, data["y_validation"])
    part = from_file(tmp_path / "data.npz", n_train=2, standardise=True, key=KEY)
    np.testing.assert_allclose(part.restore_inputs(part.x_validation), data["x_validation"], rtol=1e-12)
    with pytest.raises(DataError, match="holds validation data of its own; leave n_validation out"):
        from_file(tmp_path / "data.npz", n_validation=1, key=KEY)


def test_a_data_frame_is_read_as_its_file(table):
    options = columns(target="species", features=None, loss="softmax_cross_entropy", n_train=9, n_validation=5)
    frame, file = (
        from_frame(FRAME, **options, standardise=True, name="flowers"),
        from_file(table, **options, standardise=True),
    )
    assert eqx.tree_equal(frame, file, typematch=True)
    assert frame.names == Names(("w", "x", "y", "z"), ("species",), ("a", "b", "c"))
    assert frame.y_train.shape == (9, 3)
    whole = from_frame(FRAME, "species", loss=SoftmaxCrossEntropy())
    np.testing.assert_array_equal(whole.y_train, np.eye(3)[np.searchsorted(["a", "b", "c"], SPECIES)])


def test_several_targets_of_a_data_frame():
    problem = from_frame(FRAME, ["z", "w"], ["x"], n_train=4, key=KEY)
    assert (problem.y_train.shape, problem.names.targets) == ((4, 2), ("z", "w"))


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (np.eye(3), {"target": "a"}, "expected a data frame"),
        (FRAME, {"target": "zz"}, "the data frame has no column 'zz'; did you mean 'z'"),
        (FRAME, {"target": "z"}, r"column 'species' of x_train holds text \('b'\)"),
        (pd.concat([FRAME, FRAME], axis=1), {"target": "z"}, "more than one column 'w'"),
    ],
)
def test_wrong_data_frames_are_refused(frame, options, message):
    with pytest.raises(DataError, match=message):
        from_frame(frame, **options)


def test_columns_of_text_in_a_file_are_named_with_both_remedies(tmp_path):
    frame = FRAME[["w", "x", "z"]].assign(colour="red", shop="s1")
    frame.to_csv(tmp_path / "shop.csv", index=False)
    with pytest.raises(
        DataError, match=r"columns 'colour', 'shop' of .*shop.csv holds text \(such as 'red'\)"
    ) as caught:
        from_file(tmp_path / "shop.csv", target="z")
    features = re.search(r'features = (\["w", "x"\])', str(caught.value))
    assert features is not None
    assert from_file(tmp_path / "shop.csv", target="z", features=eval(features[1])).input_dim == 2
    call = re.search(r"get_dummies\(frame, columns=\['colour', 'shop'\], dtype=float\)", str(caught.value))
    assert call is not None
    encoded = eval(f"pd.{call[0]}", {"pd": pd, "frame": frame})
    assert from_frame(encoded, "z").names.inputs == ("w", "x", "colour_red", "shop_s1")


def test_parquet_without_a_package_that_reads_it_says_which(tmp_path, monkeypatch):
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install polars"):
        from_file(tmp_path / "data.parquet", target="z")


@pytest.mark.parametrize("reader", ["polars", "pyarrow"])
def test_parquet_is_read_as_csv(tmp_path, table, monkeypatch, reader):
    pytest.importorskip(reader)
    if reader == "polars":
        __import__("polars").from_dict(FRAME.to_dict("list")).write_parquet(tmp_path / "flowers.parquet")
    else:
        FRAME.to_parquet(tmp_path / "flowers.parquet", engine="pyarrow")
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "polars" else find(name))
    options = columns(target="species", features=None, loss="softmax_cross_entropy", n_test=4)
    parquet = from_file(tmp_path / "flowers.parquet", **options)
    assert eqx.tree_equal(parquet, from_file(table, **options), typematch=True)
    (tmp_path / "flowers.parquet").write_bytes(b"not Parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        from_file(tmp_path / "flowers.parquet", target="z")


def test_data_frames_of_polars():
    polars = pytest.importorskip("polars")
    frame = polars.from_dict(FRAME.to_dict("list"))
    numbers = frame.drop("species")
    problem = Problem(numbers, frame["species"], numbers[:3], frame["species"][:3], loss=SoftmaxCrossEntropy())
    assert problem.names == Names(("w", "x", "y", "z"), ("species",), ("a", "b", "c"))
    np.testing.assert_array_equal(problem.x_train, FRAME[["w", "x", "y", "z"]])
    np.testing.assert_array_equal(problem.prepare_inputs(frame[:, ["z", "y", "x", "w"]]), problem.x_train)
    assert eqx.tree_equal(from_frame(frame, "z", ["x"]), from_frame(FRAME, "z", ["x"]), typematch=True)
    with pytest.raises(DataError, match=r"column 'species' of x_train holds text.*to_dummies\(\['species'\]\)"):
        from_frame(frame, "z")
    with pytest.raises(DataError, match="column 'x' of x_train has no value in row 1"):
        Problem(polars.DataFrame({"x": [1.0, None]}), [1.0, 2.0])
    with pytest.raises(DataError, match=r"\['w', 'x', 'y', 'z'\] and x_test \['x', 'w', 'y', 'z'\]"):
        Problem(numbers, FRAME["z"], numbers[:, ["x", "w", "y", "z"]], FRAME["z"])


@pytest.mark.parametrize("make", [teacher_student, digits, diabetes])
def test_the_data_sets_of_gnflow_have_validation_data(make):
    without, problem = make(8, 5, key=KEY), make(8, 5, key=KEY, n_validation=6)
    assert problem.x_validation.shape == (6, problem.input_dim)
    assert problem.y_validation.shape == (6, problem.num_outputs)
    np.testing.assert_array_equal(problem.x_train, without.x_train)
    np.testing.assert_array_equal(problem.x_test, without.x_test)
    rows = np.concatenate([problem.x_train, problem.x_validation, problem.x_test])
    assert len(np.unique(rows, axis=0)) == 19


def test_row_numbers_of_pandas_are_told_from_inputs(tmp_path):
    FRAME.drop(columns="species").to_csv(tmp_path / "numbered.csv")
    with pytest.warns(UserWarning, match=r"the column '' .*features = \['w', 'x', 'y'\]"):
        problem = from_file(tmp_path / "numbered.csv", target="z")
    assert problem.names.inputs == ("", "w", "x", "y")
    with pytest.warns(UserWarning, match="Unnamed: 0"):
        from_frame(pd.read_csv(tmp_path / "numbered.csv"), target="z")
    assert from_file(tmp_path / "numbered.csv", target="z", features=["w", "x"]).names.inputs == ("w", "x")


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("a;b;z\n1,5;2;3\n", "utf-8", r"separated by ';'.*read_csv\(path, sep=';'\)"),
        ("a\tz\n1\t2\n", "utf-8", r"separated by '\\t'"),
        ("größe,z\n1,2\n", "latin-1", "Save it as UTF-8"),
    ],
)
def test_other_dialects_of_csv_are_refused_with_the_remedy(tmp_path, text, encoding, message):
    (tmp_path / "table.csv").write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=message):
        from_file(tmp_path / "table.csv", target="z")
