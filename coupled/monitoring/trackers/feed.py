"""Send rows to the trackers of a run, each in a separate thread; a tracker neither delays nor stops training."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from coupled.monitoring.trackers.points import Layout, Point, Row, of_epoch, of_monitor, of_step, read_points
from coupled.monitoring.trackers.services import SERVICES, Service, Session, Status

MOST_BEHIND = 100_000  # queued points at which a tracker is dropped: about 100 MB
CLOSE_SECONDS = 30.0  # time that the end of a run waits for a tracker
FLUSH = "flush"


class Tracker:
    """One tracker and its thread.

    `written` yields the points of the existing tables up to the step where the run continues; points that the tracker
    already has are not sent again.
    """

    def __init__(
        self,
        name: str,
        run: Path,
        continues_at: dict[str, int],
        written: Callable[[], Iterator[Point]],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.name, self.run, self.continues_at, self.written = name, run, continues_at, written
        self.say, self.warn, self.failed = say, warn, False
        self.record = run / "trackers" / f"{name}.json"
        self.jobs: SimpleQueue[Point | str] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def put(self, job: Point | str) -> None:
        """Queue a point, `FLUSH`, or the status to close with; returns at once."""
        if not self.failed and self.jobs.qsize() > MOST_BEHIND:
            self._give_up(f"it is {MOST_BEHIND:,} rows behind")
        if not self.failed:
            self.jobs.put(job)

    def join(self, until: float) -> None:
        """Wait until the tracker has closed, but not longer than `until`; call it after `put(status)`."""
        self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive() and not self.failed:
            self._give_up(f"it did not finish within {CLOSE_SECONDS:g} s")

    def _work(self) -> None:
        try:
            kept, self.fed = self._kept()
            description = json.loads((self.run / "run.json").read_text(encoding="utf-8"))
            session = Session(self.run, description, kept.get("id", ""), kept.get("store", ""), self.fed["steps.csv"])
            service = SERVICES[self.name](session)
            self._note(service)
            self.say(f"tracker {self.name}: {service.where}")
            written = self.written()
            while points := list(islice(written, service.at_once)):
                self._log(service, points)
            while not self.failed:
                points, job = self._take(service.at_once)
                self._log(service, points)
                if job == FLUSH:
                    service.flush()
                    self._note(service)
                elif job:
                    service.close(job)  # type: ignore[arg-type]
                    self._note(service)
                    return
        except Exception as error:  # noqa: BLE001 - training continues whatever a tracker raises
            self._give_up(" ".join(f"{type(error).__name__}: {error}".split()))

    def _take(self, most: int) -> tuple[list[Point], str]:
        """Wait for a job; return up to `most` queued points, and the job after them if it is not a point, else ""."""
        points: list[Point] = []
        while not points or (len(points) < most and not self.jobs.empty()):
            job = self.jobs.get()
            if isinstance(job, str):
                return points, job
            points.append(job)
        return points, ""

    def _log(self, service: Service, points: Iterable[Point]) -> None:
        new = [point for point in points if point.number > self.fed[point.table]]
        if new:
            service.log(new)
            self.fed |= {point.table: point.number for point in new}
            if not service.rewinds:
                self._note(service)

    def _kept(self) -> tuple[dict[str, Any], dict[str, int]]:
        """Return the record of the tracker, and for each table the number of the last row that it has.

        A tracker that rewinds discards the rows after the step at which the run continues.
        """
        kept = json.loads(self.record.read_text(encoding="utf-8")) if self.record.is_file() else {}
        fed = {table: int(kept.get(table, -1)) for table in self.continues_at}
        if SERVICES[self.name].rewinds:
            fed = {table: min(number, self.continues_at[table]) for table, number in fed.items()}
        return kept, fed

    def _note(self, service: Service) -> None:
        """Write the id of the series and the rows it has; the file is replaced atomically, without fsync."""
        self.record.parent.mkdir(exist_ok=True)
        temporary = self.record.with_suffix(".json.tmp")
        temporary.unlink(missing_ok=True)  # it may be a symbolic link to a file outside the run
        temporary.write_text(json.dumps({"id": service.id, "store": service.store, **self.fed}) + "\n", "utf-8")
        os.replace(temporary, self.record)  # noqa: PTH105 - Path.replace is the same

    def _give_up(self, reason: str) -> None:
        self.failed = True
        more = "training continues without it, and --resume sends it the missing rows"
        self.warn(f"tracker {self.name}: {reason[:500]}; {more}")


class Feed:
    """Context manager for the trackers `names` of the run in the folder `run`, which continues after step `done`.

    `say` and `warn` may be called from other threads.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        layout: Layout,
        done: int,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        epochs = done // layout.steps_per_epoch
        continues_at = {"steps.csv": done, "epochs.csv": epochs, "monitor.csv": epochs}
        self.layout, self.complete = layout, False  # whether the run has finished
        self.trackers = [
            Tracker(name, run, continues_at, lambda: read_points(run, layout, done), say, warn) for name in names
        ]

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        status: Status = "failed" if kind else "complete" if self.complete else "stopped"
        self._put(status)
        until = time.monotonic() + CLOSE_SECONDS
        for tracker in self.trackers:
            tracker.join(until)

    def step(self, row: Row) -> None:
        """Send a row of steps.csv."""
        if self.trackers:
            self._put(of_step(row, self.layout))

    def epoch(self, rows: Sequence[Row]) -> None:
        """Send the rows of an epoch in epochs.csv."""
        if self.trackers:
            self._put(of_epoch(rows, self.layout))

    def monitor(self, rows: Sequence[Row]) -> None:
        """Send the rows of an epoch in monitor.csv."""
        if self.trackers:
            self._put(of_monitor(rows, self.layout))

    def flush(self) -> None:
        """Ask the trackers to flush all rows sent so far."""
        self._put(FLUSH)

    def _put(self, job: Point | str) -> None:
        for tracker in self.trackers:
            tracker.put(job)
