"""`python -m coupled COMMAND`."""

import sys

from coupled.cli import main

sys.exit(main())
