"""Sweeps: grids of runs, computed by an engine, stored cell by cell, and read back as one labelled data set."""

from ._cell import (
    CellOutcome as CellOutcome,
    Kept as Kept,
    error_functionals as error_functionals,
    flow_times as flow_times,
    run_cell as run_cell,
)
from ._choice import make_engine as make_engine
from ._dask import DaskEngine as DaskEngine
from ._dataset import dataset_in as dataset_in, load as load, load_curves as load_curves, load_sweep as load_sweep
from ._engine import AbstractEngine as AbstractEngine
from ._levels import time_to_level as time_to_level
from ._local import LocalEngine as LocalEngine
from ._modules_file import ModulesFile as ModulesFile, import_modules as import_modules
from ._serial import SerialEngine as SerialEngine
from ._store import SweepStore as SweepStore
from ._summary import Row as Row, rows_of as rows_of
from ._sweep import compute as compute, sweep as sweep
from ._trajectories import KeptRun as KeptRun, kept_run as kept_run, kept_run_in as kept_run_in
