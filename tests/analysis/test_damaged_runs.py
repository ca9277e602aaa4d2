"""verify.py on 300 damaged runs: each damage is detected, or the file's content is unchanged."""

from collections import Counter
from pathlib import Path

import pytest
from support import tiny
from support.damaged_runs import DAMAGE_KINDS, FILES, applied, damages, is_harmless

from coupled.analysis import verify
from coupled.analysis.run import open_run

ARMS = {"cl": "dcl", "ce": "cross_entropy"}
COUNT = 200


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One complete run, one stopped within an epoch, and one with other settings."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.train(folder / "ended", arms=ARMS)
    tiny.train(folder / "stopped", arms=ARMS, max_steps=7)
    tiny.train(folder / "other", arms=ARMS, seed=9)
    return {path.name: path for path in folder.iterdir()}


def findings(run: Path) -> list[str]:
    """Return the findings of verify.py on a run, including refusals of bad input."""
    try:
        return list(verify.faults(open_run(run)))
    except ValueError as error:
        return [str(error)]


@pytest.mark.slow
@pytest.mark.usefixtures("read_once")
def test_every_damage_is_noticed_or_harmless(runs: dict[str, Path]) -> None:
    """Damage that verify accepts is found by nothing else. Every kind of damage and of file is covered."""
    unnoticed, harmless, kinds = [], [], Counter[str]()
    for number, name in enumerate(("ended", "stopped")):
        run = runs[name]
        assert findings(run) == []
        for damage in damages(run, runs["other"], COUNT // 2, seed=number):
            kinds[damage.kind] += 1
            kinds[Path(damage.path).name] += 1
            same = is_harmless(run, damage)
            with applied(run, damage):
                noticed = findings(run)
            if not noticed:
                (harmless if same else unnoticed).append((name, damage.kind, damage.path))
        assert findings(run) == []
    assert not unnoticed
    assert len(harmless) < COUNT // 10, harmless
    assert {*DAMAGE_KINDS, "state.json", *(Path(each).name for each in FILES if "*" not in each)} <= set(kinds)
    print(f"{COUNT} damages, {len(harmless)} harmless: {harmless}")
