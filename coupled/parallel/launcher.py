"""torchrun's agent, which starts the ranks of a machine: a rank ends with it, and has an exit status for it."""

import os
import signal
import sys
import threading
import time

from coupled.monitoring.terminal import say

WATCH_SECONDS, ORPHAN_SECONDS = 0.5, 30.0


def under_torchrun() -> bool:
    """Whether an agent of torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def exit_status(preempted: bool) -> int:
    """Of a run without a failure: EX_TEMPFAIL (75) if a scheduler stopped it, so that a job knows that it
    is to be continued; otherwise 0. Under torchrun always 0: its agent takes any other status of a rank for a failure,
    ends the other ranks and starts all of them again.
    """
    return os.EX_TEMPFAIL if preempted and not under_torchrun() else 0


def end_with_agent(program: str) -> None:
    """Under torchrun, do what SIGTERM asks for as soon as the agent that started this rank has ended without ending it.

    Otherwise the ranks of a killed agent would train on with the folder locked. A rank that cannot stop, because it
    waits for another one that is gone, ends after `ORPHAN_SECONDS` without saving.
    """
    if under_torchrun():
        threading.Thread(target=_watch_agent, args=(program, os.getppid()), name="agent", daemon=True).start()


def _watch_agent(program: str, agent: int) -> None:
    while os.getppid() == agent:
        time.sleep(WATCH_SECONDS)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: torchrun's agent (process {agent}) has ended; stopping", sys.stderr)
    else:
        time.sleep(2 * WATCH_SECONDS)  # or a rank that says nothing could stop all before the first has seen it
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
