"""Sweeps: grids of runs, carried out by an engine, stored cell by cell, read back as one labelled data set."""

from ._cell import CellOutcome as CellOutcome, carry_out as carry_out
from ._dask import DaskEngine as DaskEngine
from ._dataset import load as load, load_curves as load_curves, load_sweep as load_sweep
from ._engine import AbstractEngine as AbstractEngine
from ._local import LocalEngine as LocalEngine
from ._store import SWEEP_FILE as SWEEP_FILE, SweepStore as SweepStore
from ._sweep import sweep as sweep
