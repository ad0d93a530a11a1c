"""The softmax cross-entropy."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core import DataError, Numbers, is_traced
from ._base import AbstractLoss
from ._conjugates import AbstractConjugate, log_shifted, rounding, times_logarithm, where_in_domain
from ._factors import LARGEST_EXPONENT, AbstractOutputFactor, SoftmaxFactor, deviation_from_mean, likeliest_class
from ._targets import as_columns, holds_integers, same_columns, target_array

# Soft labels made in float32 sum to one within about 1e-7 per class.
_ROW_SUM_TOLERANCE = 1e-5
# How many classes may have no sample: a small part of a data set with many classes lacks some of them. More are a mistake, such
# as labels that are codes, which would make a huge one-hot matrix.
_MOST_EMPTY_CLASSES = 100


class SoftmaxCrossEntropy(AbstractConjugate, AbstractLoss):
    """l(f, y) = -sum_c y_c log p_c with p = softmax(f), mean over samples.

    g = (p - y)/N and H = (1/N) blockdiag(diag(p) - p p^T), singular along 1 in every sample; H is the Fisher metric too
    (the categorical family is an exponential family and f its natural parameter).

    The pseudo-inverse of B = diag(p) - p p^T is X = Proj diag(1/p) Proj with Proj = I - 1 1^T/C: B Proj = B because
    B 1 = 0, so B X = B diag(1/p) Proj = (I - p 1^T) Proj = Proj, which is symmetric and fixes B and X.

    Not strongly convex (mu = 0); lambda = 1/(2N): by Gershgorin the eigenvalues of diag(p) - p p^T are at most
    max_c p_c (1 - p_c) + sum_{j != c} p_c p_j = 2 p_c (1 - p_c) <= 1/2, attained for two classes with p = 1/2.
    (Boehning, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44 (1992), has it as a matrix
    inequality.)

    Results are accurate for logits of any finite size, as long as they are within float64's range.

    Targets: integer labels 0..C-1 of shape (N,), or one-hot or soft labels of shape (N, C), C >= 2.
    """

    fisher_is_hessian: ClassVar[bool] = True
    gradient_in_hessian_image: ClassVar[bool] = True
    is_smooth: ClassVar[bool | None] = True
    takes_labels: ClassVar[bool] = True
    targets_may_be_rescaled: ClassVar[bool | None] = False
    prediction: ClassVar[str] = "argmax of the outputs"

    def correct(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, "..."]:
        """Whether output and target are largest at the same class (the first of several), (N,)."""
        return self.classes(f) == self.classes(y)

    def probabilities(self, f: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """p = softmax(f), (N, C)."""
        return jnp.exp(_log_softmax(f))

    def classes(self, f: Float[Array, "N C"]) -> Int[Array, " N"]:
        """The likeliest class of each sample (the first of several), (N,)."""
        return jnp.argmax(f, axis=1)

    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """Integer labels become one-hot rows. Rows that sum to one up to rounding are rescaled to sum to one in float64.

        C is the number of columns if y_train or y_test has columns, otherwise the largest label of both plus one (at least 2).

        **Raises:** `DataError` for labels that are not integers, are negative, number the classes 1..C, are beyond the last
        class, or leave more than 100 classes (and more than they fill) without a sample; for rows with a negative number, rows
        that do not sum to one and a single column; for NaN or inf, empty arrays, more than two dimensions, different numbers
        of columns in train and test; for labels inside a program that JAX traces, where the number of classes is unknown.
        `PrecisionError` unless JAX is in float64.
        """
        given = {"y_train": target_array(y_train, "y_train")}
        if y_test is not None:
            given["y_test"] = target_array(y_test, "y_test")
        for what, array in given.items():
            _check_labels(array, what) if array.ndim == 1 else _check_rows(array, what)
        widths = [array.shape[1] for array in given.values() if array.ndim == 2]
        if not widths:
            _require_classes_from_zero(np.concatenate(list(given.values())))
        num_classes = widths[0] if widths else max(2, *(int(np.max(array)) + 1 for array in given.values()))
        canonical = {what: _one_hot_or_soft(array, num_classes, what) for what, array in given.items()}
        return same_columns(canonical["y_train"], canonical.get("y_test"))

    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """-(1/N) sum of y log p."""
        return -jnp.sum(y * _log_softmax(f)) / f.shape[0]

    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """(p - y)/N."""
        log_probabilities = _log_softmax(f)
        # p - y = (p - 1) + (1 - y), where nothing cancels for the right class of a sample that is fitted well.
        likely = jnp.expm1(log_probabilities) + (1 - y)
        return jnp.where(y > 0.5, likely, jnp.exp(log_probabilities) - y) / f.shape[0]

    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """p (v - <p, v>) / N for each sample."""
        log_probabilities = _log_softmax(f)
        return jnp.exp(log_probabilities) * deviation_from_mean(log_probabilities, v) / f.shape[0]

    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """N Proj diag(1/p) Proj v for each sample."""
        exponent = -_log_softmax(f)
        centred = v - jnp.mean(v, axis=1, keepdims=True)
        # The second projection is taken of smaller numbers, and scaled afterwards, because inf - inf would be nan. The shift
        # cancels in the result, so it has no derivative.
        shift = jax.lax.stop_gradient(jnp.minimum(jnp.max(exponent, axis=1, keepdims=True), LARGEST_EXPONENT))
        divided = centred * jnp.exp(jnp.minimum(exponent - shift, LARGEST_EXPONENT))
        return f.shape[0] * (divided - jnp.mean(divided, axis=1, keepdims=True)) * jnp.exp(shift)

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`SoftmaxFactor(log p)`."""
        return SoftmaxFactor(_log_softmax(f))

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`SoftmaxFactor(log p)`, the Hessian's."""
        return self.hessian_factor(f, y)

    def strong_convexity(self, num_samples: int) -> float:
        """0: adding the same number to all logits of a sample changes nothing."""
        return 0.0

    def smoothness(self, num_samples: int) -> float:
        """1/(2N) (derived on the class)."""
        return 1 / (2 * num_samples)

    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """Mean entropy of the targets; 0 for one-hot rows (not attained)."""
        return jnp.sum(jax.scipy.special.entr(y)) / y.shape[0]

    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """sum_c p_c log p_c with p = y + alpha; infinite unless p are probabilities.

        l is log sum_c e^(f_c) - <y, f>, so that <alpha, f> - l = <p, f> - log sum_c e^(f_c). The supremum over f is the
        negative entropy of p, for soft labels too, without a constant.
        """
        negative_entropy = jnp.sum(times_logarithm(y + alpha, log_shifted(alpha, y)), axis=1)
        return where_in_domain(self.in_conjugate_domain(alpha, y), negative_entropy)

    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """log p minus its mean over the classes, with p = y + alpha: of all logits with this gradient those that sum to zero.

        Where some p_c is 0 the supremum is only approached: the logits of these classes are -inf, the others +inf.
        """
        log_p = log_shifted(alpha, y)
        vanishing = jnp.isneginf(log_p)
        some = jnp.any(vanishing, axis=1, keepdims=True)
        logits = jnp.where(
            some, jnp.where(vanishing, -jnp.inf, jnp.inf), log_p - jnp.mean(log_p, axis=1, keepdims=True)
        )
        return jnp.where(self.in_conjugate_domain(alpha, y)[:, None], logits, jnp.nan)

    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """y + alpha >= 0 in every class and alpha sums to zero over the classes."""
        slack = rounding(alpha)
        return jnp.all(y + alpha >= -slack, axis=1) & (jnp.abs(jnp.sum(alpha, axis=1)) <= slack)


def _log_softmax(f: Float[Array, "N C"]) -> Float[Array, "N C"]:
    # For a sample that is fitted well jax.nn.log_softmax rounds log(1 + tiny) to 0 at 1e-16, and the loss would stop there.
    # Leaving the largest logit out of the sum keeps the relative accuracy.
    likeliest = likeliest_class(f)
    relative = f - jnp.sum(jnp.where(likeliest, f, 0.0), axis=1, keepdims=True)
    others = jnp.sum(jnp.where(likeliest, 0.0, jnp.exp(relative)), axis=1, keepdims=True)
    return relative - jnp.log1p(others)


def _check_labels(array: Numbers, what: str) -> None:
    if is_traced(array):
        raise DataError(
            f"{what} has shape {array.shape} inside a program that JAX traces, where the number of classes cannot be told from "
            f"labels; pass one-hot rows, jax.nn.one_hot({what}, C, dtype=float)."
        )
    if not holds_integers(array):
        raise DataError(
            f"{what} has shape {array.shape} and dtype {array.dtype}, but class labels of shape (N,) must be integers; "
            f"pass {what}.astype(int), or one-hot rows of shape (N, C). For real targets use SquaredLoss."
        )
    if np.min(array) < 0:
        raise DataError(f"{what} holds the label {np.min(array)}, but labels are 0..C-1; renumber the classes from 0.")


def _require_classes_from_zero(labels: np.ndarray) -> None:
    """Check that labels number the classes from 0.

    **Raises:** `DataError` for labels 1..C, and for labels that leave more than 100 classes, and more than they fill, without a
    sample.
    """
    present = np.unique(labels)
    if present.size > 1 and present[0] == 1 and present[-1] == present.size:
        raise DataError(
            f"the class labels are 1 to {present.size}, but labels are 0..C-1; renumber them from 0: y - 1 (or give one-hot "
            "rows, if there is a class 0 without samples)."
        )
    empty = int(present[-1]) + 1 - present.size
    if empty > max(_MOST_EMPTY_CLASSES, present.size):
        raise DataError(
            f"the class labels are {present.size} different numbers up to {present[-1]}, so {empty} classes would have no "
            "sample; renumber them from 0: y = numpy.unique(y, return_inverse=True)[1], over training and test together."
        )


def _check_rows(array: Numbers, what: str) -> None:
    if array.shape[1] < 2:
        raise DataError(
            f"{what} has shape {array.shape}, but one-hot rows have at least two columns; pass integer labels as "
            f"{what}.reshape(-1), or use LogisticLoss for one 0/1 output."
        )
    if is_traced(array):
        return
    numbers = array.astype(np.float64)
    if np.min(numbers) < 0:
        row = int(np.argwhere(numbers < 0)[0, 0])
        raise DataError(f"{what} holds {np.min(numbers[row])} in row {row}, but the rows must be probabilities, >= 0.")
    sums = np.sum(numbers, axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > _ROW_SUM_TOLERANCE:
        raise DataError(
            f"{what} sums to {sums[worst]} in row {worst}, but each row must be the probabilities of the classes and "
            "sum to 1; divide the rows by their sums, or use LogisticLoss for labels that do not exclude each other."
        )


def _one_hot_or_soft(array: Numbers, num_classes: int, what: str) -> Float[Array, "N C"]:
    if array.ndim == 2:
        rows = as_columns(array)
        # Rows whose sum is only about 1 would give the gradient a component along 1, outside the image of the Hessian.
        return rows / jnp.sum(rows, axis=1, keepdims=True)
    labels = array.astype(np.int64)
    if np.max(labels) >= num_classes:
        raise DataError(
            f"{what} holds the label {np.max(labels)}, but the one-hot rows beside it have {num_classes} columns, for "
            f"the labels 0..{num_classes - 1}; use the same classes in train and test."
        )
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float64)
