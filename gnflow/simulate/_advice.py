"""What in the data makes a run slow or inaccurate (scale, offset, rank), with the remedy."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import jit_for_states, tree_size
from ..geometry import System, rank_cutoff
from ..problems._scale import how_to_standardise, of_inputs, of_targets
from .stop import DENSE_LIMIT

_ILL_CONDITIONED = 1e10


def advice(system: System, weights: PyTree, eigenvalues: Float[np.ndarray, " rows"] | None = None) -> str:
    """Clauses about inputs, targets and Gram matrix that may explain a slow or inaccurate run; empty if nothing is unusual.

    **Arguments:**

    - `system`: the problem joined with the model's structure.
    - `weights`: the weights at the end of the run.
    - `eigenvalues`: the eigenvalues (NC,) of A there. None computes them, up to 4096 outputs.
    """
    x, y = of_data(system)
    said = [
        *x,
        *y,
        *of_spectrum(system, weights, gram_eigenvalues(system, weights) if eigenvalues is None else eigenvalues),
    ]
    if x or y:
        said.append(how_to_standardise(bool(x), bool(y), system.loss, system.problem.is_standardised))
    return "; ".join(said)


def of_data(system: System) -> tuple[list[str], list[str]]:
    """What is unusual about the scales of inputs and targets; nothing for a problem without samples."""
    problem = system.problem
    return (of_inputs(problem.x_train), of_targets(problem.y_train)) if problem.has_samples else ([], [])


def of_spectrum(system: System, weights: PyTree, eigenvalues: Float[np.ndarray, " rows"] | None) -> list[str]:
    """The rank of A if it is not full, or its condition number if that is large."""
    if eigenvalues is None or not np.all(np.isfinite(eigenvalues)):
        return []
    outputs, largest = len(eigenvalues), float(np.max(np.abs(eigenvalues), initial=0.0))
    if largest == 0:
        return ["no trained weight changes an output here (the Gram matrix of the NTK is zero)"]
    kept = eigenvalues[eigenvalues > float(rank_cutoff(jnp.asarray(eigenvalues)))]
    if len(kept) < outputs:
        size = tree_size(weights)
        why = f", from {size} trained weights" if size < outputs else ""
        return [f"the Gram matrix of the NTK has rank {len(kept)} of {outputs}{why}"]
    if largest > _ILL_CONDITIONED * kept.min():
        return [f"the eigenvalues of the NTK's Gram matrix spread over a factor of {largest / kept.min():.1e}"]
    return []


def gram_eigenvalues(system: System, weights: PyTree) -> Float[np.ndarray, " rows"] | None:
    """The eigenvalues (NC,) of A at `weights`, ascending; None for more than 4096 outputs."""
    if system.problem.y_train.size > DENSE_LIMIT:
        return None
    return np.asarray(_eigenvalues(system, weights))


@jit_for_states
def _eigenvalues(system: System, weights: PyTree) -> Float[Array, " rows"]:
    return jnp.linalg.eigvalsh(system.tangent(weights).gram())
