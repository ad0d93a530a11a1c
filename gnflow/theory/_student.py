"""Quantiles of Student's distribution."""


def student_quantile(degrees_of_freedom: int, probability: float) -> float:
    """The t below which a variable of Student's distribution lies with this probability.

    `scipy.special.stdtrit` is what `scipy.stats.t.ppf` calls; `scipy.stats` takes longer to load than most runs of a theorem.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))
