"""The command line: `gnflow run`, `gnflow plot`. A verb is a function in a file of its own, listed in `_main.py`."""

from ._main import main as main
