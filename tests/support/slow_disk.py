"""coupled/train.py on a disk that needs its time: run by test_soak.py, so that a kill finds half-written files."""

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
