"""Terminal handling: a closed output is not an error, any text can be printed, and Ctrl-C prints one line.

Every program calls `prepare_terminal` before its other imports, so this file imports nothing large.
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

INTERRUPTED = 130  # exit status that shells use for a program ended by SIGINT
GONE = (errno.EPIPE, errno.EIO)  # the reader has ended; the terminal is closed


class _Output(io.FileIO):
    """The file of a standard stream. After its reader or terminal has closed, writes are discarded."""

    def write(self, data: Any) -> int:
        """Return the bytes written or discarded; other system errors are raised."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            _connect_to_nothing(self.fileno())
            return memoryview(data).nbytes


def prepare_terminal() -> None:
    """Call `safe_streams`, and let Ctrl-C end the process with one line and status 130 until `imports_done`."""
    safe_streams()
    # a process that was started to ignore SIGINT goes on ignoring it
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def safe_streams() -> None:
    """Make stdout and stderr accept any text, and discard it after their reader or terminal has closed."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, _safe(number, getattr(sys, name)))


def imports_done() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, if `prepare_terminal` changed that."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(program: str, more: str = "") -> int:
    """Print once per machine that Ctrl-C ended the program; return the exit status, 130."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: interrupted{more}", sys.stderr)
    return INTERRUPTED


def say(text: object, file: TextIO | None = None) -> None:
    """Print one line, in one write because several threads may print.

    Control characters are escaped, so a name in the text cannot move the cursor or start another line.
    """
    print(printable(text) + "\n", end="", file=file, flush=True)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 epoch" and "1,200 epochs"; the plural ends in s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: object) -> str:
    """Return `text` as one line, with control characters, line ends and lone surrogates escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text).strip()
    )


def _safe(number: int, stream: Any) -> Any:
    """Return the stream of this number, which escapes unencodable text and discards writes after it has closed."""
    if stream is None:  # closed before the program started: the next opened file would get its number
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
    """Redirect the file `number` to /dev/null, also for libraries and child processes."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Exit without an exception, because an import could turn it into another one, or into a long traceback."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError):
            program = Path(sys.argv[0]).name.replace("__main__.py", "coupled")
            os.write(2, f"{program}: interrupted\n".encode(errors="backslashreplace"))
    os._exit(INTERRUPTED)
