"""The tangent geometry of a model on a problem: J, J^T, the NTK Gram matrix, spectra, damping and directions."""

from . import damping as damping, directions as directions, dual as dual
from ._block_gauss_newton import block_gauss_newton as block_gauss_newton
from ._dispatch import make_tangent as make_tangent
from ._fit_output_layer import fit_output_layer as fit_output_layer
from ._generic import GenericTangent as GenericTangent
from ._least_squares import LeastSquares as LeastSquares, least_squares_with_bias as least_squares_with_bias
from ._linearisation import (
    Linearisation as Linearisation,
    linearise_with_hessian as linearise_with_hessian,
    linearise_with_other_metric as linearise_with_other_metric,
    linearise_with_singular_metric as linearise_with_singular_metric,
)
from ._output_metric import (
    AbstractOutputMetric as AbstractOutputMetric,
    FisherMetric as FisherMetric,
    HessianMetric as HessianMetric,
    IdentityMetric as IdentityMetric,
    get_output_metric as get_output_metric,
    output_metrics as output_metrics,
)
from ._range import ResolvedRange as ResolvedRange
from ._readout import Readout as Readout, require_linear as require_linear
from ._scaled import ScaledTangent as ScaledTangent, scaled_tangent as scaled_tangent
from ._snapshot import Snapshot as Snapshot
from ._spectrum import (
    effective_rank as effective_rank,
    numerical_rank as numerical_rank,
    rank_cutoff as rank_cutoff,
)
from ._system import System as System
from ._tangent import AbstractTangent as AbstractTangent
from ._truncated_inverse import TruncatedInverse as TruncatedInverse
from .directions import Decomposition as Decomposition, Direction as Direction, SolveDiagnostics as SolveDiagnostics
