"""`monitor`: measures beside training are those of the analysis, and training does not notice them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import ranks, tiny

from coupled.analysis import alignment, quality, weight_gap
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.arms.monitor import Monitor, evaluating
from coupled.config.monitor import unpaired
from coupled.metrics.arm import Labelled

SMALL: dict[str, Any] = {"arms": {"cl": "dcl", "nscl": "nscl"}, "batch": {"size": 720}}  # 2 steps an epoch
MONITOR = {"metrics": ["cka", "rsa", "weight_gap", "knn", "nccc", "cdnv"], "num_images": 100}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    tiny.train(run, **SMALL)
    return run


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("watched") / "run"
    before = torch.get_rng_state()
    coordinator = tiny.train(run, monitor=MONITOR, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for arm in coordinator.arms for module in arm.network.modules())
    return run


def test_training_has_the_same_bits_with_and_without(plain: Path, watched: Path) -> None:
    """A measure that moves a running average or draws a number would change what it measures."""
    assert tiny.snapshot_bytes(watched) == tiny.snapshot_bytes(plain)
    assert (watched / "steps.csv").read_bytes() == (plain / "steps.csv").read_bytes()


def test_the_values_are_those_of_the_analysis_of_the_snapshots(watched: Path) -> None:
    """Two programs with two values for one measure would make both of no use."""
    found = pd.read_csv(watched / "monitor.csv")
    assert tuple(found.columns) == SCHEMAS["monitor.csv"].columns
    assert len(found) == 3 * (3 + 2 * 3)
    run, few = open_run(watched), {"num_images": 100, "split": "test", "layers": "h"}
    gaps = weight_gap.compute(run).query("aggregate == 'global' and module.isna()")
    pairs = alignment.compute(run, metrics=["cka", "rsa"], **few)  # type: ignore[arg-type]
    arms = quality.compute(run, metrics=["knn", "nccc", "cdnv"], **few)  # type: ignore[arg-type]
    expected = pd.concat([pairs, arms, gaps.assign(metric="weight_gap", value=gaps.gap, split=None)])
    both = found.merge(expected, on=["epoch", "arm", "metric"], suffixes=("", "_offline"))
    assert len(both) == len(found)
    assert both.value.to_numpy() == pytest.approx(both.value_offline.to_numpy(), abs=1e-9)
    learned = both.metric.isin(["knn", "nccc"])
    assert set(both.num_train_images[learned]) == {100}
    assert both.num_train_images[~learned].isna().all()


def test_a_resumed_run_continues_the_table(watched: Path, tmp_path: Path) -> None:
    """No row twice, none lost, whatever was written after the checkpoint; the settings of the monitor may change."""
    run = tmp_path / "run"
    tiny.train(run, max_steps=3, monitor=MONITOR, **SMALL)
    with (run / "monitor.csv").open("a") as file:
        file.write("2,test,cl,nscl,cka,0.5,100,\n2,te")  # of an epoch that was not saved
    tiny.train(run, resume=True, monitor=MONITOR, **SMALL)
    assert (run / "monitor.csv").read_bytes() == (watched / "monitor.csv").read_bytes()
    tiny.train(run, resume=True, **SMALL)
    tiny.train(run, resume=True, monitor={"metrics": ["cka"]}, **SMALL)
    assert (run / "monitor.csv").read_bytes() == (watched / "monitor.csv").read_bytes()
    (run / "monitor.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"monitor\.csv: expected a table with the columns epoch,split"):
        tiny.train(run, resume=True, monitor=MONITOR, **SMALL)


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> None:
    tiny.train(run, **changed)


@pytest.mark.distributed
def test_the_values_are_the_same_where_arms_have_ranks_of_their_own(watched: Path, tmp_path: Path) -> None:
    """The reference is then in another process."""
    changed = {**SMALL, "monitor": MONITOR, "parallel": {"arm_groups": 2}}
    ranks.run(2, train_on_a_rank, tmp_path / "run", changed)
    assert (tmp_path / "run/monitor.csv").read_bytes() == (watched / "monitor.csv").read_bytes()


@pytest.mark.distributed
def test_two_ranks_that_share_an_arm_measure_it_once(tmp_path: Path) -> None:
    """Their batch norms span both ranks while training; one rank alone must not wait for the other."""
    run = tmp_path / "run"
    ranks.run(2, train_on_a_rank, run, {**SMALL, "epochs": 1, "monitor": {**MONITOR, "metrics": ["cka", "weight_gap"]}})
    found = pd.read_csv(run / "monitor.csv")
    few = {"num_images": 100, "split": "test", "layers": "h"}
    expected = alignment.compute(open_run(run), metrics=["cka"], **few)  # type: ignore[arg-type]
    assert found[found.metric == "cka"].value.tolist() == pytest.approx(expected.value.tolist(), abs=1e-9)


def test_each_module_is_put_back_into_its_own_mode() -> None:
    """A frozen part stays in evaluation mode."""
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]


def test_an_unknown_measure_is_one_line_and_measures_are_no_part_of_the_experiment() -> None:
    for names, said in (
        (["ckaa"], "monitor.metrics: got 'ckaa'; did you mean 'cka'"),
        (["few_shot"], "allowed during training are cka"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny.tiny_settings(monitor={"metrics": names})
    assert tiny.tiny_settings(monitor={}).sha256() == tiny.tiny_settings().sha256()
    assert tiny.tiny_settings(monitor={}).resolved()["monitor"]["num_images"] == 2000


def test_measures_of_two_arms_are_not_ignored_in_a_run_of_one(tmp_path: Path) -> None:
    """An empty monitor.csv would look like a fault of the program."""
    both = {"metrics": ["cka", "knn"]}
    assert [*unpaired(None, ["cl"]), *unpaired(both, ["cl", "nscl"])] == []
    assert [*unpaired(both, ["cl"])] == [
        "monitor.metrics: cka compare two arms, and the run has only 'cl'; monitor.csv has no rows of them"
    ]
    with pytest.raises(ValueError, match=r"monitor\.metrics: cka compare two arms"):
        tiny.train(tmp_path / "run", arms={"cl": "dcl"}, monitor={"metrics": ["cka"]})


def gap_of_means(x_nD: torch.Tensor, y_nE: torch.Tensor) -> float:
    """A pair metric of the user."""
    return float((x_nD.mean(0) - y_nE.mean(0)).norm())


def test_metrics_of_the_user_are_measured_and_a_changed_file_gets_another_name(tmp_path: Path) -> None:
    """By file and by callable; of two arms, of a split, and learned from train, as their arguments are called."""
    file = tmp_path / "own.py"
    file.write_text(
        "def pair(x, y): return (x - y).norm()\ndef rows(images): return len(images.rows_ND)\n"
        "def both(train, test): return len(train.rows_ND) + len(test.rows_ND)\ndef wrong(x, y): return 'a'\n"
    )
    metrics = [f"{file}:pair", f"{file}:rows", f"{file}:both", gap_of_means]
    few = {"arms": {"cl": "dcl", "ce": "cross_entropy"}, "epochs": 1}
    tiny.train(tmp_path / "run", **few, monitor={"metrics": metrics, "num_images": 40})
    table = pd.read_csv(tmp_path / "run/monitor.csv")
    names = [name.rpartition("/")[2] for name in table["metric"].unique()]
    digest = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()[:8]
    assert sorted(names[-4:]) == sorted([*(f"own.py:{f}@{digest}" for f in ("pair", "rows", "both")), names[-1]])
    values = {name.rpartition("/")[2].partition("@")[0]: rows for name, rows in table.groupby("metric")}
    assert {*values["own.py:rows"]["value"]} == {40}
    assert {*values["own.py:both"]["value"]} == {80}
    assert values["own.py:pair"]["value"].tolist()[0] == 0 < values["own.py:pair"]["value"].tolist()[1]
    assert {*values["test_monitor.py:gap_of_means"]["reference"]} == {"cl"}
    assert "code" not in json.loads((tmp_path / "run/run.json").read_text())["settings"]
    with pytest.raises(ValueError, match=r"monitor\.metrics: .*own\.py:4: wrong returns str; expected"):
        tiny.train(tmp_path / "other", **few, monitor={"metrics": [f"{file}:wrong"]})


def test_a_file_that_changes_while_the_run_trains_changes_no_metric(tmp_path: Path) -> None:
    """The rows bear the digest of the file that the run began with."""
    file = tmp_path / "own.py"
    file.write_text("def pair(x, y): return 1.0\ndef rows(images): return 1.0\n")
    metrics = tiny.tiny_settings(monitor={"metrics": [f"{file}:pair", f"{file}:rows"]}).monitor.metrics
    monitor = Monitor(["cl"], "cl", 1, metrics, 9, 0, {}, 8, 0, group=None, log=None)  # type: ignore[arg-type]
    file.write_text("def pair(x, y): return 2.0\ndef rows(images): return 2.0\n")
    pair, rows = metrics
    assert monitor.pair_metrics[pair](torch.ones(2, 2), torch.ones(2, 2)) == 1
    assert monitor._measured(rows, [Labelled(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))]) == 1
