"""Progress of a run: a live table on a terminal, plain lines elsewhere; only rank 0 prints."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.progress import Progress as Bar
from rich.table import Table

from coupled.monitoring.terminal import printable, say

AT_ONCE = 0.5  # seconds; shorter work has no progress bar
SILENCE = 10.0  # seconds between two lines
T = TypeVar("T")


class Progress:
    """A live table on a terminal; elsewhere plain lines after the first steps and each epoch.

    Prints nothing if `shown` is false.
    """

    def __init__(self, arms: Sequence[str], first_step: int, steps: int, shown: bool) -> None:
        self.arms, self.first_step, self.steps, self.shown = tuple(arms), first_step, steps, shown
        # plain lines in a notebook, too: its kernel sets FORCE_COLOR, which makes rich treat it as a terminal
        self.console = Console(force_jupyter=False, force_terminal=sys.stdout.isatty())
        self.live = Live(console=self.console, refresh_per_second=4) if shown and self.console.is_terminal else None
        self.begin()
        self.warned: set[str] = set()
        self.measures: dict[str, dict[str, str]] = {}  # the latest values, by metric and arm

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def begin(self) -> None:
        """Start the clock of the first step."""
        self.started, self.forecast = time.monotonic(), False
        self.first_shown: tuple[int, float] | None = None  # the first step that was shown, and when

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.shown:
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def warn(self, *texts: str, always: bool = False) -> None:
        """Print warnings that stay; without `always`, a warning that differs only in its numbers is printed once."""
        for text in texts:
            kind = "".join(character for character in text if not character.isdecimal())
            if always or kind not in self.warned:
                self.warned.add(kind)
                self.say(f"warning: {text}")

    def step(self, epoch: int, step: int, results: Mapping[str, tuple[float, float, float]]) -> None:
        """Show loss, gradient norm and images/s of every arm; without a terminal, print once when the run will end.

        This is printed the second time, because the first steps include the start-up of libraries and workers.
        """
        first, self.first_shown = self.first_shown, self.first_shown or (step, time.monotonic())
        if self.live:
            self.live.update(self._table(epoch, step, results))
        elif self.shown and first and not self.forecast:
            self.forecast = True
            a_step, left = self._rate(step)
            ends = datetime.now() + timedelta(seconds=left)
            self.say(
                f"step {step}/{self.steps}: {a_step:.3g} s a step; at this rate the run ends on {ends:%d %b, %H:%M}"
            )

    def epoch(self, epoch: int, epochs: int, step: int, losses: Mapping[str, float]) -> None:
        """Print one plain line with the mean losses after an epoch."""
        if self.shown and not self.live:
            text = "  ".join(f"{arm} {loss:.4f}" for arm, loss in losses.items())
            self.say(f"epoch {epoch}/{epochs}  step {step}/{self.steps}  loss: {text}  left {self._left(step)}")

    def measured(self, epoch: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show rows of monitor.csv: as columns of the live table, elsewhere as one plain line."""
        self.measures = {}
        for row in rows:
            text = "-" if row["value"] == "" else f"{row['value']:.4f}"
            self.measures.setdefault(row["metric"], {})[row["arm"]] = text
        if self.shown and not self.live:
            words = (f"{name}: {'  '.join(map(' '.join, found.items()))}" for name, found in self.measures.items())
            self.say(f"epoch {epoch}  {'   '.join(words)}")

    def _table(self, epoch: int, step: int, results: Mapping[str, tuple[float, float, float]]) -> Table:
        table = Table(title=f"epoch {epoch}, step {step}/{self.steps}, {self._left(step)} left")
        for column in ("arm", "loss", "grad norm", "images/s", *self.measures):
            table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
        for arm in self.arms:
            loss, norm, rate = results[arm]
            more = [found.get(arm, "") for found in self.measures.values()]
            table.add_row(arm, f"{loss:.4f}", f"{norm:.3f}", f"{rate:,.0f}", *more)
        return table

    def _rate(self, step: int) -> tuple[float, float]:
        """Return the seconds per step after the first one that was shown, and the seconds to the end of the run."""
        from_step, since = self.first_shown or (self.first_step, self.started)
        if step <= from_step:  # only one was shown
            from_step, since = self.first_step, self.started
        a_step = (time.monotonic() - since) / max(1, step - from_step)
        return a_step, a_step * (self.steps - step)

    def _left(self, step: int) -> str:
        seconds = round(self._rate(step)[1])
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def tracked_count(items: Iterable[T], count: int | None, name: str) -> Iterator[T]:
    """Yield the items, with a progress bar on a terminal and lines on stderr elsewhere.

    `count` is the number of items, None if unknown. Nothing is shown for work of less than `AT_ONCE` seconds, and on
    ranks other than the first of a machine.
    """
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    bar = Bar(console=console, transient=True) if console.is_terminal and not console.options.ascii_only else None
    began = time.monotonic()
    next_line, task = began + AT_ONCE, None
    try:
        for done, item in enumerate(items, 1):
            yield item
            if os.environ.get("LOCAL_RANK", "0") != "0" or (now := time.monotonic()) < next_line or done == count:
                continue
            if bar:
                bar.start()
                task = bar.add_task(name, total=count) if task is None else task
                bar.update(task, completed=done)
                next_line = now + 0.25
            else:
                left = timedelta(seconds=round((now - began) / done * ((count or done) - done)))
                say(f"{name}: {done:,}" + (f" of {count:,}, {left} left" if count else ""), sys.stderr)
                next_line = now + SILENCE
    finally:
        if bar:
            bar.stop()
