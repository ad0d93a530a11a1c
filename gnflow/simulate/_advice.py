"""What in the data makes a run slow or inaccurate (scale, offset, rank), with the remedy."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import jit_for_states, tree_size
from ..geometry import System, rank_cutoff
from .stop import DENSE_LIMIT

_USUAL = (1e-2, 1e2)  # sizes of inputs and targets for which networks and tolerances are made
_UNEQUAL = 100.0  # ratio of the largest column to the smallest
_OFFSET = 10.0  # ratio of a column's mean to its spread
_MANY_COLUMNS = 32  # images have a few columns that hardly ever differ from zero
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
        what = " and ".join(name for name, found in (("x", x), ("y", y)) if found)
        said.append(f"standardise {what} (subtract the mean of each column, divide by its standard deviation)")
    return "; ".join(said)


def of_data(system: System) -> tuple[list[str], list[str]]:
    """What is unusual about the scales of inputs and targets; nothing for a problem without samples."""
    problem = system.problem
    return (of_inputs(problem.x_train), of_targets(problem.y_train)) if problem.has_samples else ([], [])


def of_inputs(x: Array | np.ndarray) -> list[str]:
    """What is unusual about the scale of the inputs (N, ...)."""
    columns = np.asarray(x, dtype=float).reshape(len(x), -1)
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    varies = spread > 1e-12 * np.abs(mean)
    said = _of_sizes(columns, "x")
    far = np.flatnonzero(varies & (np.abs(mean) > _OFFSET * spread))
    constant = np.flatnonzero(~varies & (np.abs(mean) > _OFFSET))
    if far.size:
        ratio = np.max(np.abs(mean[far]) / spread[far])
        said.append(f"{_columns(far)} of x has a mean of up to {ratio:.1e} times its spread")
    if constant.size:
        said.append(f"{_columns(constant)} of x is constant, {mean[constant][np.argmax(np.abs(mean[constant]))]:.3g}")
    return said


def of_targets(y: Float[Array, "samples outputs"]) -> list[str]:
    """What is unusual about the scale of the targets (N, C)."""
    return _of_sizes(np.asarray(y, dtype=float), "y")


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


def _of_sizes(columns: np.ndarray, name: str) -> list[str]:
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return []
    ends = (0.0, 1.0) if sizes.size < _MANY_COLUMNS else (0.5, 0.5)
    least, most = (float(np.quantile(sizes, end)) for end in ends)
    if least >= _USUAL[0] and most <= _USUAL[1] and most <= _UNEQUAL * least:
        return []
    between = f"{most:.1e}" if least == most else f"{least:.1e} to {most:.1e}"
    return [f"the columns of {name} have a root mean square of {between}"]


def _columns(which: np.ndarray) -> str:
    listed = ", ".join(str(column) for column in which[:3]) + (", ..." if which.size > 3 else "")
    return f"column {listed}"
