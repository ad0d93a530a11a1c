"""Read CSV files, and name the row and the column of what is wrong in them."""

import csv
import re
from pathlib import Path

import numpy as np

from .._core import DataError
from ._columns import ColumnNames, choose_columns
from ._names import Names

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
# Text that may have been meant as a number or a date: 1_0, 1,5, 2020-01-01, digits of other scripts.
_ODD_NUMBER = re.compile(r"[+-]?\d[\d_,.:/ T-]*")
_WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.ASCII | re.IGNORECASE)


def read_csv(
    path: Path, target: ColumnNames, features: ColumnNames, whole_numbers_are_labels: bool
) -> tuple[dict[str, np.ndarray], Names]:
    """`x_train` and `y_train` in a CSV file, and what its columns are called.

    **Arguments:**

    - `path`: the file.
    - `target`, `features`: as for `from_file`.
    - `whole_numbers_are_labels`: whether a target column of whole numbers holds class labels.

    **Raises:** `DataError`.
    """
    header, rows, lines = _read_table(path)
    inputs, targets = choose_columns(header, target, features, str(path))
    _require_no_text(rows, [(header[column], column) for column in inputs], path)
    names = Names(tuple(header[column] for column in inputs), tuple(header[column] for column in targets))
    x = np.array([[_number(row[c], header[c], n, lines[n], path) for c in inputs] for n, row in enumerate(rows)])
    labels = [_present(row[targets[0]], header[targets[0]], n, lines[n], path) for n, row in enumerate(rows)]
    if len(targets) == 1 and not any(_is_number(label) for label in labels):
        for n, label in enumerate(labels):
            if _ODD_NUMBER.fullmatch(label):
                raise DataError(
                    f"{label!r} in row {n}, column {header[targets[0]]!r} of {path} (line {lines[n]}) is neither a number in "
                    "plain digits, such as 1.5, nor the name of a class; write it as one of these."
                )
        return {"x_train": x, "y_train": np.array(labels)}, names
    y = np.array([[_number(row[c], header[c], n, lines[n], path) for c in targets] for n, row in enumerate(rows)])
    if len(targets) == 1:
        y = y[:, 0]
        # A CSV file has no types: only the loss tells the labels 0, 1, 2 from the numbers 0.0, 1.0, 2.0.
        if whole_numbers_are_labels and _all_exact_integers(y):
            y = y.astype(np.int64)
    return {"x_train": x, "y_train": y}, names


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
        raise DataError(
            f"{path} cannot be read as comma-separated UTF-8 text ({error}). Save it as UTF-8; with pandas: "
            "pandas.read_csv(path, encoding=...).to_csv(path, index=False)."
        ) from error
    if len(rows) < 2:
        raise DataError(
            f"{path} has {len(rows)} lines that are not blank; a line of column names and samples are needed."
        )
    header = rows[0]
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise DataError(
            f"the columns of {path} seem to be separated by {other!r}, but commas are needed (and points in numbers). With "
            f"pandas: pandas.read_csv(path, sep={other!r}).to_csv(path, index=False)."
        )
    if any(_is_number(name) for name in header):
        raise DataError(f"the first line of {path} must name the columns, but it holds numbers: {', '.join(header)}.")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise DataError(f"line {line} of {path} has {len(row)} cells, but the header names {len(header)} columns.")
    return header, rows[1:], lines[1:]


def _require_no_text(rows: list[list[str]], columns: list[tuple[str, int]], path: Path) -> None:
    """Check that no input column holds nothing but text. **Raises:** `DataError` that names all columns which do."""
    found = {
        name: rows[0][column]
        for name, column in columns
        if not any(_is_number(row[column]) or _ODD_NUMBER.fullmatch(row[column]) for row in rows)
        and all(row[column].lower() not in _MISSING for row in rows)
    }
    if not found:
        return
    names, rest = list(found), [name for name, _ in columns if name not in found]
    without = f", or leave it out with features = {rest}".replace("'", '"') if rest else ""
    raise DataError(
        f"{'column' if len(found) == 1 else 'each of the columns'} {', '.join(map(repr, names))} of {path} holds text (such as "
        f"{found[names[0]]!r}), which is a category and no number. Give each category a column of 0 and 1, as "
        f"pandas.get_dummies(frame, columns={names}, dtype=float) does{without}."
    )


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
