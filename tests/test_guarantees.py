"""docs/guarantees.md names tests that exist."""

import ast
import re

from support import tiny


def test_every_test_that_the_guarantees_name_exists() -> None:
    """A guarantee whose test was renamed or deleted is a claim."""
    text = (tiny.REPOSITORY / "docs/guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)?::(test_\w+)`", text)
    assert len(named) > 20
    file = ""
    for path, test in named:
        file = path or file
        tree = ast.parse((tiny.REPOSITORY / file).read_text())
        assert test in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], f"{file}::{test}"


def test_every_line_of_the_tables_of_equality_and_failure_names_a_test() -> None:
    """A line without a test is a hope."""
    text = (tiny.REPOSITORY / "docs/guarantees.md").read_text().split("## Switches")[0]
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| what |", "| fault |"))
    ]
    assert rows
    assert all("::test_" in row for row in rows)


def test_nothing_is_guaranteed_twice() -> None:
    """Two rows about one fault say two things, of which one is not so."""
    text = (tiny.REPOSITORY / "docs/guarantees.md").read_text()
    first = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| ") and "::test_" in row]
    assert sorted({*first}) == sorted(first)
    paragraphs = [each for each in text.split("\n\n") if not each.startswith("|")]
    assert not [each for each in paragraphs if each.count("Exit status") > 1]
