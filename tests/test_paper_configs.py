"""configs/paper: every file has the published settings, its networks can be built, its header has the computed cost.

The published settings are the tables of tests/published/, which cite papers.md; `support/published.py` reads them.
"""

import re
from functools import reduce
from pathlib import Path

import pytest
from support import published, run_costs
from support.published import FILES, entry_of, header, is_sweep, settings_of, value_at

from coupled.config.load import apply_override, load_settings
from coupled.config.safe_yaml import read_yaml

RUNS = [path for path in FILES if not is_sweep(path)]
SWEEPS = [path for path in FILES if is_sweep(path)]


def name(path: Path) -> str:
    """The name of a config in the output of pytest."""
    return f"{path.parent.name}/{path.stem}"


def test_every_config_has_an_entry_in_the_table_of_its_paper() -> None:
    """A config without an entry would not be checked, and an entry without a config states nothing."""
    for folder in sorted({path.parent for path in FILES}):
        assert {path.stem for path in folder.glob("*.yaml")} == published.table(folder.name).keys(), folder.name


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_config_has_the_published_settings(path: Path) -> None:
    """Results can be compared with published ones only under the published settings."""
    entry = entry_of(path)
    for settings in settings_of(path):
        assert {key: value_at(settings, key) for key in entry.settings} == entry.settings
    if is_sweep(path):
        sweep = read_yaml(path)
        assert sweep.get("grid", {}) == entry.grid
        zips = sweep.get("zip", [])
        assert ([zips] if isinstance(zips, dict) else zips) == entry.zip
    assert read_yaml(path)["name"] == f"{path.parent.name}_{path.stem}"  # papers share no folder under runs/


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_key_of_a_config_is_in_its_entry(path: Path) -> None:
    """A key without an entry has no source, and could be changed unnoticed."""
    entry = entry_of(path)
    stated = {*entry.settings, *entry.grid, *(key for group in entry.zip for key in group)}
    keys = published.set_keys(path)
    # an arm that a sweep adds as a whole is stated key by key
    assert [key for key in sorted(keys - stated) if not any(each.startswith(f"{key}.") for each in stated)] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_header_has_the_command_and_the_computed_cost(path: Path) -> None:
    """Command, operations, hours at the measured rate, and bytes, computed from the networks of every point."""
    said = " ".join(header(path))
    program = "scripts/sweep.py" if is_sweep(path) else "coupled/train.py --config"
    assert f"{program} {path.relative_to(published.CONFIGS.parents[1])}" in said
    missing = [text for text in (*published.cost_texts(path), "not measured") if text not in said]
    assert missing == [], "write these texts into the header"
    if is_sweep(path) and settings_of(path)[0].snapshots.every_epochs != 1:
        assert f"\n{published.thinned_line(path)}\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_header_has_the_published_numbers(path: Path) -> None:
    """A result without the number to compare it with says little."""
    said = " ".join(" ".join(header(path)).split())
    assert [number for number in entry_of(path).numbers if number not in said] == []
    assert "Published" in said


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_overrides_in_the_header_change_only_their_keys(path: Path) -> None:
    """They give another published form; an override that changes nothing, or more, would give a third one."""
    lines = [line for line in header(path) if re.fullmatch(r"[\w.]+=\S+( [\w.]+=\S+)*", line)]
    assert lines == entry_of(path).overrides
    for line in lines:
        base = path if not is_sweep(path) else path.parent / read_yaml(path)["base"]
        plain, changed = load_settings(base), load_settings(base, line.split())
        for override in line.split():
            key, value = override.partition("=")[0], {}
            apply_override(value, override)
            for part in key.split("."):
                value = value[part]
            assert value_at(changed, key) == value != value_at(plain, key)


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_the_networks_of_a_config_can_be_built(path: Path) -> None:
    """With the heads of each objective, as the coordinator builds them. The outputs are those the objective needs."""
    (settings,) = settings_of(path)
    _, network = next(run_costs.networks(settings))
    published_values = entry_of(path).network
    found = {key: reduce(getattr, key.split("."), network) for key in published_values}
    assert {key: [*value] if isinstance(value, tuple) else value for key, value in found.items()} == published_values
    for needs, network in run_costs.networks(settings):
        outputs = run_costs.outputs(network, settings.image_size)
        assert {*needs.outputs} <= {*outputs} <= {*needs.outputs, "projection"}  # the run monitors the projection
        widths = {
            "projection": settings.projector.output_dim,
            "logits": run_costs.IMAGES[settings.dataset.name].classes,
        }
        for output in widths.keys() & outputs.keys():
            assert outputs[output].shape[-1] == widths[output]
