"""When to save and when to stop: signals that ask for a clean end, and the clock."""

import signal
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GO_ON, SAVE, STOP, BROKEN = range(4)  # what a rank wishes after a step; the highest wish of all ranks is done


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
        """GO_ON, SAVE or STOP."""
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
