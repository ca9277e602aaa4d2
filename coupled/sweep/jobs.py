"""Run the programs of a sweep's points, each in a separate process, so that a crash affects only its own point."""

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
    """The running processes. `stop` ends all of them and prevents new ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, command: Sequence[str], log: Path) -> int:
        """Run `command`, append its output to `log` and return its exit status; -1 if `stop` was called before."""
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
        """Send SIGTERM to every process; train.py saves its state after the current step."""
        with self.lock:
            self.stopped = True
            for child in self.running:
                child.terminate()


def is_finished(point: Point) -> bool:
    """Whether the run has these settings and a snapshot of the last epoch of every arm."""
    path = point.folder / "run.json"
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["settings"]
        changed = (key for key, _, _ in differences(there, point.settings))
        if any(not any(f"{key}.".startswith(f"{each}.") for each in MAY_CHANGE) for key in changed):
            return False
        last = {(arm, point.settings["epochs"]) for arm in point.settings["arms"]}
        return last <= {(entry.arm, entry.epoch) for entry in SnapshotStore(point.folder / "snapshots").entries()}
    except (OSError, ValueError, KeyError, TypeError):
        return False  # the run is incomplete or damaged; `coupled train` reports the reason


def work_alone(sweep: Sweep, point: Point, children: Children, say: Say) -> str:
    """Call `train_and_analyse` while holding the lock of the point, so that no two programs write into its log."""
    try:
        with run_lock(point.folder.with_name(f"{point.name}.running"), "--index"):
            return train_and_analyse(sweep, point, children, say)
    except ValueError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return fault(error)


def train_and_analyse(sweep: Sweep, point: Point, children: Children, say: Say) -> str:
    """Train and analyse one point. Return "" on success, otherwise one line that describes the error."""
    log = point.log()
    if is_finished(point):
        say(f"{point.name}: already finished")
    else:
        say(f"{point.name}: {'resuming' if (point.folder / 'run.json').is_file() else 'training'}")
        train = ["train", "--config", str(sweep.base), "--run-dir", str(point.folder), "--resume"]
        if children.run(child_command(*train, *point.overrides), log) or not is_finished(point):
            return f"{last_line(log)} ({log})"
    for command, *options in sweep.analyses:
        if point.settings.get("code") and command not in NEED_NO_CODE:
            options.append("--allow-code")  # the user's sweep names this code
        if children.run(child_command(command, *options, "--run-dir", str(point.folder)), log):
            return f"{last_line(log)} ({log})"
    return ""


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, which for a traceback is the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def run_points(sweep: Sweep, chosen: Sequence[Point], jobs: int, say: Say) -> dict[str, str]:
    """Train and analyse the points, at most `jobs` at a time. Return the errors by name of the point.

    On Ctrl-C or SIGTERM raises KeyboardInterrupt after all child processes have saved their state.
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
            say("stopping: waiting for the running points to save their state")
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
    return failed


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which clusters send, as Ctrl-C. Only the main thread receives signals; elsewhere do nothing."""

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
