"""`python -m gnflow` is the command `gnflow`."""

import sys

from .cli import main

sys.exit(main())
