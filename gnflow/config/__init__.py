"""Specifications: TOML files that state a grid of runs, and are checked against the code that they configure."""

from ._axes import Axis as Axis
from ._modules import (
    Source as Source,
    find_module as find_module,
    import_exactly as import_exactly,
    import_module as import_module,
)
from ._overrides import Override as Override, parse_assignment as parse_assignment
from ._run import Prepared as Prepared, RunSpec as RunSpec
from ._specification import Specification as Specification, read_sweep as read_sweep
from ._toml import read_toml as read_toml, to_toml as to_toml
