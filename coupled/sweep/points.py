"""Read a sweep: a settings file, and keys with lists of values. Each combination of values is a point, one run."""

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from coupled.cli import ANALYSES, COMMANDS, imported
from coupled.config.by_name import did_you_mean
from coupled.config.command_line import find_config, parse_range
from coupled.config.errors import one_line
from coupled.config.load import load_settings
from coupled.config.safe_yaml import parse_yaml, read_yaml
from coupled.sweep.names import keys_name, order, point_name, run_name
from coupled.sweep.sweep_file import FigureSettings, SweepFile

MOST_POINTS = 10_000


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. The lists of each of `groups` have the same length and are paired value by value."""

    folder: Path
    base: Path
    fixed: dict[str, Any]
    groups: list[dict[str, list[Any]]]
    analyses: list[list[str]]
    factor: str | None
    figure: FigureSettings


class Point(NamedTuple):
    """One run of a sweep. `overrides` are arguments of train.py; `settings` are the resolved settings in run.json."""

    name: str
    values: dict[str, Any]
    folder: Path
    overrides: list[str]
    settings: dict[str, Any]

    def log(self) -> Path:
        """Return the path of the file that receives the output of its programs."""
        return self.folder.with_name(self.name + ".log")


def read_sweep(
    config: Path,
    given: Sequence[str] = (),
    zips: Iterable[Sequence[str]] = (),
    *,
    runs: Path = Path("runs"),
    name: str | None = None,
    analyses: Sequence[str] | None = None,
) -> Sweep:
    """Return the sweep that a sweep file or a settings file describes, changed by the lists of the command line.

    `given` are lists such as "temperature=0.1,0.5" or "seed=0:4"; their product is swept. The lists of each of `zips`
    are paired value by value. Both replace the values that the file has for their keys. The folder is runs/<name>. The
    default name is that of the file, with "_sweep" appended for a settings file. If the swept keys differ from the
    file's, a subfolder is named after them, so that sweeps over different keys share no table and no log.
    Raises ValueError.
    """
    tree = read_yaml(config)
    is_sweep = isinstance(tree, dict) and "base" in tree
    try:
        file = SweepFile.model_validate(tree if is_sweep else {"base": config.name})
    except ValidationError as error:
        raise ValueError(f"{config}: {one_line(error, SweepFile)}") from None
    swept = [{key: values} for key, values in file.grid.items()] + [dict(group) for group in file.zip]
    if file.seeds is not None:
        swept.append({"seed": [*range(file.seeds)] if isinstance(file.seeds, int) else file.seeds})
    lists = [dict([parse_list(text)]) for text in given]
    lists += [dict(map(parse_list, group)) for group in zips]
    replaced = {key for group in lists for key in group}
    kept = [{key: values for key, values in group.items() if key not in replaced} for group in swept]
    groups = sorted([group for group in kept if group] + lists, key=lambda group: order(min(group, key=order)))
    fixed = {key: value for key, value in file.overrides.items() if key not in replaced}
    _check_keys(config, fixed, groups)
    folder = runs / (name or file.name or config.stem + ("" if is_sweep else "_sweep"))
    keys = keys_name(key for group in groups for key in group)
    if name is None and keys != keys_name(key for group in swept for key in group):
        folder /= keys
    factor = _factor(file.factor, groups)
    commands = [_command(text) for text in (file.analyses if analyses is None else analyses)]
    beside = config.parent / file.base
    base = beside if beside.is_file() else find_config(file.base)
    return Sweep(folder, base, fixed, groups, commands, factor, file.figure)


def parse_list(text: str) -> tuple[str, list[Any]]:
    """Return ("temperature", [0.1, 0.5]) for "temperature=0.1,0.5"; a range first:last[:step] includes `last`.

    Commas within brackets and braces belong to the value. Raises ValueError.
    """
    key, equals, rest = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"'{text}': write it as key=value,value,... or key=first:last")
    values: list[Any] = []
    for part in _parts(rest):
        if not part.strip():
            raise ValueError(f"'{text}': empty value between commas; remove a comma")
        if numbers := _numbers(text, part):
            values += numbers
        elif re.fullmatch(r"[-+.\deE]*(:[-+.\deE]*)+", part):  # YAML 1.1 would read 1:30.5 as ninety and a half
            raise ValueError(f"'{text}': range {part}: allowed are whole numbers, first:last or first:last:step")
        else:
            values.append(parse_yaml(part, f"'{text}'"))
            if key.strip() == "seed" and ":" in part:
                raise ValueError(f"'{text}': range {part}: allowed are whole numbers, first:last or first:last:step")
    return key.strip(), values


def _numbers(text: str, part: str) -> range | None:
    try:
        numbers = parse_range(part)
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from None
    if numbers and len(numbers) > MOST_POINTS:
        raise ValueError(f"'{text}': range {part}: more than {MOST_POINTS:,} numbers are not allowed")
    return numbers


def _parts(text: str) -> list[str]:
    """Split the text at commas outside brackets and braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _check_keys(config: Path, fixed: Mapping[str, Any], groups: Sequence[Mapping[str, list[Any]]]) -> None:
    keys = [*fixed, *(key for group in groups for key in group)]
    for key in keys:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
            raise ValueError(f"{config}: '{key}' is not a settings key; use a dotted key such as optimizer.base_lr")
        if key == "name":
            raise ValueError(f"{config}: name: a point is named after its values; to name the sweep, use --name")
        if keys.count(key) > 1:
            raise ValueError(f"{config}: {key}: given twice; use each key once in overrides, grid, zip and seeds")
    for group in groups:
        lengths = {key: len(values) for key, values in group.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"{config}: zip: the lists of a group must have the same length; {counts}")
    if (count := _count(groups)) > MOST_POINTS:
        raise ValueError(f"{config}: {count:,} points; at most {MOST_POINTS:,} are allowed")


def _count(groups: Sequence[Mapping[str, list[Any]]]) -> int:
    count = 1
    for group in groups:
        count *= len(next(iter(group.values())))
    return count


def _factor(asked: str | None, groups: Sequence[Mapping[str, list[Any]]]) -> str | None:
    """Return the key of the x-axis; by default the first key with several values except the seed, if any."""
    several = [key for group in groups for key, values in group.items() if len(values) > 1 and key != "seed"]
    if asked is not None and asked not in several:
        near = did_you_mean(asked, several)
        raise ValueError(
            f"factor: got '{asked}'{near}; allowed are keys with several values: {', '.join(several) or 'none'}"
        )
    return asked or next(iter(several), None)


def _command(text: str) -> list[str]:
    """Split an analysis into words. Its options are checked here, before hours of training."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"analyses: '{text}': {error}") from None
    if not words or words[0] not in ANALYSES:
        raise ValueError(f"analyses: got '{text}'; it must begin with one of {', '.join(ANALYSES)}")
    if any(word.split("=")[0] == "--run-dir" for word in words):
        raise ValueError(f"analyses: got '{text}'; remove --run-dir, which the sweep sets")
    try:
        imported(COMMANDS[words[0]].parser)().parse_args([*words[1:], "--run-dir", "RUN"])
    except ValueError as error:
        raise ValueError(f"analyses: got '{text}'; {error}") from None
    return words


def points(sweep: Sweep) -> list[Point]:
    """Return all points, checked. The last key, which is the seed, changes fastest. Raises ValueError."""
    rows = [[dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)] for group in sweep.groups]
    found: dict[str, Point] = {}
    for combination in itertools.product(*rows):
        point = _point(sweep, {key: value for each in combination for key, value in each.items()})
        if point.name in found:
            raise ValueError(f"the point {point.name} is given twice; remove the repeated value")
        found[point.name] = point
    return list(found.values())


def _point(sweep: Sweep, swept: Mapping[str, Any]) -> Point:
    given = {**sweep.fixed, **swept}
    overrides = [f"{key}={json.dumps(given[key], default=str)}" for key in sorted(given)]  # JSON is YAML
    settings = load_settings(sweep.base, overrides).resolved()
    values = {**{key: swept[key] for key in sorted(swept) if key != "seed"}, "seed": settings["seed"]}
    name = point_name(values)
    resolved = {**settings, "name": run_name(name)}
    return Point(name, values, sweep.folder / name, [*overrides, f"name={run_name(name)}"], resolved)
