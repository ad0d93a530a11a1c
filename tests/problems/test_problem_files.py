import zipfile

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from gnflow._core import ConfigError, DataError, PrecisionError
from gnflow.losses import HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss
from gnflow.problems import Problem, from_file


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(20, 3)), "y": rng.normal(size=(20, 2))}


@pytest.fixture
def table(tmp_path, arrays):
    """A CSV file of the arrays, written with all digits."""
    path = tmp_path / "my data.csv"
    rows = np.column_stack([arrays["y"][:, :1], arrays["x"], arrays["y"][:, 1:]])
    np.savetxt(path, rows, delimiter=",", header="first,a,b,c,second", comments="", fmt="%.17g")
    return path


# CSV


def test_csv_round_trip(table, arrays):
    problem = from_file(table, target=["second", "first"])
    np.testing.assert_array_equal(problem.x_train, arrays["x"])
    np.testing.assert_array_equal(problem.y_train, arrays["y"][:, ::-1])
    assert problem.x_test is None
    assert problem.name == "my data"
    assert isinstance(problem.loss, SquaredLoss)


def test_csv_takes_names_and_paths_and_tuples(table):
    assert eqx.tree_equal(from_file(str(table), target=("first",)), from_file(table, target="first"))


def test_csv_features_choose_and_order_the_inputs(table, arrays):
    problem = from_file(table, target="first", features=["c", "a"])
    np.testing.assert_array_equal(problem.x_train, arrays["x"][:, [2, 0]])
    np.testing.assert_array_equal(problem.y_train, arrays["y"][:, :1])


def test_csv_as_spreadsheets_write_it(tmp_path):
    text = '\ufeff"size, in m", price\r\n1, 2.5\r\n\r\n" 3 ",-4e-1\r\n'
    problem = from_file(write(tmp_path / "sheet.CSV", text), target="price")
    np.testing.assert_array_equal(problem.x_train, [[1.0], [3.0]])
    np.testing.assert_array_equal(problem.y_train, [[2.5], [-0.4]])


def test_csv_whole_numbers_are_numbers_to_the_squared_loss_and_labels_to_the_softmax(tmp_path):
    path = write(tmp_path / "labels.csv", "x,y\n0.5,2\n1.5,0\n2.5,2\n")
    np.testing.assert_array_equal(from_file(path, "y").y_train, [[2.0], [0.0], [2.0]])
    softmax = from_file(path, "y", loss="softmax_cross_entropy")
    assert isinstance(softmax.loss, SoftmaxCrossEntropy)
    np.testing.assert_array_equal(softmax.y_train, np.eye(3)[[2, 0, 2]])


def test_csv_text_labels_are_numbered_in_sorted_order(tmp_path):
    path = write(tmp_path / "labels.csv", "x,y\n1,dog\n2,cat\n3,ant\n4,dog\n")
    problem = from_file(path, "y", loss=SoftmaxCrossEntropy())
    np.testing.assert_array_equal(problem.y_train, np.eye(3)[[2, 1, 0, 2]])


def test_csv_two_text_labels_suit_the_logistic_loss(tmp_path):
    path = write(tmp_path / "labels.csv", "x,y\n1,yes\n2,no\n3,yes\n")
    np.testing.assert_array_equal(from_file(path, "y", loss="logistic").y_train, [[1.0], [0.0], [1.0]])


def test_labels_of_one_class_are_refused():
    with pytest.raises(DataError, match="all labels are 'cat'; expected at least two classes"):
        Problem(np.arange(6.0).reshape(3, 2), np.array(["cat"] * 3), loss=SoftmaxCrossEntropy())


def test_csv_text_labels_do_not_suit_the_squared_loss(tmp_path):
    path = write(tmp_path / "labels.csv", "x,y\n1,dog\n2,cat\n")
    with pytest.raises(DataError, match="SoftmaxCrossEntropy"):
        from_file(path, "y")


def test_csv_one_hot_columns(tmp_path):
    path = write(tmp_path / "labels.csv", "x,p,q\n1,1,0\n2,0,1\n3,0.25,0.75\n")
    problem = from_file(path, ["p", "q"], loss="softmax_cross_entropy")
    np.testing.assert_array_equal(problem.y_train, [[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])


good = "a,b,y\n1,2,3\n4,5,6\n"
wrong_csv = {
    "no target": (good, {}, r"target=.*a, b, y"),
    "unknown target": (good, {"target": "yy"}, r"no column 'yy'.*did you mean 'y'"),
    "unknown feature": (good, {"target": "y", "features": ["a", "c"]}, r"no column 'c'"),
    "both": (good, {"target": "y", "features": ["a", "y"]}, r"'y'.*target and as feature"),
    "no targets": (good, {"target": []}, r"at least one target"),
    "nothing but targets": (good, {"target": ["a", "b", "y"]}, r"at least one target column and one other"),
    "empty cell": ("a,b,y\n1,2,3\n4,,6\n", {"target": "y"}, r"row 1, column 'b'.*line 3.*missing: ''"),
    "NA": ("a,b,y\n1,NA,3\n4,5,6\n", {"target": "y"}, r"row 0, column 'b'.*line 2.*missing: 'NA'"),
    "nan": ("a,b,y\n1,2,3\n\n4,5,nan\n", {"target": "y"}, r"row 1, column 'y'.*line 4.*missing: 'nan'"),
    "missing label": ("a,y\n1,dog\n2,?\n", {"target": "y"}, r"row 1, column 'y'.*missing: '\?'"),
    "text": ("a,b,y\n1,2,3\nx,5,6\n", {"target": "y"}, r"'x' in row 1, column 'a'.*line 3"),
    "text among numbers": ("a,y\n1,2\n2,dog\n", {"target": "y"}, r"'dog' in row 1, column 'y'"),
    "inf": ("a,b,y\n1,2,3\n4,-inf,6\n", {"target": "y"}, r"'-inf' in row 1, column 'b'"),
    "overflow": ("a,y\n1e999,3\n", {"target": "y"}, r"'1e999' in row 0, column 'a'"),
    "short row": ("a,b,y\n1,2,3\n4,5\n", {"target": "y"}, r"line 3 .* 2 cells.*3 columns"),
    "long row": ("a,b,y\n1,2,3,4\n", {"target": "y"}, r"line 2 .* 4 cells.*3 columns"),
    "empty": ("", {"target": "y"}, r"0 lines"),
    "header only": ("a,y\n", {"target": "y"}, r"1 lines"),
    "no header": ("1,2,3\n4,5,6\n", {"target": "y"}, r"first line.*names? the columns.*1, 2, 3"),
    "repeated column": ("a,a,y\n1,2,3\n", {"target": "y"}, r"more than one column 'a'"),
}


@pytest.mark.parametrize("case", wrong_csv)
def test_csv_refuses(case, tmp_path):
    text, settings, message = wrong_csv[case]
    with pytest.raises(DataError, match=message):
        from_file(write(tmp_path / "data.csv", text), **settings)


def test_csv_refuses_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,y\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        from_file(path, "y")


# npz


def test_npz_round_trip(tmp_path, arrays):
    x, y = arrays["x"], arrays["y"]
    path = tmp_path / "data.npz"
    np.savez(path, x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:], notes=np.zeros(3))
    problem = from_file(path, loss=HuberLoss())
    assert eqx.tree_equal(problem, Problem(x[:12], y[:12], x[12:], y[12:], loss=HuberLoss(), name="data"))
    np.testing.assert_array_equal(problem.x_train, x[:12])


def test_npz_of_a_problem_gives_the_problem_back(tmp_path, key):
    from gnflow.problems import digits

    problem = digits(n_train=5, n_test=4, key=key)
    fields = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "digits.npz", **{field: np.asarray(getattr(problem, field)) for field in fields})
    assert eqx.tree_equal(from_file(tmp_path / "digits.npz", loss="softmax_cross_entropy"), problem)


def test_npz_integer_and_text_labels(tmp_path):
    path = tmp_path / "labels.npz"
    np.savez(path, x_train=np.zeros((3, 1)), y_train=[1, 0, 1], x_test=np.zeros((1, 1)), y_test=[2])
    problem = from_file(path, loss="softmax_cross_entropy")
    np.testing.assert_array_equal(problem.y_train, np.eye(3)[[1, 0, 1]])

    np.savez(path, x_train=np.zeros((3, 1)), y_train=["b", "a", "b"], x_test=np.zeros((1, 1)), y_test=["aa"])
    problem = from_file(path, loss="softmax_cross_entropy")
    np.testing.assert_array_equal(problem.y_train, np.eye(3)[[2, 0, 2]])
    np.testing.assert_array_equal(problem.y_test, np.eye(3)[[1]])


x3, y3 = np.ones((3, 2)), np.ones(3)
wrong_npz = {
    "other names": ({"X_train": x3, "y_train": y3}, {}, r"no array 'x_train'.*did you mean 'X_train'"),
    "no targets": ({"x_train": x3}, {}, r"no array 'y_train'"),
    "half the test data": ({"x_train": x3, "y_train": y3, "x_test": x3}, {}, r"x_test is given without y_test"),
    "rows differ": ({"x_train": x3, "y_train": y3[:2]}, {}, r"y_train has 2 rows"),
    "NaN": ({"x_train": x3, "y_train": [0.0, np.nan, 0.0]}, {}, r"y_train\[1\] = nan"),
    "objects": ({"x_train": np.array([[None]]), "y_train": y3}, {}, r"cannot be read as an npz file"),
    "mixed labels": (
        {"x_train": x3, "y_train": ["a", "b", "c"], "x_test": x3, "y_test": [0, 1, 2]},
        {},
        r"y_train has dtype <U1",
    ),
    "text columns": ({"x_train": x3, "y_train": [["a"], ["b"], ["c"]]}, {}, r"y_train has dtype <U1"),
    "target": ({"x_train": x3, "y_train": y3}, {"target": "y"}, r"target and features are for CSV"),
    "features": ({"x_train": x3, "y_train": y3}, {"features": "x"}, r"target and features are for CSV"),
    "n_test with test data": (
        {"x_train": x3, "y_train": y3, "x_test": x3, "y_test": y3},
        {"n_test": 1, "key": jr.key(0)},
        r"n_test = 1.*test data of its own",
    ),
}


@pytest.mark.parametrize("case", wrong_npz)
def test_npz_refuses(case, tmp_path):
    contents, settings, message = wrong_npz[case]
    np.savez(tmp_path / "data.npz", **contents)
    with pytest.raises(DataError, match=message):
        from_file(tmp_path / "data.npz", **settings)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04broken"])
def test_npz_refuses_what_is_no_archive(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        from_file(path)


def test_npz_refuses_a_single_array(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        from_file(tmp_path / "data.npz")


# the split


def rows_of(problem):
    """The training and the test samples, each as a set of (inputs, targets)."""
    train = np.column_stack([problem.x_train, problem.y_train])
    test = np.column_stack([problem.x_test, problem.y_test])
    return {tuple(row) for row in train}, {tuple(row) for row in test}


def test_split_keeps_samples_whole_and_apart(table, arrays, key):
    problem = from_file(table, target=["first", "second"], n_train=14, key=key)
    train, test = rows_of(problem)
    assert (problem.x_train.shape, problem.x_test.shape) == ((14, 3), (6, 3))
    assert train | test == {tuple(row) for row in np.column_stack([arrays["x"], arrays["y"]])}
    assert not train & test
    assert problem.name == "my data"


def test_split_by_either_count(table, key):
    by_train = from_file(table, "first", n_train=14, key=key)
    assert eqx.tree_equal(by_train, from_file(table, "first", n_test=6, key=key))
    assert from_file(table, "first", n_train=20, key=key).x_test is None
    assert from_file(table, "first", n_train=3, n_test=0, key=key).x_test is None
    assert from_file(table, "first", n_train=3, n_test=2, key=key).x_test.shape == (2, 4)


def test_split_depends_on_the_key_alone(table, key):
    first, again, other = (from_file(table, "first", n_train=14, key=k) for k in (key, key, jr.fold_in(key, 1)))
    assert eqx.tree_equal(first, again)
    assert not np.array_equal(first.x_train, other.x_train)


def test_split_nests(table, key):
    small, large = (from_file(table, "first", n_train=n, n_test=5, key=key) for n in (4, 11))
    np.testing.assert_array_equal(large.x_train[:4], small.x_train)
    np.testing.assert_array_equal(large.y_train[:4], small.y_train)
    np.testing.assert_array_equal(large.x_test, small.x_test)


def test_split_keeps_the_classes_of_the_whole_file(tmp_path, key):
    lines = "".join(f"{n},{label}\n" for n, label in enumerate(["a", "b", "c", "d", "e", "f"]))
    path = write(tmp_path / "labels.csv", "x,y\n" + lines)
    problem = from_file(path, "y", loss="softmax_cross_entropy", n_train=2, key=key)
    expected = np.eye(6)[np.asarray(problem.x_train[:, 0], int)]
    np.testing.assert_array_equal(problem.y_train, expected)


def test_split_leaves_test_data_of_the_file_alone(tmp_path, arrays, key):
    x, y = arrays["x"], arrays["y"]
    path = tmp_path / "data.npz"
    np.savez(path, x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:])
    problem = from_file(path, n_train=5, key=key)
    np.testing.assert_array_equal(problem.x_test, x[12:])
    np.testing.assert_array_equal(problem.y_test, y[12:])
    train, _ = rows_of(problem)
    assert len(train) == 5
    assert train <= {tuple(row) for row in np.column_stack([x[:12], y[:12]])}
    with pytest.raises(DataError, match=r"x_train of .* 12 samples"):
        from_file(path, n_train=13, key=key)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_train": 21}, r"21 \+ -1|n_test = -1|20 samples"),
        ({"n_train": 15, "n_test": 6}, "20 samples"),
        ({"n_train": 0}, "n_train = 0"),
        ({"n_test": 20}, "n_train = 0"),
        ({"n_test": -1}, "n_test = -1"),
        ({"n_train": 3, "key": None}, "needs key="),
        ({"n_test": 3, "key": None}, "needs key="),
    ],
)
def test_split_refuses(table, key, settings, message):
    with pytest.raises(DataError, match=message):
        from_file(table, "first", **{"key": key, **settings})


# any file


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no file .*absent\.csv"):
        from_file(tmp_path / "absent.csv", "y")


def test_folder(tmp_path):
    with pytest.raises(DataError, match="no file"):
        from_file(tmp_path)


def test_other_kinds_of_file(tmp_path):
    with pytest.raises(DataError, match=r"'\.xlsx'.*\.csv or \.npz"):
        from_file(write(tmp_path / "data.xlsx", good), "y")


def test_unknown_loss(table):
    with pytest.raises(ConfigError, match="did you mean 'logistic'"):
        from_file(table, "first", loss="logistics")


def test_loss_object_is_kept(table):
    assert from_file(table, "first", loss=HuberLoss(delta=0.5)).loss == HuberLoss(delta=0.5)
    with pytest.raises(DataError, match="LogisticLoss needs labels"):
        from_file(table, "first", loss=LogisticLoss())


def test_needs_double_precision(table):
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="jax_enable_x64"):
        from_file(table, "first")


@pytest.mark.parametrize("cell", ["1_0", "\u0661", "0x10", "1e", "--1", "1,5"])
def test_csv_numbers_are_written_in_plain_digits(cell, tmp_path):
    """`float` takes 1_0 for 10 and digits of any script; in a file they are more likely something else."""
    text = f'a,y\n"{cell}",2\n3,4\n'
    with pytest.raises(DataError, match=r"in row 0, column 'a' of .* is not a finite number"):
        from_file(write(tmp_path / "numbers.csv", text), target="y")
    problem = from_file(write(tmp_path / "plain.csv", "a,y\n+1.5e-3,2.\n.5,-4E2\n"), target="y")
    np.testing.assert_array_equal(problem.x_train, [[1.5e-3], [0.5]])
    np.testing.assert_array_equal(problem.y_train, [[2.0], [-400.0]])


def test_a_column_named_twice(table):
    for names in ({"target": ["first", "first"]}, {"target": "first", "features": ["a", "a"]}):
        with pytest.raises(DataError, match=r"column '(first|a)' of .* is named twice"):
            from_file(table, **names)


def test_a_tilde_is_the_home_folder(table, monkeypatch):
    monkeypatch.setenv("HOME", str(table.parent))
    assert from_file(f"~/{table.name}", target="first").num_train == 20


@pytest.mark.parametrize("path", ["a\0b.csv", "n" * 300 + ".csv", ""])
def test_paths_that_are_none(path):
    with pytest.raises(DataError, match="path = "):
        from_file(path, target="y")


def test_npz_that_says_more_than_it_holds(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 2), }".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        archive.writestr("x_train.npy", array)
        archive.writestr("y_train.npy", array)
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        from_file(tmp_path / "large.npz")
