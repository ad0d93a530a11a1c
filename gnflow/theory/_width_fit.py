"""A limit L + beta/M of samples at several widths M, with intervals and a test of the law."""

import dataclasses

import numpy as np

from ._rate import student_quantile

_MORE_SEEDS_THAN_CONTRASTS = 3  # for the test on all widths; with fewer seeds its variances are too uncertain
_OF_THE_LAW = 20  # degrees of freedom that the law of variances counts for beside those of the seeds
_NO_SPREAD = 1e-12  # relative; seeds that differ by less are equal up to rounding


@dataclasses.dataclass(frozen=True)
class WidthFit:
    """E y(M) = L + beta/M fitted to samples over seeds and widths, for n quantities.

    **Attributes:**

    - `limit`, `slope`: L and beta (n,).
    - `limit_error`, `slope_error`: their standard errors (n,).
    - `quantile`: Student's quantile that makes half an interval of a standard error.
    - `means`, `mean_errors`: the mean over the seeds at each width, and its standard error (k, n).
    - `p_value`: the probability of samples at least as far from the law if it holds (n,); nan with two widths, or without
      any spread over the seeds.
    """

    limit: np.ndarray
    limit_error: np.ndarray
    slope: np.ndarray
    slope_error: np.ndarray
    quantile: float
    means: np.ndarray
    mean_errors: np.ndarray
    p_value: np.ndarray


def fit_widths(widths: np.ndarray, samples: np.ndarray, confidence: float) -> WidthFit:
    """Fit L + beta/M by weighted least squares.

    The weights are the inverse variances over the seeds at each width. They make L a linear function of the k numbers of a
    seed, so L is the mean over the seeds of such numbers, and Student's interval with S - 1 degrees of freedom follows from
    their spread. This holds whatever the correlation between the widths of a seed is: networks of one seed share particles.

    The law is tested by Hotelling's T^2 of the k - 2 contrasts that vanish where y is L + beta/M. With hardly more seeds than
    contrasts their covariance is not known well enough. Then the one contrast is tested that says how much L changes without
    the smallest width.

    **Arguments:**

    - `widths`: k >= 2 different widths, ascending.
    - `samples`: (S, k, n), S >= 2 seeds.
    - `confidence`: of the intervals, between 0 and 1.

    Sources: Hotelling 1931, Ann. Math. Statist. 2, 360; docs/infinite_width.md.
    """
    seeds, _, number = samples.shape
    rows = [_fit_one(widths, samples[:, :, place]) for place in range(number)]
    limit, limit_error, slope, slope_error, p_value = np.asarray(rows).reshape(number, 5).T
    return WidthFit(
        limit,
        limit_error,
        slope,
        slope_error,
        student_quantile(seeds - 1, (1 + confidence) / 2),
        np.mean(samples, axis=0),
        np.std(samples, axis=0, ddof=1) / np.sqrt(seeds),
        p_value,
    )


def _fit_one(widths: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float, float]:
    """L, its error, beta, its error and the p-value for samples (S, k)."""
    seeds, number = y.shape
    variances = np.var(y, axis=0, ddof=1)
    smallest = (_NO_SPREAD * np.max(np.abs(y))) ** 2
    if not np.all(np.isfinite(y)):
        return (np.nan,) * 5
    has_spread = bool(np.any(variances > smallest))
    # Variances of a few seeds are uncertain, and those of the limit fall like 1/M (docs/theorems/mean_field.md).
    law = np.mean(variances * widths) / widths
    pooled = ((seeds - 1) * variances + _OF_THE_LAW * law) / (seeds - 1 + _OF_THE_LAW)
    weights = 1 / np.maximum(pooled, max(smallest, np.finfo(float).tiny))
    estimates = y @ _coefficients(widths, weights).T
    (limit, slope), errors = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(seeds)
    p_value = np.nan
    if number > 2 and has_spread:
        contrasts = _null_space(widths)
        if seeds < contrasts.shape[1] + _MORE_SEEDS_THAN_CONTRASTS:
            without = np.concatenate([[0.0], _coefficients(widths[1:], weights[1:])[0]])
            contrasts = (without - _coefficients(widths, weights)[0])[:, None]
        p_value = _hotelling(y @ contrasts)
    return float(limit), float(errors[0]), float(slope), float(errors[1]), p_value


def _coefficients(widths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rows c (2, k) with L = c_0 . y and beta = c_1 . y for the weighted least-squares line in 1/M."""
    inverse = 1 / widths
    centre = np.average(inverse, weights=weights)
    slope = weights * (inverse - centre) / (weights @ (inverse - centre) ** 2)
    return np.stack([weights / np.sum(weights) - centre * slope, slope])


def _null_space(widths: np.ndarray) -> np.ndarray:
    """An orthonormal basis (k, k - 2) of the contrasts that vanish on 1 and 1/M."""
    design = np.stack([np.ones_like(widths), widths.min() / widths], axis=1)
    return np.linalg.qr(design, mode="complete").Q[:, 2:]


def _hotelling(contrasts: np.ndarray) -> float:
    """The probability of means (q,) at least as large if they are zero, for contrasts (S, q), S > q."""
    from scipy.special import fdtrc

    seeds, number = contrasts.shape
    means = np.mean(contrasts, axis=0)
    scale = np.std(contrasts, axis=0, ddof=1)
    if not np.all(scale > 0):
        return np.nan
    correlation = np.atleast_2d(np.cov((contrasts / scale).T))
    squared = seeds * (means / scale) @ np.linalg.lstsq(correlation, means / scale)[0]
    return float(fdtrc(number, seeds - number, (seeds - number) / (number * (seeds - 1)) * squared))
