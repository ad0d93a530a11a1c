"""Metrics: quantities that are measured along a run, each with its name, units and source."""

from ._accuracy import Accuracy as Accuracy
from ._base import (
    AbstractMetric as AbstractMetric,
    Variable as Variable,
)
from ._centred_kernel_alignment import centred_kernel_alignment as centred_kernel_alignment
from ._direction_diagnostics import DirectionDiagnostics as DirectionDiagnostics
from ._direction_distance import (
    DirectionDistance as DirectionDistance,
    direction_distance as direction_distance,
    direction_distance_to_previous as direction_distance_to_previous,
)
from ._feature_alignment import FeatureAlignment as FeatureAlignment
from ._full_ntk_spectrum import FullNTKSpectrum as FullNTKSpectrum
from ._hidden_learning import HiddenLearning as HiddenLearning
from ._kernel_distance import KernelDistance as KernelDistance
from ._kernel_distance_estimate import KernelDistanceEstimate as KernelDistanceEstimate
from ._kernel_target_alignment import KernelTargetAlignment as KernelTargetAlignment
from ._layer_alignment import LayerAlignment as LayerAlignment
from ._linearisation_error import LinearisationError as LinearisationError
from ._ntk_spectrum import NTKSpectrum as NTKSpectrum
from ._ntk_velocity import NTKVelocity as NTKVelocity
from ._particle_spread import ParticleSpread as ParticleSpread
from ._particles import Particles as Particles
from ._path_length import PathLength as PathLength
from ._relative_ntk_change import RelativeNTKChange as RelativeNTKChange
from ._relative_weight_movement import RelativeWeightMovement as RelativeWeightMovement
from ._subspace_distance import SubspaceDistance as SubspaceDistance
from ._term_ntk import TermNTK as TermNTK
from ._weight_change import WeightChange as WeightChange

metric_kinds: dict[str, type[AbstractMetric]] = {
    "accuracy": Accuracy,
    "direction_diagnostics": DirectionDiagnostics,
    "direction_distance": DirectionDistance,
    "feature_alignment": FeatureAlignment,
    "full_ntk_spectrum": FullNTKSpectrum,
    "hidden_learning": HiddenLearning,
    "kernel_distance": KernelDistance,
    "kernel_distance_estimate": KernelDistanceEstimate,
    "kernel_target_alignment": KernelTargetAlignment,
    "layer_alignment": LayerAlignment,
    "linearisation_error": LinearisationError,
    "ntk_spectrum": NTKSpectrum,
    "term_ntk": TermNTK,
    "ntk_velocity": NTKVelocity,
    "particle_spread": ParticleSpread,
    "particles": Particles,
    "path_length": PathLength,
    "relative_ntk_change": RelativeNTKChange,
    "relative_weight_movement": RelativeWeightMovement,
    "subspace_distance": SubspaceDistance,
    "weight_change": WeightChange,
}
