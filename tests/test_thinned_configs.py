"""A config that does not save every epoch says so, with the override that saves all and the disk that both need."""

import re
from pathlib import Path

import pytest
from support import published, run_costs, tiny

from coupled.config.load import load_settings
from coupled.config.safe_yaml import read_yaml

CONFIGS = sorted((tiny.REPOSITORY / "configs").rglob("*.yaml"))
THINNED = [path for path in CONFIGS if (read_yaml(path).get("snapshots") or {}).get("every_epochs", 1) != 1]
LINE = re.compile(
    r"\n# Thinned: snapshots of epochs 0 to (\d+) and every (\d+)th only, ([\d,.]+) GB; snapshots.every_epochs=1 saves"
    r" all: ([\d,.]+) GB\.\nsnapshots: "
)
SWEEP_LINE = re.compile(r"\n# Thinned: snapshots of epochs 0 to \d+ and every (\d+)th only, [\d,]+ GB for all points; ")


@pytest.mark.parametrize("path", THINNED, ids=lambda path: path.stem)
def test_a_thinned_config_states_what_it_omits_and_the_disk_for_all(path: Path) -> None:
    """The disk holds the snapshots of all arms and three checkpoints of up to three times their size."""
    settings = load_settings(path)
    stated = LINE.search(path.read_text(encoding="utf-8"))
    assert stated, f"{path}: no line '# Thinned: ...' directly above 'snapshots:'"
    dense, every, *disk = (float(number.replace(",", "")) for number in stated.groups())
    kept = settings.snapshots
    assert (kept.dense_until_epoch, kept.every_epochs) == (dense, every)
    for every, stated_disk in zip((kept.every_epochs, 1), disk, strict=True):
        assert stated_disk == pytest.approx(run_costs.disk(settings, every) / 1e9, rel=0.06)


def test_thinned_configs_are_found() -> None:
    """A test of an empty list would pass."""
    assert {"cifar100", "imagenet", "duality"} <= {path.stem for path in THINNED}


def interval(sweep: Path) -> int:
    """The interval of the snapshots of a sweep, from its overrides or its base file."""
    tree = read_yaml(sweep)
    base = read_yaml(sweep.parent / tree["base"]).get("snapshots") or {}
    return (tree.get("overrides") or {}).get("snapshots.every_epochs", base.get("every_epochs", 1))


def test_a_sweep_of_thinned_runs_says_so() -> None:
    """The base file may thin the runs: a reader of the sweep does not see it. test_paper_configs computes the disk."""
    thinned = {path: interval(path) for path in published.FILES if published.is_sweep(path)}
    thinned = {path: every for path, every in thinned.items() if every != 1}
    assert {"depth", "classes_cifar100"} <= {path.stem for path in thinned}  # by the base file, and by an override
    for path, every in thinned.items():
        stated = SWEEP_LINE.search(path.read_text(encoding="utf-8"))
        assert stated, f"{path}: no line '# Thinned: ...'"
        assert int(stated[1]) == every


def test_a_sweep_that_thins_its_runs_says_so() -> None:
    """`overrides` changes the interval of the base file, whose comment would otherwise be wrong."""
    for path in CONFIGS:
        if (read_yaml(path).get("overrides") or {}).get("snapshots.every_epochs", 1) != 1:
            assert "\n# Thinned: snapshots of epochs 0 to " in path.read_text(encoding="utf-8"), path
