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


def entries() -> list[str]:
    """The guarantees: each begins with one sentence in bold."""
    text = (tiny.REPOSITORY / "docs/guarantees.md").read_text()
    return re.findall(r"^\* \*\*.*?(?=\n\*|\n\n|\Z)", text, flags=re.DOTALL | re.MULTILINE)


def test_every_row_of_the_tables_equal_and_failure_names_a_test() -> None:
    """A guarantee without a test is a hope."""
    assert len(entries()) > 100
    assert not [each for each in entries() if "::test_" not in each]


def test_nothing_is_guaranteed_twice() -> None:
    """Of two entries about one fault, one may be outdated."""
    first = [each.split("**")[1] for each in entries()]
    assert sorted({*first}) == sorted(first)
    paragraphs = (tiny.REPOSITORY / "docs/guarantees.md").read_text().split("\n\n")
    assert not [each for each in paragraphs if each.count("Exit status") > 1]
