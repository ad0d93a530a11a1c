"""The numbers of `protocol.toml`: results/protocol.csv, and the table of docs/reversible_study.md.

    gnflow run experiments/reversible/protocol.toml --out runs/reversible_protocol
    python experiments/reversible/protocol.py runs/reversible_protocol [--out DIR]

With --out both go to DIR, and the page stays as it is. Runs that have not been made are said to be missing.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import xarray as xr

import gnflow as gn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pages  # noqa: E402 (beside this file's folder)
from claims import LAZY  # noqa: E402
from intervals import Interval, interval  # noqa: E402

_PAGE = HERE.parents[1] / "docs" / "reversible_study.md"
_FEATURES, _LOGITS = "feature_kernel_distance_estimate", "kernel_distance_estimate"
_ALONG = ("test_loss", "test_accuracy", _FEATURES, _LOGITS, "layer_cka_test")
_NAMES = {"gauss_newton": "GN, rtol 1e-2", "adam": "Adam, [B]'s rate", "adam_usual": "Adam, usual rate", "sgd": "SGD"}


def main() -> None:
    parser = argparse.ArgumentParser(description="The numbers of protocol.toml.")
    parser.add_argument("folder", type=Path, help="what gnflow run has written")
    parser.add_argument("--out", type=Path, default=None, help="where to write instead of here and to the page")
    arguments = parser.parse_args()
    results = HERE / "results" if arguments.out is None else arguments.out
    results.mkdir(parents=True, exist_ok=True)
    ends_of(arguments.folder).to_csv(results / "protocol.csv", index=False, float_format="%.7g")
    lines = table(pd.read_csv(results / "protocol.csv"))
    if arguments.out is None:
        pages.insert(_PAGE, "protocol", lines)
    print("\n".join(lines))


def ends_of(folder: Path) -> pd.DataFrame:
    """A line for each variant, flow and seed that was run: what was measured first and last."""
    curves = gn.sweeps.load_curves(folder, ["train_loss"], optional=_ALONG)
    kept = {name: curves[name] for name in ("train_loss", *_ALONG) if name in curves}
    if "layer_cka_test" in kept:
        kept["layer_cka_test"] = kept["layer_cka_test"].min("layer")
    long = xr.Dataset(kept).to_dataframe().reset_index().dropna(subset=["train_loss"])
    keys = ["variant", "flow", "seed"]
    ends = long.sort_values("save").groupby(keys, sort=False)
    last = ends.last().reset_index()
    last["train_loss_start"] = ends["train_loss"].first().to_numpy()
    return last.drop(columns=["save"])


def table(ends: pd.DataFrame) -> list[str]:
    """Lines of Markdown: means over seeds with their intervals, and which version of the claim each method agrees with."""
    lines = []
    for (variant, flow), own in ends.groupby(["variant", "flow"], sort=False):
        cosines = [interval(1 - own[name]) for name in (_FEATURES, _LOGITS)]
        values = [interval(own[name]) for name in ("train_loss", "test_accuracy", "layer_cka_test")]
        lines.append(
            (
                f"`{variant}`",
                _NAMES[str(flow)],
                str(len(own)),
                *map(str, (*values, *cosines)),
                _version(cosines[0]),
            )
        )
    heads = ("variant", "method", "seeds", "training loss", "test accuracy", "least CKA")
    return pages.markdown_table(
        (*heads, "cosine of the features' NTK", "cosine of the logits' NTK", "features' kernel"), lines
    )


def _version(cosine: Interval) -> str:
    """Whether the kernel of the features stays (the arXiv abstract) or moves (the NeurIPS page), by its interval."""
    if cosine.low > 1 - LAZY:
        return "lazy"
    return "moves" if cosine.high < 1 - LAZY else "open"


if __name__ == "__main__":
    main()
