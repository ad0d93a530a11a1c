"""The claims of [B], Buffelli et al. 2024, from the stored results of experiments/reversible.

    python experiments/claims/buffelli.py && python experiments/claims/page.py

Claims on digits are those of docs/reversible_study.md, with its bounds. [B]'s protocol has numbers of its own:
results/protocol.csv. What is not stored is *not run*.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
STUDY = HERE.parent / "reversible"
sys.path[:0] = [str(folder) for folder in (HERE, HERE.parent, STUDY)]

import numpy as np  # noqa: E402 (after the path)
import page  # noqa: E402
import pandas as pd  # noqa: E402
from claims import claim_lines  # noqa: E402
from intervals import Interval, interval, verdict  # noqa: E402

PAPER = "Buffelli et al., NeurIPS 2024, arXiv 2411.07979"
_DIGITS = "digits, h = 1000, 5 seeds"
_COMMAND = "python experiments/reversible/run.py"
_PROTOCOL = "gnflow run experiments/reversible/protocol.toml"
_LAZY = 0.9  # of the cosine
_FULL_SIZE = (
    ("MNIST, h = 8000", "gnflow run experiments/reversible/mnist.toml"),
    ("CIFAR-10, h = 8000", "gnflow run experiments/reversible/cifar10.toml"),
)
_VERSIONS = (
    ("arXiv abstract", "the NTK hardly changes: Gauss-Newton is in the lazy regime", False),
    ("NeurIPS page", "Gauss-Newton learns features: the NTK changes", True),
)


def main() -> None:
    """All rows."""
    rows = [*_on_digits(), *_of_protocol()]
    page.write("buffelli", PAPER, [dict(zip(page.COLUMNS, row, strict=True)) for row in rows])


def _on_digits() -> list[tuple[str, ...]]:
    """The claims of the study on digits."""
    return [
        (claim, "all", _DIGITS, measured, numbers, seen, f"`{_COMMAND}`")
        for claim, measured, numbers, seen in claim_lines(STUDY / "results")
    ]


def _of_protocol() -> list[tuple[str, ...]]:
    """Both versions of the claim on the kernel of the d last features, by [B]'s settings."""
    path = STUDY / "results" / "protocol.csv"
    rows = []
    stored = pd.read_csv(path) if path.is_file() else None
    for version, claim, moves in _VERSIONS:
        if stored is not None:
            own = stored[stored["flow"] == "gauss_newton"]
            for variant, of in own.groupby("variant", sort=False):
                cosine = interval(1 - of["feature_kernel_distance_estimate"])
                seen = verdict(cosine, _LAZY, below=moves)
                rows.append(_row(claim, version, f"{variant}, h = 256, {len(of)} seeds", str(cosine), seen, _PROTOCOL))
        for size, command in _FULL_SIZE:
            rows.append(_row(claim, version, size, "", "not run", command))
    if stored is not None:
        rows += _against_adam(stored)
    return rows


def _row(claim: str, version: str, size: str, numbers: str, seen: str, command: str) -> tuple[str, ...]:
    measured = f"cosine of the NTK of the d last features to the start, [B]'s settings; bound {_LAZY:g}"
    return claim, version, size, measured, numbers, seen, f"`{command}`"


def _against_adam(stored: pd.DataFrame) -> list[tuple[str, ...]]:
    """Whether Gauss-Newton ends below Adam's training loss on full batches, and above it on mini-batches."""
    rows = []
    for variant, of in stored.groupby("variant", sort=False):
        losses = {str(flow): own.set_index("seed")["train_loss"].sort_index() for flow, own in of.groupby("flow")}
        if not {"gauss_newton", "adam"} <= set(losses):
            continue
        logs = interval(np.log(losses["gauss_newton"] / losses["adam"]).dropna())
        value = Interval(*(float(np.exp(number)) for number in logs))
        full = "full_batch" in str(variant)
        claim = "fast full-batch training" if full else "mini-batch GN ends above Adam's training loss"
        measured = "training loss at the end over that of Adam at [B]'s rate, [B]'s settings"
        size = f"{variant}, h = 256, {len(of['seed'].unique())} seeds"
        rows.append((claim, "all", size, measured, str(value), verdict(value, 1.0, below=full), f"`{_PROTOCOL}`"))
    return rows


if __name__ == "__main__":
    main()
