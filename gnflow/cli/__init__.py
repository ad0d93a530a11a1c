"""The command line: `gnflow run`, `gnflow sweep`, `gnflow verify`, `gnflow plot`.

Each verb has a file with its options, listed in `_main.py`, and another file with what it does, which loads JAX. So `--help`
does not wait for JAX.
"""

from ._main import main as main
