"""What a person sees: plain lines where there is no terminal, a table of all arms where there is one."""

import io
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from coupled.monitoring import progress
from coupled.monitoring.progress import Progress

RESULTS = {"cl": (1.25, 0.5, 1000.0), "nscl": (1.125, 0.25, 2000.0)}


def test_without_a_terminal_there_is_a_plain_line_an_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape codes in a cluster's log file are useless. The second step says how long the run will take: the first one
    includes the start-up, here 60 s.
    """
    clock = [10.0]
    monkeypatch.setattr("coupled.monitoring.progress.time.monotonic", lambda: clock[0])
    with Progress(["cl", "nscl"], first_step=3, steps=3603, shown=True) as progress:
        progress.say("start [of] it, of \x1b[31mfolder\n")
        clock[0] += 60
        progress.step(1, 4, RESULTS)
        clock[0] += 2
        progress.step(1, 5, RESULTS)
        progress.step(1, 5, RESULTS)
        progress.epoch(1, 2, 5, {"cl": 1.25, "nscl": 1.125})
    start, first, epoch = capsys.readouterr().out.splitlines()
    assert start == r"start [of] it, of \x1b[31mfolder"
    assert first.startswith("step 5/3603: 2 s a step; at this rate the run ends on ")
    around = [datetime.now() + timedelta(hours=2, minutes=minutes) for minutes in (-1, 0)]
    assert first.partition("ends on ")[2] in [f"{each:%d %b, %H:%M}" for each in around]
    assert epoch.startswith("epoch 1/2  step 5/3603  loss: cl 1.2500  nscl 1.1250  left 1:59:56")


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight ranks that print eight tables are unreadable."""
    with Progress(["cl"], first_step=0, steps=10, shown=False) as progress:
        progress.say("start")
        progress.step(1, 5, {"cl": RESULTS["cl"]})
        progress.epoch(1, 2, 5, {"cl": 1.25})
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_table_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that stay are printed above the table; the table shows the newest numbers."""
    text = io.StringIO()
    terminal = Console(file=text, width=80, force_terminal=True, legacy_windows=False, _environ={})
    monkeypatch.setattr("coupled.monitoring.progress.Console", lambda **_: terminal)
    with Progress(["cl", "nscl"], first_step=0, steps=10, shown=True) as progress:
        progress.say("start")
        progress.step(1, 5, RESULTS)
        progress.epoch(1, 2, 5, {"cl": 1.25, "nscl": 1.125})
    assert "start" in text.getvalue()
    assert "1.2500" in text.getvalue()
    assert "loss:" not in text.getvalue()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_narrow_terminal_of_any_encoding_shows_whole_numbers(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """What does not fit was cut with a character that is not in latin-1; a number that is cut is another number."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding)
    terminal = Console(file=file, width=24, force_terminal=True, legacy_windows=False, color_system=None, _environ={})
    monkeypatch.setattr("coupled.monitoring.progress.Console", lambda **_: terminal)
    with Progress(["cl", "nscl"], first_step=0, steps=10, shown=True) as progress:
        progress.step(1, 5, RESULTS)
    shown = written.getvalue().decode(encoding).replace("\N{BOX DRAWINGS LIGHT VERTICAL}", "|")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.count("|") == 5]
    first = max(place for place, row in enumerate(cells) if row[0] == "nsc")
    assert ["".join(column) for column in zip(*cells[first:], strict=True)] == ["nscl", "1.1250", "0.250", "2,000"]


def test_the_table_has_a_row_an_arm_and_the_time_left() -> None:
    """Arm, loss, gradient norm, images/s."""
    progress = Progress(["cl", "nscl"], first_step=0, steps=10, shown=False)
    text = io.StringIO()
    Console(file=text, width=80).print(progress._table(3, 5, RESULTS))
    for part in ("epoch 3, step 5/10", "0:00:00 left", "images/s", "1.2500", "0.250", "2,000"):
        assert part in text.getvalue()


def test_long_tasks_show_progress_and_short_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Minutes without output look like a hang; short tasks need no output."""
    assert list(progress.tracked_count(range(3), 3, "decoding pictures")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "AT_ONCE", 0.0)
    assert list(progress.tracked_count(range(3), 3, "decoding pictures")) == [0, 1, 2]
    assert capsys.readouterr().err == "decoding pictures: 1 of 3, 0:00:00 left\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert list(progress.tracked_count(range(3), 3, "decoding pictures")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
