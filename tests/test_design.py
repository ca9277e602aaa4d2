"""docs/design.md describes the package: one line for every file, and no name of anything that does not exist."""

import ast
import re
import tomllib

from support import tiny

ROOT = tiny.REPOSITORY
PAGE = (ROOT / "docs/design.md").read_text(encoding="utf-8")


def lines_of_the_tree() -> list[str]:
    """The path of each line, with the heading of its folder before it."""
    folder, paths = "", []
    for line in PAGE.split("## The tree")[1].splitlines():
        if heading := re.fullmatch(r"### (coupled/.*)", line):
            folder = heading.group(1)
        elif entry := re.match(r"\* `([^`]+)`: \S", line):
            paths.append(folder + entry.group(1))
    return paths


def has_only_a_docstring(path: str) -> bool:
    """Whether a file is an `__init__.py` with nothing but a docstring."""
    return path.endswith("/__init__.py") and len(ast.parse((ROOT / path).read_text(encoding="utf-8")).body) < 2


def suggested(path: str) -> str:
    """A line for a file, made from its docstring."""
    said = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) if path.endswith(".py") else ""
    return f"under ### {path.rpartition('/')[0]}/: * `{path.rpartition('/')[2]}`: {(said or '?').splitlines()[0]}"


def test_every_file_of_the_package_has_exactly_one_line() -> None:
    """Newcomers look there for the file they need."""
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "coupled").rglob("*") if path.is_file()}
    wanted = {each for each in files if "__pycache__" not in each and not each.endswith("py.typed")}
    wanted = {each for each in wanted if not has_only_a_docstring(each)}
    listed = lines_of_the_tree()
    missing = "\n".join(suggested(each) for each in sorted(wanted.difference(listed)))
    assert not missing, f"docs/design.md lacks\n{missing}"
    gone = sorted(set(listed) - wanted)
    assert not gone, f"docs/design.md lists what is not there, or only a docstring: {gone}"
    assert len(listed) == len(set(listed))


def test_every_folder_is_described_in_a_sentence() -> None:
    headings = re.findall(r"^### (coupled/\S*)\n\n(.*)$", PAGE, flags=re.MULTILINE)
    assert {folder for folder, _ in headings} == {f"{each.rpartition('/')[0]}/" for each in lines_of_the_tree()} - {
        "coupled/analysis/report/page/"
    }
    assert all(re.fullmatch(r"[A-Z`].+\.", sentence) for _, sentence in headings), headings


def test_every_file_and_function_that_the_page_names_exists() -> None:
    """The page follows a batch from function to function."""
    named = re.findall(r"`((?:coupled|tests)/[\w/]+\.py)(?::([\w.]+))?`", PAGE)
    assert len(named) > 20
    for file, function in named:
        body: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        for name in filter(None, function.split(".")):
            found = [each for each in body if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == name]
            assert found, f"docs/design.md: {file} has no {function}"
            body = found[0].body


def test_the_layers_on_the_page_equal_those_that_import_linter_checks() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    block = re.search(r"## Import layers\n.*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block
    assert block.group(1).splitlines() == [each.removesuffix(" | _version") for each in layers]
