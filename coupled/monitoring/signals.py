"""When a run saves and stops: signals, the checkpoint timer and `max_steps`."""

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

AGAIN_SECONDS = 0.5  # a launcher may send its ranks a Ctrl-C that they have already received
NO_MORE = b"\0"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SCHEDULERS = ("SIGTERM", "SIGUSR1")  # signals that a scheduler sends before it ends the job


class Action(IntEnum):
    """What a rank asks for after a step; all ranks do the highest of their actions."""

    GO_ON = 0
    SAVE = 1
    STOP = 2
    PREEMPTED = 3  # stopped by a scheduler
    WRITE_FAILED = 4  # a rank could not write


class StopSignals:
    """A context in which SIGTERM, SIGINT and SIGUSR1 do not end the process; the first one is kept in `received`.

    A thread prints a line for each signal at once, also while the main thread computes a step, and calls `end_at_once`
    at a second SIGINT. Outside the main thread no handler is installed, because Python delivers signals to the main
    thread only.
    """

    def __init__(self, say: Callable[[str], None], end_at_once: Callable[[], None]) -> None:
        self.received, self.say, self.end_at_once = "", say, end_at_once
        self.before: dict[signal.Signals, object] = {}
        self.first: dict[int, float] = {}  # time of the first signal of each kind

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
        """Read signal numbers from the pipe, where they arrive at once.

        `_note` runs only when the main thread returns to Python code.
        """
        while (received := os.read(self.reader, 1)) != NO_MORE:
            number, now = received[0], time.monotonic()
            if number not in self.first and number in SIGNALS:
                self.first[number] = now
                again = "; a second Ctrl-C stops at once, without saving" if number == signal.SIGINT else ""
                self.say(
                    f"{signal.Signals(number).name}: the run stops after the current step and saves its state{again}"
                )
            elif number == signal.SIGINT and now - self.first[number] > AGAIN_SECONDS:
                self.end_at_once()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name


def end_at_once(progress: Progress, newest_step: Callable[[], int | None]) -> NoReturn:
    """End the process within the step, from any thread, without saving; print which checkpoint is the newest."""
    progress.__exit__()
    kept = newest_step()
    then = "no checkpoint was saved yet" if kept is None else f"--resume continues after step {kept}"
    progress.say(f"stopped by a second Ctrl-C without saving; {then}")
    os._exit(INTERRUPTED)


class Timer:
    """A timer that is due after `minutes`; with None it is never due."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.restart()

    def restart(self) -> None:
        """Start counting again from 0."""
        self.since = time.monotonic()

    def due(self) -> bool:
        """Return whether the time has passed."""
        return time.monotonic() - self.since >= self.seconds


class StopConditions:
    """What this rank asks for after a step: signals, the timer and `max_steps`."""

    def __init__(self, signals: StopSignals, timer: Timer, max_steps: int | None) -> None:
        self.signals, self.timer, self.max_steps = signals, timer, max_steps

    def action(self, step: int) -> Action:
        """Return what to do after `step`; PREEMPTED if a scheduler sent a signal."""
        if self.signals.received in SCHEDULERS:
            return Action.PREEMPTED
        if self.signals.received or step == self.max_steps:
            return Action.STOP
        return Action.SAVE if self.timer.due() else Action.GO_ON

    def reason(self, step: int) -> str:
        """Return what stopped the run after `step`."""
        return self.signals.received or ("--max-steps" if step == self.max_steps else "a signal to another rank")


def check_max_steps(max_steps: int | None, done: int, steps: int) -> None:
    """Raise ValueError unless `max_steps` is after the `done` steps and not after the last step of the run."""
    if max_steps is None:
        return
    if done >= steps:
        raise ValueError(f"--max-steps: got {max_steps}; the run is complete after step {steps}")
    if not done < max_steps <= steps:
        raise ValueError(f"--max-steps: got {max_steps}; allowed is {done + 1} to {steps}")
