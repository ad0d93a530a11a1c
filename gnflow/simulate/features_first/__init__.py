"""Features first, the output layer last: the method, and the rules that choose when features are learned."""

from collections.abc import Callable
from typing import Any

from ..stop import stop_kinds
from ._alignment import AlignmentPeak as AlignmentPeak
from ._choice import AbstractFeatureChoice as AbstractFeatureChoice, Decision as Decision
from ._effective_rank import FeatureRank as FeatureRank
from ._hold_out import HoldOut as HoldOut
from ._leave_one_out import LeaveOneOut as LeaveOneOut
from ._train import (
    KIND as KIND,
    check_features_first as check_features_first,
    train_features_first as train_features_first,
)

feature_choice_kinds: dict[str, Callable[..., Any]] = {
    "hold_out": HoldOut,
    "feature_rank": FeatureRank,
    "alignment_peak": AlignmentPeak,
    "leave_one_out": LeaveOneOut,
    **stop_kinds,
}
