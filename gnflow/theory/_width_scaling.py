"""Whether the flow of a sweep has a limit of infinite width at a fixed flow time: its speed and its damping at the start."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from .._core import ConfigError
from ..config import RunSpec

_MOST_SEEDS = 8
_MOST_ROWS = (
    2048  # of a Gram matrix that is decomposed for this check; damping of a larger one counts as not negligible
)
_LARGEST_EXPONENT = 0.5  # between M^0, as in the limit, and M^1 or M^-1; fluctuations at the start fall as M^(-1/2)
_NEGLIGIBLE = (
    1e-3  # damping, relative to the smallest eigenvalue of A/N: N is the smallest factor that a metric H puts there
)


@dataclasses.dataclass(frozen=True)
class _Start:
    """The state of a run at its start.

    **Attributes:**

    - `speed`: ||J w'||, the speed of the outputs.
    - `relative_damping`: eps/(trace A/rows of A); 0 without damping.
    - `is_negligible`: whether eps is far below every eigenvalue.
    """

    speed: float
    relative_damping: float
    is_negligible: bool


def require_scaling(smaller: Sequence[RunSpec], larger: Sequence[RunSpec], widths: tuple[float, float]) -> str:
    """Check that outputs move, and damping counts, as much at a large width as at a small one.

    In the particle metric (mobility M) w_i' depends on M through the particles' empirical measure alone, if eps falls as A
    does: like 1/M in the mean-field scaling. A mobility that is a number is another clock at each width. A constant eps
    outweighs A in the end, and nothing moves in a fixed time (docs/infinite_width.md).

    **Arguments:**

    - `smaller`, `larger`: runs of two widths, for one flow and several seeds.
    - `widths`: the two widths.

    **Returns:** what was found, in words.

    **Raises:** `ConfigError` if they do not.
    """
    name = larger[0].flow_name
    if "optimiser" in larger[0].integration:
        return f"{name}: the scaling of an optimiser's steps with the width is not checked"
    starts = [[_start(cell) for cell in cells[:_MOST_SEEDS]] for cells in (smaller, larger)]
    damping, speed = (
        _exponent(*([getattr(one, what) for one in several] for several in starts), widths)
        for what in ("relative_damping", "speed")
    )
    matters = any(not one.is_negligible for one in starts[1])
    if damping is not None and damping > _LARGEST_EXPONENT and matters:
        raise ConfigError(
            f"the damping of {name} grows as M^{damping:.2g} relative to A = J J^T, from M = {widths[0]:g} to {widths[1]:g}, "
            "so that in the limit of infinite width nothing moves in a fixed flow time: let eps fall like 1/M, by a zipped "
            f'axis values = {{ "model.width" = [50, 100], "flows.{name}.damping.value" = [2e-3, 1e-3] }}, or take a rule '
            "relative to the eigenvalues (smallest_eigenvalue or largest_eigenvalue, with a floor that is not reached)."
        )
    if speed is not None and abs(speed) > _LARGEST_EXPONENT:
        raise ConfigError(
            f"at the start the outputs of {name} move with a speed that scales as M^{speed:.2g}, from M = {widths[0]:g} to "
            f"{widths[1]:g}, so that there is no limit of infinite width at a fixed flow time: give the flow mobility = "
            "'model', and scale what else sets its clock with the width."
        )
    words = [f"speed of the outputs at the start ~ M^{speed:.2f}" if speed is not None else "no speed at the start"]
    words += [f"damping relative to A ~ M^{damping:.2f}"] if damping is not None and matters else []
    return f"{name}: {', '.join(words)}"


def _start(cell: RunSpec) -> _Start:
    made = cell.prepare()
    system = made.flow.system(made.problem, made.model)
    weights = system.weights(made.model)
    velocity, solve = made.flow.velocity_and_diagnostics(0.0, weights, system)
    tangent = system.tangent(weights)
    speed = float(jnp.linalg.norm(tangent.jvp(velocity)))
    eps = 0.0 if solve is None else float(solve.damping)
    rows = made.problem.num_train * made.problem.num_outputs
    if eps == 0:
        return _Start(speed, 0.0, True)
    mean = float(jnp.trace(tangent.sample_blocks(), axis1=1, axis2=2).sum()) / rows
    if rows > _MOST_ROWS:
        return _Start(speed, eps / mean, False)
    smallest = max(float(jnp.linalg.eigvalsh(tangent.gram())[0]), 0.0) / made.problem.num_train
    return _Start(speed, eps / mean, eps < _NEGLIGIBLE * smallest)


def _exponent(smaller: list[float], larger: list[float], widths: tuple[float, float]) -> float | None:
    """The exponent p of M^p between two widths; None if the quantity is zero."""
    ends = [float(np.median(values)) for values in (smaller, larger)]
    if not all(0 < end < np.inf for end in ends):
        return None
    return float(np.log(ends[1] / ends[0]) / np.log(widths[1] / widths[0]))
