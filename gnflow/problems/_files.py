"""Problems from the user's files: CSV with a header, npz, or Parquet."""

import importlib
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .._core import DataError, as_path, nearest_name, on_one_line, require_float64, require_memory
from ..losses import AbstractLoss, get_loss
from ._columns import ColumnNames
from ._csv import read_csv
from ._draw import problem_of
from ._frame import chosen
from ._names import Names
from ._problem import Problem
from ._sets import SETS
from ._standardise import Standardise

_REQUIRED = ("x_train", "y_train")
_OPTIONAL = tuple(f"{axis}_{which}" for which in SETS[1:] for axis in "xy")
_READERS = ("polars", "pandas")  # packages that read Parquet into a data frame


def from_file(
    path: str | Path,
    target: str | list[str] | tuple[str, ...] | None = None,
    features: str | list[str] | tuple[str, ...] | None = None,
    loss: str | AbstractLoss = "squared",
    n_train: int | None = None,
    n_test: int | None = None,
    *,
    key: Any = None,
    n_validation: int | None = None,
    standardise: Standardise = False,
) -> Problem:
    """A problem from a `.csv`, `.npz` or `.parquet` file.

    **CSV** (comma-separated, UTF-8): the first line names the columns. Every cell must hold a finite number, except that the
    only target column may hold text, which is read as class labels. Columns of text among the inputs are categories: they are
    refused by name.

    **Parquet** (`.parquet` or `.pq`): as CSV, with types of its own. polars reads it, or pandas with pyarrow or fastparquet,
    whichever is installed.

    **npz**: arrays `x_train` (N, d) or (N, ...), `y_train` (N,) or (N, C) and optionally `x_validation`, `y_validation`,
    `x_test` and `y_test`. Other arrays are not read. Pickled objects are never loaded.

    Class labels that are whole numbers are the class indices 0, 1, ... of the softmax cross-entropy. Labels that are text
    are numbered in sorted order over all data together; `problem.names.classes` keeps them, and `problem.names` the names of
    the columns.

    **Split**: without `n_train`, `n_validation` and `n_test` the whole file is used, in its order. With any of them the samples
    are shuffled by `key`: `n_train` are for training, `n_validation` for validation (none by default) and `n_test` for testing
    (by default the rest). A smaller training set is the beginning of a larger one; a given `n_test` fixes the test set, and
    together with a given `n_validation` the validation set. If an npz file has validation or test data, these are used whole,
    and their number may not be given.

    **Arguments:**

    - `path`: the file.
    - `target`: the name of the target column of a table, or several in a list.
    - `features`: the names of its input columns; by default all others.
    - `loss`: a name (`gnflow.losses.loss_kinds`) or a loss object.
    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0.
    - `key`: a JAX key, needed for a split only.
    - `n_validation`: the number of validation samples, at least 0.
    - `standardise`: as for `gnflow.Problem`: True for inputs, and for targets of the squared and Huber's loss; or "inputs",
      "targets", "both". Means and standard deviations are those of the training samples that are drawn.

    **Returns:** a `Problem` named after the file.

    **Raises:** `DataError` for a missing file or one of another kind, unknown columns or arrays, a missing value or a cell that
    is not a number (named by row and column), a split larger than the file or without `key`, a Parquet file that no installed
    package reads, and data that `Problem` refuses; `ConfigError` for an unknown name of a loss; `PrecisionError` without
    float64.
    """
    require_float64((), "from_file")
    path = as_path(path, "path", DataError)
    loss = get_loss(loss)() if isinstance(loss, str) else loss
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} (looked in {Path.cwd()}).")
    arrays, names = _read(path, target, features, loss)
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    return problem_of(arrays, names, loss, counts, standardise, path.stem, str(path), key)


def data_file(path: str | Path, **_: Any) -> tuple[Path, ...]:
    """The file that `from_file` reads."""
    return (as_path(path, "path", DataError),)


def _read(
    path: Path, target: ColumnNames, features: ColumnNames, loss: AbstractLoss
) -> tuple[dict[str, Any], Names | None]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path, target, features, whole_numbers_are_labels=loss.takes_labels)
    if suffix in (".parquet", ".pq"):
        return chosen(_read_parquet(path), target, features, str(path)), None
    if suffix != ".npz":
        raise DataError(f"{path} ends in {path.suffix!r}, but a .csv or .npz or .parquet file is needed.")
    if target is not None or features is not None:
        raise DataError(
            f"{path} is an npz file, whose arrays are x_train and y_train; target and features are for CSV and Parquet."
        )
    return _read_npz(path), None


def _read_parquet(path: Path) -> Any:
    """The data frame in a Parquet file. **Raises:** `DataError` if no installed package reads it."""
    for package in _READERS:
        if importlib.util.find_spec(package) is None:
            continue
        try:
            return importlib.import_module(package).read_parquet(path)
        except ImportError:
            continue  # pandas needs another package for it
        except Exception as error:  # each package has errors of its own
            raise DataError(
                f"{path} cannot be read as Parquet: {package} says {type(error).__name__}: {on_one_line(error)}."
            ) from error
    raise DataError(
        f"{path} is a Parquet file, and no package is installed that reads it: install polars (pip install polars), or pyarrow "
        "for pandas (pip install pyarrow); or write the data as CSV."
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here because NumPy does not close a file that turns out to be no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            names = archive.files
            entries = [] if archive.zip is None else archive.zip.infolist()
            wanted = [entry.file_size for entry in entries if entry.filename[:-4] in (*_REQUIRED, *_OPTIONAL)]
            require_memory(DataError, f"the data in {path}", float(sum(wanted)), "Use a part of it.")
            arrays = {name: archive[name] for name in (*_REQUIRED, *_OPTIONAL) if name in names}
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an npz file of plain arrays ({error}).") from error
    for name in _REQUIRED:
        if name not in arrays:
            others = [other for other in names if other not in arrays] or names
            raise DataError(f"{path} has no array {name!r}; {nearest_name(name, others)}")
    return arrays
