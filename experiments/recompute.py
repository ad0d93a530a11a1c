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
WHOLE = ("scales", "step_size", "activations")
NOT_COMPARED = ("wall_seconds", "cell", "message")


def sweeps() -> dict[str, tuple[Path, str | None]]:
    """The sweeps by name: the file that states each, and its size."""
    studies = {name: HERE / "phase_diagrams" / f"{name}.toml" for name in SMOKE} | {
        "dual": HERE / "dual" / "phase.toml"
    }
    found: dict[str, tuple[Path, str | None]] = {f"{name}-smoke": (file, "smoke") for name, file in studies.items()}
    return found | {name: (studies[name], None) for name in (*WHOLE, "dual")}


def compute(name: str, file: Path, size: str | None, out: Path) -> pd.DataFrame:
    """The table of a sweep: a line for each cell, with every number that it has one of."""
    overrides = [] if size else [(("seeds",), [0])]
    spec = gn.sweeps.read_sweep(file, size, overrides)
    data = gn.sweep(spec, out / name, workers=1)
    single = [key for key in data.data_vars if set(data[key].dims) <= set(data["result"].dims)]
    table = data[single].to_dataframe().reset_index()
    table.to_csv(out / f"{name}.csv", index=False, float_format="%.17g")
    return pd.read_csv(out / f"{name}.csv", keep_default_na=False, na_values=["nan", ""])


def difference(table: pd.DataFrame, other: pd.DataFrame) -> tuple[float, str]:
    """The largest relative difference of a number in two tables, and where it is; text must be equal."""
    columns = [name for name in table.columns if name in other.columns and name not in NOT_COMPARED]
    shared = [name for name in columns if not is_measured(table, name)]
    both = table.merge(other, on=shared, how="inner", suffixes=("", "_other"))
    if len(both) != len(table):
        return (
            np.inf,
            f"{len(table) - len(both)} of {len(table)} runs have no counterpart with equal {', '.join(shared)}",
        )
    largest, place = 0.0, "everywhere"
    for name in columns:
        if name in shared:
            continue
        left, right = both[name].to_numpy(float), both[f"{name}_other"].to_numpy(float)
        scale = np.maximum(np.abs(left), np.abs(right))
        with np.errstate(invalid="ignore"):
            apart = np.where(left == right, 0.0, np.abs(left - right) / np.where(scale > 0, scale, 1.0))
        apart = np.where(np.isnan(left) & np.isnan(right), 0.0, np.where(np.isnan(apart), np.inf, apart))
        if apart.max() > largest:
            largest, place = float(apart.max()), f"{name} of run {int(apart.argmax())}"
    return largest, place


def is_measured(table: pd.DataFrame, name: str) -> bool:
    """Whether a column is measured along runs; the others say which run it is and how it ended."""
    return table[name].dtype.kind == "f" and list(table.columns).index(name) > list(table.columns).index("seed")


def main() -> None:
    """Compute, compare and print a line for each sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{'sweep':20}{'runs':>6}{'difference':>12}  largest in", flush=True)
    for name, (file, size) in sweeps().items():
        table = compute(name, file, size, arguments.out)
        stored = file.parent / "results" / f"{file.stem}.csv"
        against = arguments.against / f"{name}.csv" if arguments.against else stored if size is None else None
        line = f"{name:20}{len(table):6}"
        if against is not None and against.is_file():
            apart, place = difference(table, pd.read_csv(against, keep_default_na=False, na_values=["nan", ""]))
            line += f"{apart:12.1e}  {place}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
