"""Decoding in several processes: equal pixels and messages, and one line if a process dies."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from coupled.datasets import _decoding, _pictures


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Pretend two cores and treat every dataset as large; collect the processes that were started."""
    monkeypatch.setattr(_decoding, "MANY", 1)
    monkeypatch.setattr(_decoding, "CHUNK", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    processes: list[subprocess.Popen[bytes]] = []
    start = _decoding._started
    monkeypatch.setattr(_decoding, "_started", lambda: (processes.append(start()), processes[-1])[1])
    return processes


def test_pixels_and_messages_equal_those_of_threads(
    pictures: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of processes must change neither an image nor an error message; no process is left running."""
    paths = sorted(str(path) for path in pictures.rglob("*") if path.is_file())
    in_processes, sides = _pictures._decode(paths, 24)
    assert [process.poll() is not None for process in started] == [True, True]
    bad = Path(paths[3]).with_name("b\u00e4d\udcff.png")
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a readable image") as told:
        _pictures._decode([*paths, str(bad)], 24)
    monkeypatch.setattr(_decoding, "MANY", 1000)
    images, sides_of_threads = _pictures._decode(paths, 24)
    assert torch.equal(in_processes, images)
    assert sides == sides_of_threads
    with pytest.raises(ValueError, match="not a readable image") as expected:
        _pictures._decode([*paths, str(bad)], 24)
    assert str(told.value) == str(expected.value)
    assert len(started) == 4


def test_a_killed_decoding_process_is_one_line(
    pictures: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine is out of memory: the others must not wait forever."""
    start = _decoding._started

    def killed() -> subprocess.Popen[bytes]:
        process = start()
        process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(_decoding, "_started", killed)
    with pytest.raises(OSError, match="a decoding process ended with status -9"):
        _pictures._decode(sorted(map(str, pictures.rglob("*.png"))), 24)


def test_a_decoding_process_does_not_import_torch() -> None:
    """Importing torch would take longer than decoding."""
    source = Path(_decoding._decoder.__file__).read_text()
    assert "import torch" not in source
    assert "coupled" not in source.split('"""', 2)[2]
