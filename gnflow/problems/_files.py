"""Problems from the user's files: CSV with a header, or npz."""

import csv
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .._core import DataError, as_path, nearest_name, require_float64, require_memory, shown
from ..losses import AbstractLoss, get_loss
from ._problem import Problem
from ._split import split

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_TEXT_KINDS = "US"
# Text that may have been meant as a number or a date: 1_0, 1,5, 2020-01-01, digits of other scripts.
_ODD_NUMBER = re.compile(r"[+-]?\d[\d_,.:/ T-]*")
_WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.ASCII | re.IGNORECASE)


def from_file(
    path: str | Path,
    target: str | list[str] | tuple[str, ...] | None = None,
    features: str | list[str] | tuple[str, ...] | None = None,
    loss: str | AbstractLoss = "squared",
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    key: Any = None,
) -> Problem:
    """A problem from a `.csv` or `.npz` file.

    **CSV** (comma-separated, UTF-8): the first line names the columns. Every cell must hold a finite number, except that the
    only target column may hold text, which is read as class labels.

    **npz**: arrays `x_train` (N, d) or (N, ...), `y_train` (N,) or (N, C) and optionally `x_test`, `y_test`. Other arrays are
    not read. Pickled objects are never loaded.

    Class labels that are whole numbers are the class indices 0, 1, ... of the softmax cross-entropy. Labels that are text
    are numbered in sorted order over training and test data together. Nothing is rescaled: standardise the data before, if
    you want to.

    **Split**: without `n_train` and `n_test` the whole file is used, in its order. With either of them the samples are
    shuffled by `key`: `n_train` are for training and `n_test` for testing (by default the rest). A smaller training set is
    the beginning of a larger one, and a given `n_test` fixes the test set. If an npz file has test data these are used whole,
    and only `n_train` may be given.

    **Arguments:**

    - `path`: the file.
    - `target`: the name of the target column of a CSV file, or several in a list.
    - `features`: the names of its input columns; by default all others.
    - `loss`: a name (`gnflow.losses.loss_kinds`) or a loss object.
    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0.
    - `key`: a JAX key, needed for a split only.

    **Returns:** a `Problem` named after the file.

    **Raises:** `DataError` for a missing file or one of another kind, unknown columns or arrays, a missing value or a cell that
    is not a number (named by row and column), a split larger than the file or without `key`, and data that `Problem` refuses;
    `ConfigError` for an unknown name of a loss; `PrecisionError` without float64.
    """
    require_float64((), "from_file")
    path = as_path(path, "path", DataError)
    loss = get_loss(loss)() if isinstance(loss, str) else loss
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} (looked in {Path.cwd()}).")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        arrays = _read_csv(path, target, features, whole_numbers_are_labels=loss.takes_labels)
    elif suffix == ".npz":
        if target is not None or features is not None:
            raise DataError(
                f"{path} is an npz file, whose arrays are x_train and y_train; target and features are for CSV."
            )
        arrays = _read_npz(path)
    else:
        raise DataError(f"{path} ends in {path.suffix!r}, but a .csv or .npz file is needed.")
    # The whole file is checked in its order, before the split: messages name rows of the file, and the classes do not depend
    # on the split.
    whole = Problem(**_number_text_labels(arrays), loss=loss, name=path.stem)
    if n_train is None and n_test is None:
        return whole
    return _draw(whole, n_train, n_test, path, key)


def data_file(path: str | Path, **_: Any) -> tuple[Path, ...]:
    """The file that `from_file` reads."""
    return (as_path(path, "path", DataError),)


def _draw(whole: Problem, n_train: int | None, n_test: int | None, path: Path, key: Any) -> Problem:
    if key is None:
        raise DataError("n_train and n_test draw samples at random, which needs key=jax.random.key(seed).")
    total = whole.num_train
    if whole.x_test is None:
        n_train = total - (n_test or 0) if n_train is None else n_train
        n_test = total - n_train if n_test is None else n_test
        train, test = split(total, n_train, n_test, str(path), key)
        x_test, y_test = (whole.x_train[test], whole.y_train[test]) if n_test else (None, None)
    else:
        if n_test is not None:
            raise DataError(f"n_test = {n_test}, but {path} holds test data of its own; leave n_test out.")
        train, _ = split(total, total if n_train is None else n_train, 0, f"x_train of {path}", key)
        x_test, y_test = whole.x_test, whole.y_test
    return Problem(
        x_train=whole.x_train[train],
        y_train=whole.y_train[train],
        x_test=x_test,
        y_test=y_test,
        loss=whole.loss,
        name=whole.name,
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    required, optional = ("x_train", "y_train"), ("x_test", "y_test")
    try:
        # Opened here because NumPy does not close a file that turns out to be no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            names = archive.files
            entries = [] if archive.zip is None else archive.zip.infolist()
            wanted = [entry.file_size for entry in entries if entry.filename[:-4] in (*required, *optional)]
            require_memory(DataError, f"the data in {path}", float(sum(wanted)), "Use a part of it.")
            arrays = {name: archive[name] for name in (*required, *optional) if name in names}
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an npz file of plain arrays ({error}).") from error
    for name in required:
        if name not in arrays:
            others = [other for other in names if other not in arrays] or names
            raise DataError(f"{path} has no array {name!r}; {nearest_name(name, others)}")
    return arrays


def _read_csv(
    path: Path,
    target: str | list[str] | tuple[str, ...] | None,
    features: str | list[str] | tuple[str, ...] | None,
    whole_numbers_are_labels: bool,
) -> dict[str, np.ndarray]:
    header, rows, lines = _read_table(path)
    if target is None:
        raise DataError(f"name the target column(s) of {path} with target=...; its columns are {', '.join(header)}.")
    targets = _columns(target, header, path)
    if features is None:
        inputs = [column for column in range(len(header)) if column not in targets]
    else:
        inputs = _columns(features, header, path)
    if not inputs or not targets:
        raise DataError(f"{path} needs at least one target column and one other; its columns are {', '.join(header)}.")
    both = [header[column] for column in inputs if column in targets]
    if both:
        raise DataError(f"column {both[0]!r} of {path} is named as target and as feature; choose one.")

    x = np.array([[_number(row[c], header[c], n, lines[n], path) for c in inputs] for n, row in enumerate(rows)])
    labels = [_present(row[targets[0]], header[targets[0]], n, lines[n], path) for n, row in enumerate(rows)]
    if len(targets) == 1 and not any(_is_number(label) for label in labels):
        for n, label in enumerate(labels):
            if _ODD_NUMBER.fullmatch(label):
                raise DataError(
                    f"{label!r} in row {n}, column {header[targets[0]]!r} of {path} (line {lines[n]}) is neither a number in "
                    "plain digits, such as 1.5, nor the name of a class; write it as one of these."
                )
        return {"x_train": x, "y_train": np.array(labels)}
    y = np.array([[_number(row[c], header[c], n, lines[n], path) for c in targets] for n, row in enumerate(rows)])
    if len(targets) == 1:
        y = y[:, 0]
        # A CSV file has no types: only the loss tells the labels 0, 1, 2 from the numbers 0.0, 1.0, 2.0.
        if whole_numbers_are_labels and _all_exact_integers(y):
            y = y.astype(np.int64)
    return {"x_train": x, "y_train": y}


def _read_table(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The column names, the rows of cells, and the line of the file that each row ends on."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            for row in reader:
                if len(row) > 1 or any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as comma-separated UTF-8 text ({error}).") from error
    if len(rows) < 2:
        raise DataError(
            f"{path} has {len(rows)} lines that are not blank; a line of column names and samples are needed."
        )
    header = rows[0]
    if any(_is_number(name) for name in header):
        raise DataError(f"the first line of {path} must name the columns, but it holds numbers: {', '.join(header)}.")
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has more than one column {repeated[0]!r}; rename them.")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise DataError(f"line {line} of {path} has {len(row)} cells, but the header names {len(header)} columns.")
    return header, rows[1:], lines[1:]


def _columns(names: str | list[str] | tuple[str, ...], header: list[str], path: Path) -> list[int]:
    if not isinstance(names, str | list | tuple):
        raise DataError(f"columns = {shown(names)}; expected the name of a column of {path}, or several in a list.")
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"column {name!r} of {path} is named twice; name each column once.")
        if name not in header:
            raise DataError(f"{path} has no column {name!r}; {nearest_name(str(name), header)}")
    return [header.index(name) for name in names]


def _present(cell: str, column: str, row: int, line: int, path: Path) -> str:
    if cell.lower() in _MISSING:
        raise DataError(
            f"the value in row {row}, column {column!r} of {path} (line {line}) is missing: {cell!r}. "
            "Drop or impute that sample, or leave the column out with features=..."
        )
    return cell


def _number(cell: str, column: str, row: int, line: int, path: Path) -> float:
    _present(cell, column, row, line, path)
    if not _is_number(cell) or not np.isfinite(float(cell)):
        raise DataError(
            f"{cell!r} in row {row}, column {column!r} of {path} (line {line}) is not a finite number. Encode "
            "categories as numbers, or leave the column out with features=..."
        )
    if float(cell) != _exactly(cell):
        raise DataError(
            f"{cell!r} in row {row}, column {column!r} of {path} (line {line}) is a whole number that float64 cannot hold "
            "exactly; rescale the column, or write it as a decimal number."
        )
    return float(cell)


def _exactly(cell: str) -> float | int:
    """A whole number as an integer of any size, any other number as float64 reads it."""
    return int(cell) if _WHOLE.fullmatch(cell) else float(cell)


def _is_number(cell: str) -> bool:
    # Stricter than `float`, which reads 1_0 as 10, and digits of any script: in a file these are likely to mean something
    # else.
    return _NUMBER.fullmatch(cell) is not None


def _all_exact_integers(array: np.ndarray) -> bool:
    return bool(np.all((array == np.floor(array)) & (np.abs(array) <= 2**53)))


def _number_text_labels(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` with text targets (N,) replaced by class indices in sorted order of the labels."""
    targets = {name: arrays[name] for name in ("y_train", "y_test") if name in arrays}
    if any(array.dtype.kind not in _TEXT_KINDS or array.ndim != 1 for array in targets.values()):
        # There is no text, or it is not a list of labels, which Problem refuses.
        return arrays
    classes = np.unique(np.concatenate(list(targets.values())))
    return {**arrays, **{name: np.searchsorted(classes, array) for name, array in targets.items()}}
