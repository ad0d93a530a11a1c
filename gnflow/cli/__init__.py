"""The command line: `gnflow run`, `gnflow sweep`, `gnflow verify`, `gnflow plot`.

Each verb has a file of its own, listed in `_main.py`.
"""

from ._main import main as main
