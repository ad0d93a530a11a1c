"""How the pixels of images are standardised."""

from typing import Any, Literal

import numpy as np

from .._core import DataError, shown
from ._standardise import Standardisation

# True: every pixel by itself, as in `gnflow.Problem`.
StandardisePixels = bool | Literal["channels"]


def require_standardise_pixels(standardise: Any) -> StandardisePixels:
    """Check what `standardise` is for images. **Raises:** `DataError` for anything but true, false and "channels"."""
    if isinstance(standardise, bool | np.bool_):
        return bool(standardise)
    if isinstance(standardise, str) and standardise == "channels":
        return "channels"
    raise DataError(
        f'standardise = {shown(standardise)}; expected true (each pixel by itself), "channels" (one mean and one standard '
        "deviation for all pixels of a colour) or false."
    )


def standardisation_of_pixels(
    standardise: StandardisePixels, x_train: np.ndarray, channels: int
) -> bool | Standardisation:
    """What `gnflow.Problem` takes as `standardise` for training images (n, d).

    **Arguments:**

    - `standardise`: as for `mnist`.
    - `x_train`: the training images (n, d), whose pixels are those of one channel after the other.
    - `channels`: the number of channels.
    """
    if standardise != "channels":
        return bool(standardise)
    parts = x_train.reshape(len(x_train), channels, -1)
    size = parts.shape[2]
    mean, scale = parts.mean(axis=(0, 2)), parts.std(axis=(0, 2))
    if not np.all(scale > 0):
        raise DataError('standardise = "channels", but all pixels of a colour are equal in the training images.')
    return Standardisation.given(np.repeat(mean, size), np.repeat(scale, size))
