"""When to save and when to stop: signals that ask for a clean end, the clock, the end of torchrun's agent."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SCHEDULERS = ("SIGTERM", "SIGUSR1")  # what a scheduler sends before it takes the machine away
GO_ON, SAVE, STOP, PREEMPTED, BROKEN = range(5)  # what a rank wishes after a step; the highest of all ranks is done
WATCH_SECONDS, ORPHAN_SECONDS = 0.5, 30.0


class StopSignals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 do not end the process but are noted in `received`.

    Outside the main thread nothing is installed: Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self.received = ""
        self.before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name


class Every:
    """A clock that strikes every so many minutes; `None` never strikes."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self.since = time.monotonic()

    def due(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self.since >= self.seconds


class Wishes:
    """What this rank wants to be done after a step. `until_step` stops there."""

    def __init__(self, signals: StopSignals, clock: Every, until_step: int | None) -> None:
        self.signals, self.clock, self.until_step = signals, clock, until_step

    def after(self, step: int) -> int:
        """GO_ON, SAVE, STOP, or PREEMPTED where a scheduler asks for it."""
        if self.signals.received in SCHEDULERS:
            return PREEMPTED
        if self.signals.received or step == self.until_step:
            return STOP
        return SAVE if self.clock.due() else GO_ON

    def why(self, step: int) -> str:
        """Who wanted the run to stop after `step`."""
        return self.signals.received or ("--until-step" if step == self.until_step else "a signal to another rank")


def check_until_step(until_step: int | None, done: int, steps: int) -> None:
    """Raise ValueError unless a run of `steps` steps, `done` of them behind it, comes to the end of `until_step`."""
    if until_step is not None and not done < until_step <= steps:
        raise ValueError(f"--until-step: got {until_step}; allowed is {done + 1} to {steps}")


def under_torchrun() -> bool:
    """Whether an agent of torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def exit_status(preempted: bool) -> int:
    """Of a run that was not told of a failure: EX_TEMPFAIL (75) if a scheduler stopped it, so that a job knows that it
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
        with contextlib.suppress(OSError):  # who read the output may be gone too
            print(f"{program}: torchrun's agent (process {agent}) has ended; stopping", file=sys.stderr, flush=True)
    else:
        time.sleep(2 * WATCH_SECONDS)  # or a rank that says nothing could stop all before the first has seen it
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
