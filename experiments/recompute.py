"""Stored results that take minutes, computed again: does a change of the code move a number?

    python experiments/recompute.py OUT                        # compute, and compare with the stored tables
    python experiments/recompute.py OUT --against OTHER        # compare with what another state of the code gave

The first seed of each study at the size whose table is stored beside it, and every study at its smoke size. `OUT` keeps a
folder for each sweep, so that an interrupted call goes on, and a table `NAME.csv` with all digits. Two states of the code
agree where every number does to the accuracy that is printed; stored tables have six digits, and were computed by the
version that their JSON file names.
"""

import argparse
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402 (after the setting)
import pandas as pd  # noqa: E402

import gnflow as gn  # noqa: E402

HERE = Path(__file__).parent
SMOKE = ("activations", "depth", "samples", "scales", "spectral", "step_size")
# Studies whose first seed takes a minute or two, at the size of their stored tables.
WHOLE = ("scales", "step_size")
ROUNDING = 1e-12
NOT_COMPARED = ("wall_seconds", "cell", "message")


def sweeps() -> dict[str, tuple[Path, str | None]]:
    """The sweeps by name: the file that states each, and its size."""
    studies = {name: HERE / "phase_diagrams" / f"{name}.toml" for name in SMOKE} | {
        "dual": HERE / "dual" / "phase.toml"
    }
    found: dict[str, tuple[Path, str | None]] = {f"{name}-smoke": (file, "smoke") for name, file in studies.items()}
    return found | {name: (studies[name], None) for name in WHOLE}


def compute(name: str, file: Path, size: str | None, out: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of a sweep, a line for each cell with every number that it has one of, and the columns that say which it is."""
    overrides = [] if size else [(("seeds",), [0])]
    data = gn.sweep(gn.read_sweep(file, size, overrides), out / name, workers=1)
    dims = data["result"].dims
    single = [key for key in data.data_vars if set(data[key].dims) <= set(dims)]
    table = data[single].to_dataframe().reset_index()
    table.to_csv(out / f"{name}.csv", index=False, float_format="%.17g")
    return read(out / f"{name}.csv"), [str(dim) for dim in dims]


def read(path: Path) -> pd.DataFrame:
    """A table as it was written: text that looks like a missing value is text."""
    return pd.read_csv(path, keep_default_na=False, na_values=["nan", ""])


def difference(table: pd.DataFrame, other: pd.DataFrame, keys: list[str]) -> tuple[float, str]:
    """The largest relative difference of a number in two tables, and where it is; infinite where text or a missing value
    differs. Numbers below `ROUNDING` are those that are zero but for rounding, such as a kernel that does not move."""
    both = table.merge(other, on=keys, how="left", suffixes=("", "_other"), indicator=True)
    if (both["_merge"] != "both").any():
        return np.inf, f"{int((both['_merge'] != 'both').sum())} runs that the other table has not"
    largest, place = 0.0, ""
    for name in table.columns:
        if name in keys or name in NOT_COMPARED or f"{name}_other" not in both:
            continue
        left, right = both[name].to_numpy(), both[f"{name}_other"].to_numpy()
        if left.dtype.kind not in "fi" or right.dtype.kind not in "fi":
            apart = np.where(left == right, 0.0, np.inf)
        else:
            scale = np.maximum(np.abs(left), np.abs(right)).astype(float)
            with np.errstate(invalid="ignore"):  # infinite times that agree
                apart = np.nan_to_num(np.abs(left - right) / np.where(scale > 0, scale, 1.0), nan=np.inf)
            same = (left == right) | (np.isnan(left) & np.isnan(right)) | (scale < ROUNDING)
            apart = np.where(same, 0.0, apart)
        if apart.max() > largest:
            where = ", ".join(f"{key}={both[key].iloc[int(apart.argmax())]}" for key in keys)
            largest, place = float(apart.max()), f"{name} at {where}"
    return largest, place


def main() -> None:
    """Compute, compare and print a line for each sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{'sweep':20}{'runs':>6}{'difference':>12}  largest in", flush=True)
    for name, (file, size) in sweeps().items():
        table, keys = compute(name, file, size, arguments.out)
        stored = file.parent / "results" / f"{file.stem}.csv"
        against = arguments.against / f"{name}.csv" if arguments.against else stored if size is None else None
        line = f"{name:20}{len(table):6}"
        if against is not None and against.is_file():
            apart, place = difference(table, read(against), keys)
            line += f"{apart:12.1e}  {place}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
