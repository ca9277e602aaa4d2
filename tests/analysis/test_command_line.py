"""What all analysis programs share: progress lines and the answer to Ctrl-C."""

import argparse

import pytest

from coupled.analysis import driver
from coupled.analysis.driver import run_program, tracked
from coupled.config.command_line import Parser


def test_progress_without_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On rank 0 only, on stderr, and none after the last; short work prints nothing."""
    monkeypatch.setattr(driver, "SILENCE", 0.0)
    assert list(tracked(iter("abc"), "epochs")) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.rpartition(",")[0] for line in printed.err.splitlines()] == ["epochs: 1 of 3", "epochs: 2 of 3"]
    monkeypatch.setenv("RANK", "1")
    assert list(tracked("ab", "epochs")) == ["a", "b"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(driver, "SILENCE", 3600.0)
    assert list(tracked("ab", "epochs")) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback; 130 is the status that shells use."""

    def interrupted(options: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert run_program(interrupted, Parser(prog="coupled quality"), []) == 130
    error = capsys.readouterr().err
    assert error == "coupled quality: interrupted; rows already written are kept and will not be computed again\n"
