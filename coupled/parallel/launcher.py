"""torchrun's agent, which starts the ranks of a machine: exit statuses for it, and stopping when it has ended."""

import os
import signal
import sys
import threading
import time

from coupled.monitoring.terminal import say

WATCH_SECONDS, ORPHAN_SECONDS = 0.5, 30.0


def under_torchrun() -> bool:
    """Return whether an agent of torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def exit_status(preempted: bool) -> int:
    """Return the exit status of a run without a failure.

    EX_TEMPFAIL (75) if a scheduler stopped the run, which tells the job to requeue itself; otherwise 0. Under torchrun
    always 0, because its agent treats any other status as a failure and restarts all ranks.
    """
    return os.EX_TEMPFAIL if preempted and not under_torchrun() else 0


def end_with_agent(program: str) -> None:
    """Under torchrun, stop this rank as after SIGTERM when the agent that started it has ended.

    Without this, the ranks of a killed agent would continue to train and keep the run folder locked. A rank that cannot
    stop, because it waits for a rank that has ended, exits after `ORPHAN_SECONDS` without saving.
    """
    if under_torchrun():
        threading.Thread(target=_watch_agent, args=(program, os.getppid()), name="agent", daemon=True).start()


def _watch_agent(program: str, agent: int) -> None:
    while os.getppid() == agent:
        time.sleep(WATCH_SECONDS)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: torchrun's agent (process {agent}) has ended; stopping", sys.stderr)
    else:
        time.sleep(2 * WATCH_SECONDS)  # gives the first rank time to print before this one stops all ranks
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
