"""The tables of tests/published/: what papers.md states for each file below configs/paper/<paper>/.

tests/published/<paper>.yaml has an entry for every file of configs/paper/<paper>/; its keys are those of `Entry`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from coupled.config.load import load_settings
from coupled.config.safe_yaml import read_yaml
from coupled.config.schema import Settings, from_resolved
from coupled.sweep.points import points, read_sweep
from support import run_costs, tiny

CONFIGS = tiny.REPOSITORY / "configs/paper"
TABLES = tiny.REPOSITORY / "tests/published"
FILES = sorted(CONFIGS.rglob("*.yaml"))
KEYS = {"source", "settings", "base", "grid", "zip", "overrides", "numbers", "network"}


class Entry(NamedTuple):
    """What the papers state for one config.

    `settings` are values by dotted key (`arms.nscl: null`: no such arm), `grid` and `zip` those of a sweep file without
    seeds. `overrides` are the lines `key=value key=value` of the header that give another published form. `numbers` are
    texts of the header. `network` are values of attributes of the built network, such as
    encoder.blocks.0.attn.num_heads.
    """

    source: str
    settings: dict[str, Any]
    grid: dict[str, list[Any]]
    zip: list[dict[str, list[Any]]]
    overrides: list[str]
    numbers: list[str]
    network: dict[str, Any]


@cache
def table(paper: str) -> dict[str, Entry]:
    """Return the entries of a paper by name of the config, with what they share with all others and with their base."""
    tree = read_yaml(TABLES / f"{paper}.yaml")
    return {name: _entry(tree, name) for name in tree["configs"]}


def _entry(tree: Mapping[str, Any], name: str) -> Entry:
    given = tree["configs"][name]
    assert given.keys() <= KEYS, f"{name}: unknown keys {given.keys() - KEYS}"
    base = _entry(tree, given["base"]).settings if "base" in given else tree.get("shared", {})
    grid, zips = given.get("grid", {}), given.get("zip", [])
    swept = {*grid, *(key for group in zips for key in group)}
    settings = {**base, **given.get("settings", {})}
    absent = tuple(f"{key}." for key, value in settings.items() if key.startswith("arms.") and value is None)
    settings = {key: value for key, value in settings.items() if key not in swept and not key.startswith(absent)}
    texts = (given.get(key, []) for key in ("overrides", "numbers"))
    return Entry(given["source"], settings, grid, zips, *texts, given.get("network", {}))


def entry_of(path: Path) -> Entry:
    """Return the entry of a config; a KeyError says that the table lacks it."""
    return table(path.parent.name)[path.stem]


@cache
def is_sweep(path: Path) -> bool:
    """Whether a config is a sweep file."""
    return "base" in read_yaml(path)


@cache
def settings_of(path: Path) -> list[Settings]:
    """Return the settings of a run, or of each point of a sweep."""
    if is_sweep(path):
        return [from_resolved(point.settings) for point in points(read_sweep(path))]
    return [load_settings(path)]


def header(path: Path) -> list[str]:
    """Return the lines of the comment at the top of a file, without the number sign."""
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return [line.removeprefix("#").strip() for line in lines]


UNPUBLISHED = {"name", "seed", "tf32", "dataset.num_workers", "augmentation.preset"}  # of a run of ours, or a shorthand


def set_keys(path: Path) -> set[str]:
    """Return the dotted keys that a config sets, and those that a sweep overrides; none of the snapshots."""
    tree = read_yaml(path)
    if is_sweep(path):
        keys = {*tree.get("overrides", {})}
    else:
        arms = {arm: {"objective": value} if isinstance(value, str) else value for arm, value in tree["arms"].items()}
        keys = {*_leaves({**tree, "arms": arms})}
    return {key for key in keys if key not in UNPUBLISHED and not key.startswith("snapshots.")}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def value_at(settings: Settings, key: str) -> Any:
    """Return the value at a dotted key as JSON has it; omitted keys have their default; None for an absent arm."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
    return json.loads(json.dumps(value, default=lambda section: section.model_dump(mode="json")))


def cost_texts(path: Path) -> list[str]:
    """Return the texts of the cost that the header of a config must have."""
    operations, disk = (sum(each) for each in zip(*map(run_costs.run_cost, settings_of(path)), strict=True))
    return [
        f"Expected time: {run_costs.hours(operations)}",
        f"{operations:.1e} floating-point operations at {run_costs.RATE:.1e} per second",
        run_costs.MEASURED,
        f"Expected disk: {run_costs.gigabytes(disk)}",
    ]


def thinned_line(path: Path) -> str:
    """Return the comment of a config that thins its snapshots, with the disk for the run or all points of a sweep."""
    every = settings_of(path)
    kept = every[0].snapshots
    some, all_ = (
        run_costs.gigabytes(sum(run_costs.disk(settings, interval) for settings in every))
        for interval in (kept.every_epochs, 1)
    )
    points_ = " for all points" if is_sweep(path) else ""
    return (
        f"# Thinned: snapshots of epochs 0 to {kept.dense_until_epoch} and every {kept.every_epochs}th only,"
        f" {some}{points_}; snapshots.every_epochs=1 saves all: {all_}."
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, *cost_texts(Path(name)), thinned_line(Path(name)), sep="\n    ")
