"""A damaged or hostile run.json: analysis programs refuse it in one line, or use the parts that are valid."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coupled.analysis import alignment, bounds, collapse, figures, losses, quality, verify, weight_gap
from coupled.analysis.report import program as report
from coupled.analysis.run import read_description
from coupled.storage.run_description import LARGEST

PROGRAMS = (  # demo.py reads its tables first
    alignment,
    bounds,
    collapse,
    figures,
    losses,
    quality,
    report,
    verify,
    weight_gap,
)
TEXTS = {
    "a number": b"3",
    "null": b"null",
    "a list": b"[]",
    "text": b'"run"',
    "nothing": b"",
    "half an object": b'{"name": "x",',
    "no UTF-8": b'{"name": "\xff"}',
    "a thousand levels": b"[" * 1000 + b"]" * 1000,
    "a million levels": b'{"name": ' + b"[" * 10**6,
    "a number of 5000 digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "half a surrogate pair": b'{"device": "\\ud800"}',
    "no keys": b"{}",
}
CHANGES: dict[str, tuple[str, Any]] = {  # a dotted key and what it becomes
    "name of a folder": ("name", "../x"),
    "name of a tag": ("name", "</script>"),
    "name with a line end": ("name", "a\nb"),
    "name null": ("name", None),
    "settings null": ("settings", None),
    "settings a list": ("settings", []),
    "settings empty": ("settings", {}),
    "no arms": ("settings.arms", []),
    "arms empty": ("settings.arms", {}),
    "arms null": ("settings.arms", None),
    "an arm a number": ("settings.arms.cl", 3),
    "an objective a number": ("settings.arms.cl.objective", 7),
    "an arm its own twin": ("settings.arms.cl", {"twin": "cl"}),
    "the twin of no arm": ("settings.arms.cl", {"twin": "gone"}),
    "epochs without end": ("settings.epochs", 10**18),
    "epochs a float": ("settings.epochs", 1e18),
    "epochs text": ("settings.epochs", "3"),
    "epochs below 0": ("settings.epochs", -1),
    "snapshots a number": ("settings.snapshots", 1),
    "every 0": ("settings.snapshots.every_epochs", 0),
    "an encoder a number": ("settings.encoder.name", 3),
    "an unknown key": ("settings.other", 1),
    "temperature not finite": ("settings.temperature", float("inf")),
    "a deep option": ("settings.dataset.image_size", json.loads("[" * 60 + "]" * 60)),
    "sha a number": ("settings_sha256", 3),
    "sha too short": ("settings_sha256", "abc"),
    "dataset null": ("dataset", None),
    "dataset text": ("dataset", "digits"),
    "classes a number": ("dataset.classes", 10),
    "class names numbers": ("dataset.classes", [1, 2]),
    "a digest a number": ("dataset.test_digest", 7),
    "a mean of one colour": ("dataset.mean", [0.5]),
    "a mean not finite": ("dataset.mean", [0.5, 0.5, float("nan")]),
    "a deviation of 0": ("dataset.std", [0.5, 0.0, 0.5]),
    "world size text": ("world_size", "2"),
    "versions a list": ("versions", []),
    "launch a list": ("launch", []),
    "seed below 0": ("seed", -1),
}
ALLOWED = {  # what run.json may say, and no program can use: each says so itself
    "an unknown dataset": ("settings.dataset.name", "nope"),
    "a dataset that is a path": ("settings.dataset.name", "../digits"),
    "an unknown objective": ("settings.arms.cl.objective", "nope"),
    "an unknown encoder": ("settings.encoder.name", "nope"),
    "another width": ("settings.encoder.width_multiplier", 0.25),
}


def changed(run: Path, key: str, value: Any) -> bytes:
    tree: dict[str, Any] = json.loads((run / "run.json").read_text())
    *sections, last = key.split(".")
    inner = tree
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return json.dumps(tree).encode()


@pytest.fixture
def says(new_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Callable[[ModuleType, bytes], Any]:
    """Run a program on a run with that run.json; return its status and the lines on stderr."""
    run = new_run(epochs=(0,), arms=("cl", "nscl"))

    def call(program: ModuleType, data: bytes) -> tuple[int, list[str]]:
        (run / "run.json").write_bytes(data)
        capsys.readouterr()
        status = program.main(["--run-dir", str(run)])
        return status, capsys.readouterr().err.splitlines()

    call.run = run  # type: ignore[attr-defined]
    return call


def test_every_program_refuses_a_hostile_run_json_in_one_line(says: Any) -> None:
    """A traceback does not tell what to fix, and a huge number of epochs must not keep a program busy."""
    hostile = TEXTS | {name: changed(says.run, *change) for name, change in CHANGES.items()}
    assert len(hostile) >= 36
    for name, data in hostile.items():
        for program in PROGRAMS:
            status, lines = says(program, data)
            assert (status, len(lines)) == (2, 1), (name, program.__name__, status, lines)
            assert "run.json" in lines[0], (name, program.__name__, lines)
        with pytest.raises(ValueError, match=r"run\.json: "):
            read_description(says.run)


def test_only_programs_that_need_a_bad_key_refuse_it(says: Any) -> None:
    """One line, or findings of verify.py; weights can be compared even if the image settings are wrong."""
    for name, change in ALLOWED.items():
        data = changed(says.run, *change)
        for program in (alignment, quality, verify):
            status, lines = says(program, data)
            assert (status, len(lines)) == ((1, 0) if program is verify else (2, 1)), (name, program.__name__, lines)
        assert says(weight_gap, data)[0] == 0, name
        (says.run / "run.json").write_bytes(data)


def test_a_run_json_above_the_size_limit_is_not_read(says: Any) -> None:
    """A folder from elsewhere must not fill the memory."""
    status, lines = says(verify, b'{"a": "' + b"x" * LARGEST + b'"}')
    assert status == 2
    assert f"allowed are at most {LARGEST:,}" in lines[0]
