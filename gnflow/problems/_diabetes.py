"""scikit-learn's diabetes data: a small real regression with noise."""

from typing import Any

from .._core import require_float64
from ._names import Names
from ._problem import Problem
from ._scikit_learn import scikit_learn_datasets
from ._split import sets_of, split

_MEASUREMENTS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def diabetes(n_train: int = 300, n_test: int = 142, *, key: Any, n_validation: int = 0) -> Problem:
    """Disease progression of 442 patients from 10 measurements, with the squared loss; C = 1 output, d = 10 inputs.

    Inputs and targets are standardised with the mean and the standard deviation (divisor N) of the training samples that are
    drawn. So the constant prediction has the training loss 1/2, and twice the test loss is about 1 - R^2. A column that is
    constant over the training samples is only centred. The samples are shuffled by `key`. A smaller training set is the
    beginning of a larger one. The validation and test patients do not depend on `n_train`, but the standardisation does.

    **Arguments:**

    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data); at most 442 samples together.
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0 (0: no validation data).

    **Raises:** `DataError` for more samples than there are, or if scikit-learn is missing; `PrecisionError` without float64.

    Source: Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Annals of Statistics 2004.
    """
    require_float64((), "diabetes")
    measurements, progression = scikit_learn_datasets("diabetes").load_diabetes(return_X_y=True, scaled=False)
    rows = split(len(progression), n_train, n_test, "the diabetes data set", key, n_validation)
    return Problem(
        **sets_of(measurements, progression, rows),
        name="diabetes",
        standardise=True,
        names=Names(_MEASUREMENTS, ("progression",)),
    )
