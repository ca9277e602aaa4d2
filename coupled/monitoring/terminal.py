"""A program and its terminal: output that goes away is no error, any text can be printed, Ctrl-C is one line.

Every program calls `prepare_terminal` before its other imports, so nothing large is imported here.
"""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

INTERRUPTED = 130  # as shells count a program that SIGINT ended
GONE = (errno.EPIPE, errno.EIO)  # a reader that has ended; a terminal that is closed


class _Output(io.FileIO):
    """The file of a standard stream. Once its reader or terminal is gone, what is written to it is dropped."""

    def write(self, data: Any) -> int:
        """Bytes written, or dropped; other errors of the system are raised."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            _connect_to_nothing(self.fileno())
            return memoryview(data).nbytes


def prepare_terminal() -> None:
    """`safe_streams`, and until `imports_done` Ctrl-C ends the process with one line and status 130."""
    safe_streams()
    # a process that was started to ignore SIGINT goes on ignoring it
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def safe_streams() -> None:
    """Make stdout and stderr take any text, and drop it without an error once their reader or terminal is gone."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, _safe(number, getattr(sys, name)))


def imports_done() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, if it was `prepare_terminal` that changed that."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(program: str, more: str = "") -> int:
    """Say once a machine that Ctrl-C ended the program; the exit status, 130."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: interrupted{more}", sys.stderr)
    return INTERRUPTED


def say(text: object, file: TextIO | None = None) -> None:
    """Print one line at once, in one write because several threads may; names in it cannot move the cursor or begin
    another line.
    """
    print(printable(text) + "\n", end="", file=file, flush=True)


def printable(text: object) -> str:
    """`text` as one line: control characters, line ends and halves of characters are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text).strip()
    )


def _safe(number: int, stream: Any) -> Any:
    """The standard stream of this number, whose errors are escapes and which drops what nobody can read."""
    if stream is None:  # closed by whoever started the program: the next file opened would get its number
        _connect_to_nothing(number)
        return io.TextIOWrapper(io.BufferedWriter(_Output(number, "w", closefd=False)), encoding="utf-8")
    if not _is_file(stream, number):  # captured, in a notebook or a test
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    raw = _Output(number, "w", closefd=False)
    raw.name = stream.name
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _is_file(stream: Any, number: int) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == number
    except OSError:  # io.UnsupportedOperation: a stream in memory
        return False


def _connect_to_nothing(number: int) -> None:
    """Let the file `number` be /dev/null, for libraries and child processes that write to it, too."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Without an exception, which an import would turn into another one, or into pages."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            program = Path(sys.argv[0]).name.replace("__main__.py", "coupled")
            os.write(2, f"{program}: interrupted\n".encode(errors="backslashreplace"))
    os._exit(INTERRUPTED)
