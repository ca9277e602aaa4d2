"""README and docs/: lengths, links, commands, code blocks and the map of the repository."""

import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import tiny

from coupled import cli
from coupled.check_objective import _objective
from coupled.config import load, train_options
from coupled.config.command_line import find_config
from coupled.sweep.parser import parser as sweep_parser
from coupled.sweep.points import points, read_sweep

ROOT = tiny.REPOSITORY
README = ROOT / "README.md"
GENERATED = ("reference/", "notebooks/", "changelog.md")  # `make docs` makes these pages and checks their links
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"^[A-Z]{2,}$|(?<==)[A-Z]{2,}$")  # a whole word or value such as DIR: any will do
TRAINS = ("train", "coupled/train.py", "scripts/slurm.sbatch", "scripts/two_nodes.sh")
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """README and the hand-written pages."""
    docs = ROOT / "docs"
    written = [p for p in sorted(docs.rglob("*.md")) if not str(p.relative_to(docs)).startswith(GENERATED)]
    return [README, *written]


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """The title and the text of each code block in one of these languages."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [(title.strip(), text) for language, title, text in found if language in languages]


def commands(path: Path) -> list[str]:
    """The command lines of a page, joined where they end with a backslash, without comments, and those in tables."""
    text = "\n".join(text for _, text in blocks(path, "sh", "console")).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    rows = re.findall(r"^\|.*", BLOCK.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    in_tables = [code for row in rows for code in re.findall(r"`((?:coupled|python|torchrun) [^`]+)`", row)]
    return [line for line in lines if line and not line.startswith("#")] + [*dict.fromkeys(in_tables)]


def test_the_readme_is_short() -> None:
    """A reader decides in ten seconds and reads it in two minutes."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert not [line for line in lines if len(line) > 120]


@pytest.mark.parametrize("path", pages(), ids=by_name)
def test_lines_of_prose_end_at_120_characters(path: Path) -> None:
    """Tables, links, generated blocks and program output may be longer."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    text = re.sub(r"<!-- [^\n]+? -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "![", "[![", "<"))]
    assert not [line for line in prose if len(line) > 120]


@pytest.mark.parametrize("path", pages(), ids=by_name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    """No dead links."""
    for target in LINK.findall(BLOCK.sub("", path.read_text(encoding="utf-8"))):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if place.is_relative_to(ROOT / "docs") and str(place.relative_to(ROOT / "docs")).startswith(GENERATED):
            continue
        assert place.exists(), f"{by_name(path)}: {target}"
        assert not anchor or anchor in anchors(place), f"{by_name(path)}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the headings of a page as link anchors of GitHub and mkdocs."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {each.strip().replace(" ", "-") for each in words}


@pytest.mark.parametrize("path", pages(), ids=by_name)
def test_every_command_is_accepted_by_its_program(path: Path) -> None:
    """Options and make targets exist."""
    for command in commands(path):
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of the environment
            words = words[1:]
        program, *rest = words
        if program == "make":
            done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, command
        elif program in ("coupled", "python", "torchrun"):
            parse(command, program, rest)
        elif program in ("sbatch", "scripts/two_nodes.sh"):
            script = next(word for word in rest if not word.startswith("--")) if program == "sbatch" else program
            assert (ROOT / script).is_file(), command
        else:
            assert program in ("pip", "git", "conda", "cd", ".", "for", "kill"), command


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=by_name)
def test_every_command_in_the_header_of_a_config_is_accepted(path: Path, readers_folder: Path) -> None:
    """Whoever copies it has a config that needs hours, and learns of a wrong option only after them."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"# +((python|torchrun|coupled) .*)", line):
            command, program = found.groups()
            parse(command, program, shlex.split(command)[1:])
            resolve_settings(command)


def parse(command: str, program: str, words: list[str]) -> None:
    """Parse the words of a command with its parser; the file of a launcher must exist."""
    if program == "torchrun":
        words = words[next(i for i, word in enumerate(words) if not word.startswith("--")) :]
    if program == "coupled":
        name, *words = words
    elif words[0] in ("-m", "-c"):
        return
    else:
        file, *words = words
        assert (ROOT / file).is_file(), command
        name = Path(file).stem.replace("_", "-")
        if file.startswith(("scripts/benchmarks/", "scripts/reproduction/")):
            return
    if name.startswith("-"):
        return
    assert name in cli.COMMANDS, command
    parser: ArgumentParser = cli.imported(cli.COMMANDS[name].parser)()
    try:
        parser.parse_intermixed_args(words)
    except (SystemExit, ValueError) as error:
        if "--help" not in words:
            pytest.fail(f"{command}\n{error}")


def resolve_settings(command: str) -> None:
    """Raise ValueError if a `key=value` of a documented command is not a setting, or the value is not allowed."""
    words = [PLACEHOLDER.sub("1", word) for word in shlex.split(command, comments=True)]
    start = next((place for place, word in enumerate(words[:-1]) if word in TRAINS), None)
    if words[:2] == ["coupled", "check-objective"]:
        _objective(words[2], words[3:])
    elif words[:2] == ["coupled", "sweep"]:
        swept = sweep_parser().parse_intermixed_args(words[2:])
        sweep = read_sweep(find_config(swept.config), swept.lists, swept.zip)
        if swept.lists or swept.zip:  # without, the points are those of the file, which has tests of its own
            points(sweep)
    elif start is not None and any("=" in word for word in words[start + 1 :]):
        trained = train_options.parse(words[start + 1 :])
        load.load_settings(trained.config, trained.overrides)


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that commands of the pages name, except runs: weights of a run are not looked up."""
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "with_weights_digest", lambda settings: settings)
    return tmp_path


@pytest.mark.parametrize("path", [page for page in pages() if commands(page)], ids=by_name)
def test_every_setting_in_a_command_exists(path: Path, readers_folder: Path) -> None:
    """A misspelt key in a page would be the reader's first error. Options of user-defined code are checked, too."""
    for title, text in blocks(path, "python"):
        if title:
            file = readers_folder / title.removeprefix('title="').removesuffix('"')
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for command in commands(path):
        try:
            resolve_settings(command)
        except ValueError as error:
            pytest.fail(f"{command}\n{error}")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("coupled train demo epoch=5", "epoch"),
        (
            "torchrun --standalone coupled/train.py --config demo --run-dir DIR parallel.arm_group=2",
            "parallel.arm_group",
        ),
        ("coupled sweep demo temperatur=0.1,0.5 seed=0:4", "temperatur"),
        ("coupled check-objective dcl temperatur=1", "temperatur"),
    ],
)
def test_a_misspelt_setting_of_a_command_is_found(command: str, key: str, readers_folder: Path) -> None:
    """The check of the pages itself; DIR is a placeholder."""
    with pytest.raises(ValueError, match=re.escape(f"{key}: unknown ")):
        resolve_settings(command)


@pytest.mark.parametrize("path", pages(), ids=by_name)
def test_every_yaml_block_is_valid(path: Path) -> None:
    for _, text in blocks(path, "yaml"):
        assert yaml.safe_load(text) is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of the code blocks: runs/demo, and a short configuration instead of the demo."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "tiny.yaml").write_text(tiny.TINY_YAML + "name: demo\nnum_threads: 1\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        assert cli.main(["train", "tiny.yaml", "--run-dir", "runs/demo"]) == 0
        (folder / "runs/tutorial").symlink_to("demo")
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in pages() if blocks(p, "python")], ids=by_name)
def test_the_python_of_a_page_runs(path: Path, folder: Path) -> None:
    """In the page's order, on a run of one epoch. A block with a title is saved as a file of that name."""
    names: dict[str, object] = {}
    for title, text in blocks(path, "python"):
        if title:
            file = folder / re.fullmatch(r'title="(.*)"', title).group(1)  # type: ignore[union-attr]
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            continue
        short = re.sub(r"\bepoch=\d+", "epoch=1", text.replace('coupled.train("demo"', 'coupled.train("tiny.yaml"'))
        short = re.sub(r"\bepochs=\d+", "epochs=1", short)
        exec(compile(short, str(path), "exec"), names)  # noqa: S102 - what a reader would run


def test_the_map_of_the_repository_equals_git() -> None:
    """One line for each folder of the repository, and no line for a folder that does not exist."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git, or not a checkout")
    folders = {file.split("/")[0] + "/" for file in listed.stdout.splitlines() if "/" in file}
    section = README.read_text(encoding="utf-8").split("## Map of the repository")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+/)` \|", section, flags=re.MULTILINE)) == folders - {".github/"}
