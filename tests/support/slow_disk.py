"""coupled/train.py with a slow fsync, for test_soak.py: a kill then often finds half-written files."""

import os
import sys
import time

from coupled.train import main

fsync = os.fsync


def slow_fsync(handle: int) -> None:
    time.sleep(0.01)
    fsync(handle)


if __name__ == "__main__":
    os.fsync = slow_fsync
    sys.exit(main())
