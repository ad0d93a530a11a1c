"""Run specifications: TOML files read into frozen dataclasses, checked against the code they configure."""

from ._overrides import Override as Override, parse_assignment as parse_assignment
from ._run import Prepared as Prepared, RunSpec as RunSpec
from ._specification import Specification as Specification, read_specification as read_specification
from ._toml import read_toml as read_toml, to_toml as to_toml
