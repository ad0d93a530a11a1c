"""The command line: `gnflow run`, `gnflow sweep`, `gnflow verify`, `gnflow plot`.

Each verb has a file of its own with its options, listed in `_main.py`, and another with what it does, which loads JAX.
"""

from ._main import main as main
