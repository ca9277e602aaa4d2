"""A rank that fails says why once, on rank 0's output; the others stop within seconds.

The first failing rank leaves its reason in the store where the ranks met. Every rank watches that key in a thread, so
one that waits in a collective, or computes, learns of it too.
"""

import json
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from coupled.durably import DiskError
from coupled.process_group import Meeting

FAILURE, TOLD = "coupled/failure", "coupled/told"
WATCH_SECONDS, GRACE_SECONDS = 0.2, 4.0


class RunError(RuntimeError):
    """A failure whose message says all: no traceback is shown. The exit status is 1."""


def one_line(error: Exception) -> str:
    """The message of an error on one line; half a character, from a byte that is no UTF-8, is written out."""
    return " ".join(str(error).split()).encode(errors="backslashreplace").decode()


class Alarm:
    """Around the whole work of a rank. `status` is then the exit status: 0, 2 for bad input, 1 for a failed run."""

    def __init__(self, program: str, meeting: Meeting) -> None:
        self.program, self.meeting, self.status = program, meeting, 0
        self.saying, self.said, self.over = threading.Lock(), False, threading.Event()

    def __enter__(self) -> "Alarm":
        self.store = self.meeting.store.clone()  # its own connection: the other one may be busy waiting
        self.watch = threading.Thread(target=self._watch, name="alarm", daemon=True)
        if self.meeting.world_size > 1:
            self.watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):  # no error, Ctrl-C or sys.exit
            self.over.set()
            if self.watch.is_alive():
                self.watch.join()
            return False
        known = isinstance(error, ValueError | FloatingPointError | DiskError | RunError)
        if self.meeting.world_size == 1 and not known:
            return False  # Python shows the traceback
        text = one_line(error) if known else "".join(traceback.format_exception(error)).rstrip()
        own = {"rank": self.meeting.rank, "text": text, "status": 2 if isinstance(error, ValueError) else 1}
        first = json.loads(self.store.compare_set(FAILURE, "", json.dumps(own)))
        self.status = first["status"]
        if self.meeting.rank == 0:
            self._say(first)
        elif first["rank"] == self.meeting.rank:
            self._until_told()
        return True

    def _say(self, failure: dict[str, Any]) -> None:
        with self.saying:
            if self.said:
                return
            self.said = True
            where = f"rank {failure['rank']}: " if self.meeting.world_size > 1 else ""
            print(f"{self.program}: {where}{failure['text']}", file=sys.stderr, flush=True)
            self.store.set(TOLD, "")

    def _watch(self) -> None:
        try:
            while not self.over.wait(WATCH_SECONDS):
                if self.store.check([FAILURE]):
                    failure = json.loads(self.store.get(FAILURE))
                    if self.meeting.rank == 0:
                        self._say(failure)
                    else:
                        self._until_told()
                    self.over.wait(GRACE_SECONDS)
                    os._exit(failure["status"])  # the main thread is stuck in a collective or in a computation
        except RuntimeError:
            return  # the store is gone: its keeper has ended, and the collectives will notice

    def _until_told(self) -> None:
        """Give rank 0 time to say it: a launcher ends all ranks as soon as one has ended."""
        waiting = GRACE_SECONDS
        while waiting > 0 and not self.store.check([TOLD]):
            threading.Event().wait(WATCH_SECONDS)
            waiting -= WATCH_SECONDS
