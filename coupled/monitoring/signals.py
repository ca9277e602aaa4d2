"""When to save and when to stop: signals that ask for a clean end, and the clock."""

import os
import signal
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from types import FrameType, TracebackType
from typing import NoReturn

from coupled.monitoring.progress import Progress
from coupled.monitoring.terminal import INTERRUPTED

AGAIN_SECONDS = 0.5  # a launcher may pass on the Ctrl-C that its ranks have received already
NO_MORE = b"\0"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SCHEDULERS = ("SIGTERM", "SIGUSR1")  # what a scheduler sends before it takes the machine away


class Action(IntEnum):
    """What a rank asks for after a step; the highest of all ranks is done."""

    GO_ON = 0
    SAVE = 1
    STOP = 2
    PREEMPTED = 3  # stopped by a scheduler
    WRITE_FAILED = 4  # a rank could not write


class StopSignals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 do not end the process but are noted in `received`.

    A thread prints each at once, even while the main thread is deep in a step, and calls `end_at_once` at a second
    SIGINT.
    Outside the main thread nothing is installed: Python delivers signals to the main thread only.
    """

    def __init__(self, say: Callable[[str], None], end_at_once: Callable[[], None]) -> None:
        self.received, self.say, self.end_at_once = "", say, end_at_once
        self.before: dict[signal.Signals, object] = {}
        self.first: dict[int, float] = {}  # when each came first

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self.reader, self.writer = os.pipe()
            os.set_blocking(self.writer, False)
            self.listener = threading.Thread(target=self._listen, name="signals", daemon=True)
            self.listener.start()
            self.wakeup_before = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.before:
            signal.set_wakeup_fd(self.wakeup_before)
            os.write(self.writer, NO_MORE)
            self.listener.join()
            os.close(self.reader)
            os.close(self.writer)

    def _listen(self) -> None:
        """Signals come through the pipe as bytes, their numbers, the moment they arrive; `_note` runs when the main
        thread is next in Python code.
        """
        while (received := os.read(self.reader, 1)) != NO_MORE:
            number, now = received[0], time.monotonic()
            if number not in self.first and number in SIGNALS:
                self.first[number] = now
                again = "; a second Ctrl-C stops now" if number == signal.SIGINT else ""
                self.say(f"{signal.Signals(number).name}: stops after the running step and saves its state{again}")
            elif number == signal.SIGINT and now - self.first[number] > AGAIN_SECONDS:
                self.end_at_once()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name


def end_at_once(progress: Progress, newest_step: Callable[[], int | None]) -> NoReturn:
    """End the process within the step, from whichever thread: as if it were killed, but saying what is kept."""
    progress.__exit__()
    kept = newest_step()
    then = "no state is saved yet" if kept is None else f"--resume continues after step {kept}"
    progress.say(f"stopped now by a second Ctrl-C; {then}")
    os._exit(INTERRUPTED)


class Timer:
    """A timer that is due every so many minutes; `None` is never due."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self.since = time.monotonic()

    def due(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self.since >= self.seconds


class StopConditions:
    """What this rank asks for after a step: signals, the timer and `max_steps`."""

    def __init__(self, signals: StopSignals, timer: Timer, max_steps: int | None) -> None:
        self.signals, self.timer, self.max_steps = signals, timer, max_steps

    def action(self, step: int) -> Action:
        """What to do after `step`; PREEMPTED where a scheduler asks for it."""
        if self.signals.received in SCHEDULERS:
            return Action.PREEMPTED
        if self.signals.received or step == self.max_steps:
            return Action.STOP
        return Action.SAVE if self.timer.due() else Action.GO_ON

    def reason(self, step: int) -> str:
        """What stopped the run after `step`."""
        return self.signals.received or ("--max-steps" if step == self.max_steps else "a signal to another rank")


def check_max_steps(max_steps: int | None, done: int, steps: int) -> None:
    """Raise ValueError unless a run of `steps` steps, `done` of them behind it, comes to the end of `max_steps`."""
    if max_steps is not None and not done < max_steps <= steps:
        raise ValueError(f"--max-steps: got {max_steps}; allowed is {done + 1} to {steps}")
