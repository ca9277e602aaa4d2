"""coupled/train.py with a fault at the second step of epoch 2, for the tests: FAULT=... saboteur.py --config ...

raise: rank 1 raises while rank 0 sleeps. sleep: rank 1 sleeps while rank 0 waits for it. kill, kill first: rank 1 or
rank 0 is killed once, also if torchrun restarts the run. orphan: rank 0 kills the torchrun agent that started it.
"""

import os
import signal
import sys
import time
from pathlib import Path

from torch import Tensor

from coupled.arms.arm import Arm
from coupled.stream.batches import Batch
from coupled.train import main

FAULT, RANK = os.environ["FAULT"], os.environ["RANK"]
RUN = Path(sys.argv[sys.argv.index("--run-dir") + 1])
usual = Arm.gradients


def gradients(arm: Arm, batch: Batch) -> Tensor:
    if (batch.epoch, batch.number) == (2, 1):
        if (FAULT, RANK) in (("raise", "0"), ("sleep", "1")):
            time.sleep(10_000)
        if (FAULT, RANK) == ("raise", "1"):
            raise ArithmeticError("the saboteur was here")
        if (FAULT, RANK) == ("orphan", "0"):
            os.kill(os.getppid(), signal.SIGKILL)
        if (FAULT, RANK) in (("kill", "1"), ("kill first", "0")) and not RUN.with_name("killed").exists():
            while not (RUN / "checkpoints/step_00000004").exists():
                time.sleep(0.01)  # the checkpoint of epoch 1 is written by another thread
            RUN.with_name("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return usual(arm, batch)


Arm.gradients = gradients
sys.exit(main())
