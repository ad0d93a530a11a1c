"""The lowest validation and test losses along a run."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray

# What `best_losses` gives, with a description. Who selects a state on the test set has no test set left: its loss there is too
# low for other data, which is why the name in tables and figures says so.
BEST_LOSSES: dict[str, str] = {
    "best_validation_loss": "lowest validation loss",
    "best_validation_loss_time": "time of the lowest validation loss",
    "test_loss_at_best_validation": "test loss at the lowest validation loss",
    "best_test_loss": "lowest test loss (selected on the test set)",
    "best_test_loss_time": "time of the lowest test loss",
}


def best_losses(data: "xarray.Dataset") -> dict[str, float]:
    """The lowest validation and test losses among the saved states of a run, with their flow times.

    **Arguments:**

    - `data`: what was measured along the run (`trajectory.data`).

    **Returns:** by the names of `BEST_LOSSES` those that there are. The clock is flow time; for a run by an optimiser it is the
    number of steps. Numbers that are not finite do not count.
    """
    found: dict[str, float] = {}
    clock = data["time" if "time" in data.coords else "flow_time"] if data.sizes else None
    for name in ("validation_loss", "test_loss"):
        row = lowest(data[name].to_numpy()) if name in data else None
        if row is None or clock is None:
            continue
        found |= {f"best_{name}": float(data[name].to_numpy()[row]), f"best_{name}_time": float(clock.to_numpy()[row])}
        if name == "validation_loss" and "test_loss" in data:
            found["test_loss_at_best_validation"] = float(data["test_loss"].to_numpy()[row])
    return found


def lowest(losses: np.ndarray) -> int | None:
    """The row of the first lowest loss; None if none is finite."""
    finite = np.isfinite(losses)
    return int(np.argmin(np.where(finite, losses, np.inf))) if finite.any() else None
