"""docs/papers.md: every config of the papers is on the page, and every row says what to run or what is missing."""

import re

import pytest
from support import tiny

PAGE = tiny.REPOSITORY / "docs/papers.md"
CONFIGS = sorted((tiny.REPOSITORY / "configs/paper").rglob("*.yaml"))


def rows() -> list[list[str]]:
    """The cells of the rows of all tables, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.split(" | ") for line in lines if not line.startswith("in the paper")]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_every_row_says_what_to_run_or_what_is_missing(row: list[str]) -> None:
    """A reader must not have to guess whether a figure can be made."""
    name, train, measure = row
    missing = measure.startswith("Not possible yet: ")
    runs = train.startswith("`coupled ") or measure.startswith("`coupled ")
    assert missing or runs or train.startswith(("the same run", "the run")), name
    if train == "none":
        assert missing or runs, name


def test_every_config_of_the_papers_is_on_the_page() -> None:
    """A config that the page does not name is not found by a reader who looks for a figure."""
    text = PAGE.read_text(encoding="utf-8")
    named = {tiny.REPOSITORY / name for name in re.findall(r"configs/paper/\w+/\w+\.yaml", text)}
    assert [str(path) for path in sorted(named) if not path.is_file()] == []
    short = [path for path in CONFIGS if path not in named]
    assert [str(path) for path in short if not re.search(rf"\b{path.stem}\b", text)] == []


def test_only_what_no_source_states_is_not_possible() -> None:
    """A row that the package cannot make needs code, not an entry on this page."""
    missing = [row for row in rows() if row[2].startswith("Not possible yet: ")]
    assert all("not known to us" in row[2] or "which we do not have" in row[2] for row in missing)
    assert len(missing) <= 2
