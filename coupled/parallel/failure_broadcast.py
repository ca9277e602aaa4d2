"""Failure of a rank: rank 0 prints the error once, and all other ranks stop within seconds.

The first rank that fails writes its error to the key-value store of the rendezvous. Every rank watches this key in a
thread, so a rank that waits in a collective or computes also stops.
"""

import contextlib
import json
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from coupled.config.errors import in_words, status_of
from coupled.monitoring.terminal import printable
from coupled.parallel.process_group import Rendezvous

FAILURE, REPORTED, ACKNOWLEDGED = "coupled/failure", "coupled/reported", "coupled/acknowledged"
WATCH_SECONDS, GRACE_SECONDS = 0.2, 4.0


class RunError(RuntimeError):
    """A failed run. The message is complete, so no traceback is shown. The exit status is 1."""


class FailureBroadcast:
    """Context of all work of a rank. Afterwards `status` is the exit status: 0, 1 for a failed run, 2 for bad input."""

    def __init__(self, program: str, rendezvous: Rendezvous) -> None:
        self.program, self.rendezvous, self.status = program, rendezvous, 0
        self.saying, self.said, self.over = threading.Lock(), False, threading.Event()

    def __enter__(self) -> "FailureBroadcast":
        self.store = self.rendezvous.store.clone()  # a separate connection, because the other one may be blocked
        self.watch = threading.Thread(target=self._watch, name="alarm", daemon=True)
        if self.rendezvous.world_size > 1:
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
        known = isinstance(error, ValueError | FloatingPointError | OSError | RunError)
        if self.rendezvous.world_size == 1 and not known:
            return False  # Python shows the traceback
        text = printable(in_words(error)) if known else "".join(traceback.format_exception(error)).rstrip()
        own = {"rank": self.rendezvous.rank, "text": text, "status": status_of(error)}
        try:
            first = json.loads(self.store.compare_set(FAILURE, "", json.dumps(own)))
        except RuntimeError:  # rank 0, which owns the store, has ended: report here
            first = own
            self._say(first)
        self.status = first["status"]
        self._end(first)
        return True

    def _end(self, failure: dict[str, Any]) -> None:
        """Report the failure; with several ranks, end the process.

        Rank 0 prints the error and waits until the other ranks have acknowledged it. The process group is not closed:
        closing it after a failure can abort the process (gloo) or wait forever (NCCL).
        """
        if self.rendezvous.rank == 0:
            self._say(failure)
            self._wait_for([f"{ACKNOWLEDGED}/{rank}" for rank in range(1, self.rendezvous.world_size)])
        else:
            self._acknowledge(failure)
        if self.rendezvous.world_size > 1:
            self._leave(failure)

    def _acknowledge(self, failure: dict[str, Any]) -> None:
        """Wait for rank 0 to print the error, because a launcher ends all ranks when one ends; else print it here."""
        with contextlib.suppress(RuntimeError):  # rank 0 has ended, and the store with it
            self.store.set(f"{ACKNOWLEDGED}/{self.rendezvous.rank}", "")
        if not self._wait_for([REPORTED]) and failure["rank"] == self.rendezvous.rank:
            self._say(failure)

    def _leave(self, failure: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failure["status"])

    def _say(self, failure: dict[str, Any]) -> None:
        with self.saying:
            if self.said:
                return
            self.said = True
            where = f"rank {failure['rank']}: " if self.rendezvous.world_size > 1 else ""
            print(f"{self.program}: {where}{failure['text']}", file=sys.stderr, flush=True)  # noqa: T201 - lines
            with contextlib.suppress(RuntimeError):
                self.store.set(REPORTED, "")

    def _watch(self) -> None:
        try:
            while not self.over.wait(WATCH_SECONDS):
                if self.store.check([FAILURE]):
                    failure = json.loads(self.store.get(FAILURE))
                    break
            else:
                return
            if self.rendezvous.rank == 0:
                self._say(failure)
            else:
                self.store.set(f"{ACKNOWLEDGED}/{self.rendezvous.rank}", "")
        except RuntimeError:
            return  # rank 0 has ended, and the store with it; the collectives will fail
        if not self.over.wait(GRACE_SECONDS):
            self._leave(failure)  # the main thread is stuck in a collective or in a computation

    def _wait_for(self, keys: list[str]) -> bool:
        """Wait until the store has all of `keys`, at most `GRACE_SECONDS`; return whether it has them.

        True also if the store has ended with rank 0, because rank 0 ends only after it has reported the failure.
        """
        waiting = GRACE_SECONDS
        try:
            while keys and not self.store.check(keys):
                if waiting <= 0:
                    return False
                threading.Event().wait(WATCH_SECONDS)
                waiting -= WATCH_SECONDS
        except RuntimeError:
            return True
        return True
