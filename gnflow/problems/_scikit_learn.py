"""scikit-learn's bundled data sets, an optional dependency."""

from typing import Any

from .._core import DataError


def scikit_learn_datasets(what: str) -> Any:
    """The module `sklearn.datasets`. **Raises:** `DataError`, with the command that installs it, if it is missing."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f"the data set {what!r} comes with scikit-learn, which is not installed; "
            'install it with: pip install "gnflow[data]" (or pip install scikit-learn).'
        ) from error
    return datasets
