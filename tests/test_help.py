"""`coupled`, its commands and their help texts."""

import json
import shlex
import subprocess
import sys

import pytest
from support import tiny

from coupled import cli
from coupled._version import RELEASE
from coupled.analysis import parsers
from coupled.analysis.representations.layers import OUTPUTS
from coupled.config.command_line import parse_epochs, parse_range
from coupled.config.load import resolve
from coupled.datasets import SPLITS

HEAVY = ("torch", "torchvision", "timm", "numpy", "pandas", "sklearn", "scipy", "matplotlib", "jinja2", "rich", "PIL")
EVERY_HELP = """
import json, sys
from coupled import cli
from coupled._version import RELEASE

for words in ([], *([name] for name in cli.COMMANDS)):
    assert cli.main([*words, "--help"]) == 0
sys.stderr.write(json.dumps(sorted(sys.modules)))
"""


def test_no_help_imports_a_large_library() -> None:
    """Importing torch takes seconds; --help must be fast."""
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], capture_output=True, text=True, cwd=tiny.REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY} & {*json.loads(done.stderr)}
    assert done.stdout.count("usage: coupled") == len(cli.COMMANDS) + 1


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_a_help_ends_with_two_examples_and_the_files_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples are command lines that the program accepts."""
    assert cli.main([*filter(None, [name]), "--help"]) == 0
    _, _, end = capsys.readouterr().out.partition("\nexamples:\n")
    examples, _, files = end.partition("\n\nfiles written:\n")
    lines = [shlex.split(line) for line in examples.splitlines()]
    assert len(lines) == 2
    assert files.strip()
    for line in lines:
        assert line[0] == "coupled"
        assert line[1] == (name or line[1])
        cli.imported(cli.COMMANDS[line[1]].parser)().parse_intermixed_args(line[2:])


def test_the_help_of_a_launcher_names_its_file() -> None:
    """The examples can be typed as shown."""
    command = [sys.executable, "analysis/weight_gap.py", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tiny.REPOSITORY).stdout
    assert said.startswith("usage: weight_gap.py ")
    assert "\n  python analysis/weight_gap.py --compare nscl\n" in said


def test_the_parsers_have_the_splits_and_layers_of_the_programs() -> None:
    """They have copies because the programs' constants need torch."""
    assert tuple(SPLITS) == parsers.SPLITS
    assert tuple(OUTPUTS) == parsers.OUTPUTS


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["weight_gap"], 2, "coupled: unknown command 'weight_gap'; did you mean 'weight-gap'? (known: train, "),
        (["list", "objective"], 2, "coupled list: argument kind: invalid choice: 'objective'"),
        (
            ["check-objective"],
            2,
            "coupled check-objective: the following arguments are required: OBJECTIVE; see `coupled",
        ),
        (["sweep"], 2, "coupled sweep: the following arguments are required: CONFIG; see `coupled sweep --help`"),
        (
            ["check-objective", "dcl", "temperatur=1"],
            2,
            "coupled check-objective: temperatur: unknown option of dcl; did you mean 'temperature'? (known: ",
        ),
        (["list", "datasets", "digits"], 2, "coupled list: section: got 'digits'; only settings have sections"),
        (
            ["list", "settings", "optimize"],
            2,
            "coupled list: section: no section or key 'optimize'; did you mean 'optimizer'? (sections: parallel, ",
        ),
        (["weight-gap", "--layer", "h"], 2, "coupled weight-gap: unrecognized arguments: --layer h"),
        (["--version"], 0, f"coupled {RELEASE}"),
        ([], 0, "usage: coupled COMMAND"),
    ],
)
def test_coupled_reports_usage_errors_in_one_line(
    words: list[str], status: int, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the name that the user typed."""
    assert cli.main(words) == status
    said = capsys.readouterr()
    assert (said.err if status else said.out).startswith(part)
    assert said.err.count("\n") == (1 if status else 0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("objectives", {"dcl", "nscl", "cross_entropy"}),
        ("datasets", {"cifar10", "digits"}),
        ("metrics", {"cka", "nccc"}),
        ("encoders", {"resnet18", "vit_tiny_patch16_224"}),
    ],
)
def test_names_are_listed_one_per_line(kind: str, names: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Public names only."""
    assert cli.main(["list", kind]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert names <= {*listed}
    assert not [name for name in listed if name.startswith("_")]


@pytest.mark.parametrize("width", [80, None])
def test_the_keys_of_a_section_are_wrapped_to_the_width_of_the_terminal(
    width: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 without a terminal. Lines of up to 499 characters cannot be read."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["list", "settings", "augmentation"]) == 0
    listed = capsys.readouterr().out.splitlines()
    starts = [line for line in listed if not line.startswith("    ")]
    assert all(line.startswith(("augmentation ", "augmentation.")) for line in starts)
    assert len(starts) > 10
    assert 0.8 < max(map(len, listed)) / (width or 100) <= 1
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["list", "settings", "augmentation"]) == 0
    whole = capsys.readouterr().out
    assert " ".join(whole.split()) == " ".join(" ".join(listed).split())  # no word is lost


def test_the_keys_of_a_settings_file_are_listed_with_default_type_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout the page of the settings is only a stub. A key that is not listed can be found in the code only."""
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["list", "settings"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "batch.size = 256  [integer, ≥ 2; images]  Images of the global batch, over all processes." in listed
    keys = {line.split()[0] for line in listed}
    resolved = resolve({"name": "mine", "dataset": {"name": "digits"}, "arms": {"cl": "dcl"}}).resolved()
    used = {f"{name}.{key}" for name, section in resolved.items() if isinstance(section, dict) for key in section}
    assert {*resolved} | {each for each in used if not each.startswith("arms.")} <= keys
    assert {"arms.NAME.objective", "arms.NAME.perturb.ulps", "online_probe.base_lr"} <= keys
    assert not [line for line in listed if len(line.split("  ")) < 3 or "`" in line]


def test_ranges_include_their_last_number() -> None:
    """In --epochs and in sweeps."""
    assert list(parse_range("0:20:5") or ()) == [0, 5, 10, 15, 20]
    assert list(parse_range("3:1:-1") or ()) == [3, 2, 1]
    assert list(parse_range("5:5") or ()) == [5]
    assert parse_range("5") is None
    assert parse_range("0:a") is None
    for wrong in ("2:0", "0:9:0", "0:999999999999"):
        with pytest.raises(ValueError, match=f"the range {wrong} holds no numbers, or more than"):
            parse_range(wrong)
    assert sorted(parse_epochs("0,5,10:30:10")) == [0, 5, 10, 20, 30]
    for wrong in ("", "1,", "0:two", "-1:3", "1.5"):
        with pytest.raises(ValueError, match=r"^--epochs: got '.*'; allowed is a list of numbers and first:last"):
            parse_epochs(wrong)
