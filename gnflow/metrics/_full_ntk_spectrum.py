"""All eigenvalues of the NTK."""

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class FullNTKSpectrum(AbstractMetric):
    """`ntk_spectrum`: all NC eigenvalues of A = J J^T on the training inputs, ascending, in outputs^2/weights^2.

    Eigenvalues that are zero appear as rounding of either sign, of the order NC * (machine epsilon) * lam_NC. Each saved time
    takes NC numbers; `NTKSpectrum` takes four. Source: Jacot et al. 2018.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`ntk_spectrum` with the dimension "eigenvalue"; defined for every model."""
        return (
            Variable(
                "ntk_spectrum", "eigenvalues of the NTK", "outputs^2/weights^2", "Jacot et al. 2018", ("eigenvalue",)
            ),
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The eigenvalues, which all metrics share."""
        return {"ntk_spectrum": snapshot.eigenvalues}
