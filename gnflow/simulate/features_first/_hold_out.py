"""Choose by the loss on samples that are held out."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from ..._core import ConfigError, DataError, integer_field, number_field, require_number, shown, stream
from ...problems import AbstractProblem, Problem
from .._trajectory import Trajectory
from ..stop import RelativeLoss
from ._choice import AbstractFeatureChoice, Decision, Probe
from ._readout_metric import HeldOutLoss


def _as_cutoffs(value: Any) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ConfigError(f"cutoffs = {shown(value)}; expected one or several numbers, such as (1e-10, 1e-6).")
    return tuple(
        require_number(ConfigError, f"cutoffs[{place}]", one, least=0.0, below=1.0) for place, one in enumerate(value)
    )


class HoldOut(AbstractFeatureChoice):
    """Learn features on a part of the training samples, and take the state whose readout is best on the others.

    The flow runs on the samples that are not held out. At each saved time the output layer is solved for them, and its loss on
    the others measured. Where that is least, the training loss has fallen to a share r of its first value. All samples are then
    trained to the same share, because flow time means another thing with another number of samples. The cut-off of the solve is
    chosen in the same way, among several: it matters where targets are noisy.

    With several cycles the second one starts from an output layer that was solved for all samples, the held-out ones among
    them.

    **Arguments:**

    - `fraction`: the share of the training samples that is held out, between 0 and 1.
    - `seed`: draws them.
    - `cutoffs`: the cut-offs to choose among, at least 0 and below 1. None takes that of the call.

    **Raises:** `ConfigError` for other numbers; `DataError`, when a run begins, if a part would be empty.
    """

    fraction: float = number_field("HoldOut: fraction", default=0.2, above=0.0, below=1.0)
    seed: int = integer_field("HoldOut: seed", default=0, static=True, least=0)
    cutoffs: tuple[float, ...] | None = eqx.field(
        converter=lambda value: None if value is None else _as_cutoffs(value), default=(1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
    )

    def decide(self, problem: AbstractProblem, readout: str, cutoff: float, probe: Probe) -> Decision:
        """The share of the loss, and the cut-off, with the least held-out loss."""
        cutoffs = (cutoff,) if self.cutoffs is None else tuple(float(one) for one in self.cutoffs)
        run = probe(self.split(problem), (HeldOutLoss(readout, cutoffs),))
        share, place, least = _best(run)
        found = {"chosen_relative_loss": share, "chosen_cutoff": cutoffs[place], "held_out_loss": least}
        return Decision(stop=RelativeLoss(share), cutoff=cutoffs[place], probes=(run,), found=found)

    def split(self, problem: AbstractProblem) -> Problem:
        """The problem with the held-out samples for validation, and without test data. **Raises:** `DataError`."""
        count = problem.num_train
        held = round(float(self.fraction) * count)
        if not 0 < held < count:
            raise DataError(
                f"HoldOut(fraction={float(self.fraction):g}) holds out {held} of {count} training samples; both parts need at "
                "least one."
            )
        rows = np.asarray(jr.permutation(stream(jax.random.key(self.seed), "hold out"), count))
        out, kept = rows[:held], rows[held:]
        return Problem(
            problem.x_train[kept],
            problem.y_train[kept],
            loss=problem.loss,
            x_validation=problem.x_train[out],
            y_validation=problem.y_train[out],
            name=problem.name,
        )


def _best(run: Trajectory) -> tuple[float, int, float]:
    """The relative training loss and the cut-off at which the held-out loss is least, and this loss."""
    losses, training = run.data.held_out_loss.to_numpy(), run.data.train_loss.to_numpy()
    row, place = np.unravel_index(np.argmin(losses), losses.shape)
    minimum = float(run.problem.loss.minimum(run.problem.y_train))
    share = (training[row] - minimum) / (training[0] - minimum)
    return float(min(share, 1.0)), int(place), float(losses[row, place])
