"""The programs of a sweep's points in processes of their own: a point that crashes does not take the others down."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from coupled.analysis.driver import fault
from coupled.analysis.parsers import NEED_NO_CODE
from coupled.config.errors import differences
from coupled.config.sections import MAY_CHANGE
from coupled.monitoring.commands import child_command, child_environment
from coupled.storage.run_lock import run_lock
from coupled.storage.snapshots import SnapshotStore
from coupled.sweep.points import Point, Sweep

Say = Callable[[str], None]


class Children:
    """The processes that are running; `stop` ends them all and lets no further one begin."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, command: Sequence[str], log: Path) -> int:
        """The exit status of `command`, whose output is added to the file `log`; -1 if all was stopped before."""
        with log.open("ab") as file:
            with self.lock:
                if self.stopped:
                    return -1
                child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=child_environment())
                self.running.add(child)
            status = child.wait()
        with self.lock:
            self.running.remove(child)
        return status

    def stop(self) -> None:
        """Ask every process to end; train.py saves its state after the running step."""
        with self.lock:
            self.stopped = True
            for child in self.running:
                child.terminate()


def is_finished(point: Point) -> bool:
    """Whether the run is there with these settings and the snapshot of the last epoch of every arm."""
    path = point.folder / "run.json"
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["settings"]
        changed = (key for key, _, _ in differences(there, point.settings))
        if any(not any(f"{key}.".startswith(f"{each}.") for each in MAY_CHANGE) for key in changed):
            return False
        last = {(arm, point.settings["epochs"]) for arm in point.settings["arms"]}
        return last <= {(entry.arm, entry.epoch) for entry in SnapshotStore(point.folder / "snapshots").entries()}
    except (OSError, ValueError, KeyError, TypeError):
        return False  # not a whole run: `coupled train` says what is wrong with it


def work_alone(sweep: Sweep, point: Point, children: Children, say: Say) -> str:
    """`train_and_analyse` for the one process that holds the point: another's output would mix with it in its log."""
    try:
        with run_lock(point.folder.with_name(f"{point.name}.running"), "--index"):
            return train_and_analyse(sweep, point, children, say)
    except ValueError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return fault(error)


def train_and_analyse(sweep: Sweep, point: Point, children: Children, say: Say) -> str:
    """Bring one point to its end: "", or what went wrong in one line."""
    log = point.log()
    if is_finished(point):
        say(f"{point.name}: finished before")
    else:
        say(f"{point.name}: {'continues' if (point.folder / 'run.json').is_file() else 'begins'}")
        train = ["train", "--config", str(sweep.base), "--run-dir", str(point.folder), "--resume"]
        if children.run(child_command(*train, *point.overrides), log) or not is_finished(point):
            return f"{last_line(log)} ({log})"
    for command, *options in sweep.analyses:
        if point.settings.get("code") and command not in NEED_NO_CODE:
            options.append("--allow-code")  # the configuration of the sweep names this code, its digest included
        if children.run(child_command(command, *options, "--run-dir", str(point.folder)), log):
            return f"{last_line(log)} ({log})"
    return ""


def last_line(log: Path) -> str:
    """The last line of a log that is not empty: of a traceback the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def run_points(sweep: Sweep, chosen: Sequence[Point], jobs: int, say: Say) -> dict[str, str]:
    """Train and analyse the points, so many at a time; what went wrong, by the name of the point.

    Raises KeyboardInterrupt, after all children have saved their state, if Ctrl-C or SIGTERM comes.
    """
    children = Children()
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool, _sigterm_as_ctrl_c():
        try:
            waiting = {pool.submit(work_alone, sweep, point, children, say): point for point in chosen}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    point, wrong = waiting.pop(future), future.result()
                    failed |= {point.name: wrong} if wrong else {}
                    done = len(chosen) - len(waiting)
                    say(f"[{done}/{len(chosen)}] {point.name}: {'failed: ' + wrong if wrong else 'done'}")
        except KeyboardInterrupt:
            say("stopping: waiting until the running points have saved their state")
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    return failed


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A cluster's SIGTERM does what Ctrl-C does. Outside the main thread, where Python has no signals, nothing."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
