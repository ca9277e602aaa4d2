"""coupled/train.py with a fault at the second step of epoch 2, for the tests: saboteur.py FAULT [train.py's arguments].

raise: rank 1 raises while rank 0 sleeps. sleep: rank 1 sleeps while rank 0 waits for it. kill: rank 1 is killed, once.
"""

import os
import signal
import sys
import time

from coupled.arm import Arm, StepResult
from coupled.stream.batches import Batch
from coupled.train import main

FAULT, RANK, ATTEMPT = sys.argv[1], os.environ["RANK"], os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
usual = Arm.gradients


def gradients(arm: Arm, batch: Batch) -> StepResult:
    if (batch.epoch, batch.number) == (2, 1):
        if (FAULT, RANK) in (("raise", "0"), ("sleep", "1")):
            time.sleep(10_000)
        if (FAULT, RANK) == ("raise", "1"):
            raise ArithmeticError("the saboteur was here")
        if (FAULT, RANK, ATTEMPT) == ("kill", "1", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
    return usual(arm, batch)


Arm.gradients = gradients
sys.exit(main(sys.argv[2:]))
