"""Inputs and targets of mean 0 and standard deviation 1 over the training samples, and the way back."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from .._core import DataError, DataWarning, Numbers, is_traced, shown, warn
from ..losses import AbstractLoss

# What `standardise` may be. True: the inputs, and the targets of a loss that depends on f - y alone.
Standardise = bool | Literal["inputs", "targets", "both"]

_SHOWN_COLUMNS = 3
_ROUNDING = 8 * np.finfo(float).eps  # relative range of a column that differs by rounding alone


class Standardisation(eqx.Module):
    """z = (x - mean)/scale, each column by itself. Made by `Standardisation.fitted` of samples, by `given` of numbers.

    **Attributes:**

    - `mean`: the means of the columns, over the training samples.
    - `scale`: their standard deviations (divisor N); 1 for a column that is constant, up to rounding.
    """

    mean: Float64[Array, "*columns"]
    scale: Float64[Array, "*columns"]

    def __check_init__(self):
        # For one that is read from a file.
        if self.mean.shape != self.scale.shape or not bool(jnp.all(jnp.isfinite(self.mean) & (self.scale > 0))):
            raise DataError("a standardisation has a finite mean and a positive scale for each column.")

    @classmethod
    def given(cls, mean: Any, scale: Any) -> "Standardisation":
        """The standardisation with this mean and this scale, arrays of the shape of an input.

        **Raises:** `DataError` for numbers that are not finite, scales that are not positive, and different shapes.
        """
        return cls(*(jnp.asarray(np.asarray(numbers, dtype=float)) for numbers in (mean, scale)))

    @classmethod
    def fitted(cls, columns: Numbers, what: str, names: Sequence[str] | None) -> "Standardisation":
        """The standardisation of training samples. Warns of constant columns.

        **Arguments:**

        - `columns`: the samples (N, ...), float64.
        - `what`: their name in messages.
        - `names`: the names of the columns, if they have some.

        **Raises:** `DataError` for samples that JAX traces, and for columns so large or so small that float64 cannot hold their
        standard deviation.
        """
        if is_traced(columns):
            raise DataError(
                f"standardise needs the numbers in {what}, which are unknown while JAX traces a program; standardise the whole "
                "data before, outside."
            )
        known = np.asarray(columns)
        least, most = np.min(known, axis=0), np.max(known, axis=0)
        # Of equal numbers rounding can make the standard deviation tiny instead of zero, and the mean another number. Numbers
        # that differ in their last digits were equal before they were rounded: scaled, that noise would be a feature.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            constant = most - least <= _ROUNDING * np.maximum(np.abs(least), np.abs(most))
            mean = np.where(most == least, known[0], known.mean(axis=0))
            spread = np.where(constant, 1.0, known.std(axis=0))
        odd = ~(np.isfinite(mean) & np.isfinite(spread) & (spread > 0))
        if odd.any():
            raise DataError(
                f"{_listed(odd, names)} of {what} cannot be standardised: float64 cannot hold the standard deviation. Change "
                "the unit, or leave it out."
            )
        if constant.any() and len(known) > 1:  # of a single sample everything is constant
            warn(
                f"{_listed(constant, names)} of {what} is constant over the {len(known)} training samples. It is centred and "
                "not scaled, so that it is zero there and tells a model nothing: leave it out.",
                DataWarning,
            )
        return cls(jnp.asarray(mean), jnp.asarray(spread))

    def apply(self, columns: Any) -> Array:
        """(columns - mean)/scale, for columns (..., d)."""
        if is_traced(columns):
            return (columns - _beside(columns, self.mean)) / _beside(columns, self.scale)
        # By NumPy: XLA's quotients may differ in the last bit from one program to the next.
        return jnp.asarray((np.asarray(columns) - np.asarray(self.mean)) / np.asarray(self.scale))

    def invert(self, standardised: Any) -> Array:
        """mean + scale standardised, for columns (..., d)."""
        return _beside(standardised, self.mean) + _beside(standardised, self.scale) * standardised


def _beside(columns: Any, numbers: Array) -> Array:
    """Numbers of the columns with as many axes as `columns`, so that JAX need not promote their rank."""
    return jnp.reshape(numbers, (1,) * (np.ndim(columns) - numbers.ndim) + numbers.shape)


def standardised(
    sets: dict[str, Any], what: str, names: Sequence[str] | None, wanted: bool | Standardisation
) -> tuple[Standardisation | None, dict[str, Any]]:
    """All sets of samples, standardised if that is wanted, and how: by the training samples, or as it is given.

    **Raises:** `DataError` for a given standardisation of another shape than that of a sample.
    """
    if wanted is False:
        return None, sets
    found = Standardisation.fitted(sets["train"], what, names) if wanted is True else wanted
    if found.mean.shape != sets["train"].shape[1:]:
        raise DataError(
            f"standardise has means and scales of the shape {found.mean.shape}, but the samples of {what} have the shape "
            f"{sets['train'].shape[1:]}; give a number for each entry of a sample."
        )
    return found, {which: found.apply(columns) for which, columns in sets.items()}


def what_to_standardise(standardise: Any, loss: AbstractLoss) -> tuple[bool | Standardisation, bool]:
    """Whether inputs and targets are to be standardised. True is both, or the inputs alone unless the loss says that it depends
    on f - y alone. A `Standardisation` is that of the inputs.

    **Raises:** `DataError` for another value than true, false, "inputs", "targets" and "both", and for targets of a loss of
    classes or probabilities.
    """
    if isinstance(standardise, Standardisation):
        return standardise, False
    all_or_nothing = isinstance(standardise, bool | np.bool_)
    if not all_or_nothing and not (isinstance(standardise, str) and standardise in ("inputs", "targets", "both")):
        raise DataError(
            f'standardise = {shown(standardise)}; expected true or false, or which: "inputs", "targets" or "both"; '
            "or a gnflow.problems.Standardisation of the inputs."
        )
    if all_or_nothing:
        return bool(standardise), bool(standardise) and loss.targets_may_be_rescaled is True
    if standardise != "inputs" and loss.targets_may_be_rescaled is False:
        raise DataError(
            f"standardise = {standardise!r}, but the targets of {type(loss).__name__} are classes or probabilities, which have "
            'no scale; take "inputs".'
        )
    return standardise in ("inputs", "both"), standardise in ("targets", "both")


def _listed(which: np.ndarray, names: Sequence[str] | None) -> str:
    """The columns where `which` is true, in words."""
    places = [tuple(int(i) for i in place) for place in np.argwhere(which)]
    columns = [repr(names[p[0]]) if names is not None and len(p) == 1 else ", ".join(map(str, p)) for p in places]
    more = len(columns) - _SHOWN_COLUMNS
    return f"column {', '.join(columns[:_SHOWN_COLUMNS])}" + (f" (and {more} more)" if more > 0 else "")
