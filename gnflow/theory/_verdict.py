"""What a certificate may say."""

import enum


class Verdict(enum.StrEnum):
    """The outcome of checking a theorem on a run."""

    HOLDS = "holds"
    VIOLATED = "violated"
    ASSUMPTIONS_NOT_MET = "assumptions not met"
    UNDECIDED = "undecided"
