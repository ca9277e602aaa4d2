"""`monitor`: measures taken during training equal those of the analysis, and do not change the training."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from support import ranks, tiny

from coupled.analysis import alignment, quality, weight_gap
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.arms.monitor import Monitor, evaluating
from coupled.arms.summary import biased_monitor
from coupled.config.monitor import unpaired
from coupled.metrics.arm import Labelled
from coupled.models.network import build_network

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


def test_training_has_the_same_bits_with_and_without_the_monitor(plain: Path, watched: Path) -> None:
    """A measure that moves a running average or draws a random number would change what it measures."""
    assert tiny.snapshot_bytes(watched) == tiny.snapshot_bytes(plain)
    assert (watched / "steps.csv").read_bytes() == (plain / "steps.csv").read_bytes()


def test_monitored_values_equal_the_analysis_of_the_snapshots(watched: Path) -> None:
    """Two programs with different values for one measure would make both useless."""
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


def test_a_resumed_run_continues_the_table_of_the_monitor(watched: Path, tmp_path: Path) -> None:
    """No row twice, none lost, whatever was written after the checkpoint; the monitor's settings may change."""
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
def test_monitored_values_are_the_same_with_arms_on_different_ranks(watched: Path, tmp_path: Path) -> None:
    """The reference arm is then in another process."""
    changed = {**SMALL, "monitor": MONITOR, "parallel": {"arm_groups": 2}}
    ranks.run(2, train_on_a_rank, tmp_path / "run", changed)
    assert (tmp_path / "run/monitor.csv").read_bytes() == (watched / "monitor.csv").read_bytes()


@pytest.mark.distributed
def test_two_ranks_that_share_an_arm_measure_it_once(tmp_path: Path) -> None:
    """Batch norm in training mode spans both ranks; a single rank must not wait for the other."""
    run = tmp_path / "run"
    ranks.run(2, train_on_a_rank, run, {**SMALL, "epochs": 1, "monitor": {**MONITOR, "metrics": ["cka", "weight_gap"]}})
    found = pd.read_csv(run / "monitor.csv")
    few = {"num_images": 100, "split": "test", "layers": "h"}
    expected = alignment.compute(open_run(run), metrics=["cka"], **few)  # type: ignore[arg-type]
    assert found[found.metric == "cka"].value.tolist() == pytest.approx(expected.value.tolist(), abs=1e-9)


def test_each_module_returns_to_its_mode() -> None:
    """A frozen module stays in evaluation mode."""
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]


@pytest.mark.parametrize(("metrics", "images", "warns"), [("cka", 31, True), ("cka", 32, False), ("rsa", 31, False)])
def test_biased_cka_of_fewer_images_than_features_is_a_warning(metrics: str, images: int, warns: bool) -> None:
    """In monitor.csv the values of independent representations would look like similarity."""
    settings = tiny.tiny_settings(**SMALL, monitor={"metrics": [metrics], "num_images": images})
    monitor = settings.resolved()["monitor"]
    network = SimpleNamespace(network=build_network(**settings.network_options("cl"), seed=0))
    said = list(biased_monitor(SimpleNamespace(own=[network]), monitor, 357))  # type: ignore[arg-type]
    assert [line.startswith(f"monitor: cka of {images} images with 32 features") for line in said] == [True] * warns
    assert not list(biased_monitor(SimpleNamespace(own=[network]), None, 357))  # type: ignore[arg-type]


def test_an_unknown_measure_is_refused_and_measures_are_not_in_the_digest() -> None:
    for names, said in (
        (["ckaa"], "monitor.metrics: got 'ckaa'; allowed during training are "),
        (["few_shot"], "allowed during training are angle, cka, "),
    ):
        with pytest.raises(ValueError, match=said):
            tiny.tiny_settings(monitor={"metrics": names})
    assert tiny.tiny_settings(monitor={}).sha256() == tiny.tiny_settings().sha256()
    assert tiny.tiny_settings(monitor={}).resolved()["monitor"]["num_images"] == 2000


def test_pair_metrics_are_refused_in_a_run_of_one_arm(tmp_path: Path) -> None:
    """An empty monitor.csv would look like a fault of the program."""
    both = {"metrics": ["cka", "knn"]}
    assert [*unpaired(None, ["cl"]), *unpaired(both, ["cl", "nscl"])] == []
    assert [*unpaired(both, ["cl"])] == [
        "monitor.metrics: cka compare two arms, and the run has only 'cl'; monitor.csv has no rows of them"
    ]
    with pytest.raises(ValueError, match=r"monitor\.metrics: cka compare two arms"):
        tiny.train(tmp_path / "run", arms={"cl": "dcl"}, monitor={"metrics": ["cka"]})


def gap_of_means(x_nD: torch.Tensor, y_nE: torch.Tensor) -> float:
    """A user-defined pair metric."""
    return float((x_nD.mean(0) - y_nE.mean(0)).norm())


def test_user_defined_metrics_are_measured_under_the_digest_of_their_file(tmp_path: Path) -> None:
    """By file and by callable: metrics of a pair, of a split, and of train and test, as their arguments are named."""
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


def test_a_metric_file_edited_during_training_changes_no_metric(tmp_path: Path) -> None:
    """Rows keep the digest of the file as it was at the start of the run."""
    file = tmp_path / "own.py"
    file.write_text("def pair(x, y): return 1.0\ndef rows(images): return 1.0\n")
    metrics = tiny.tiny_settings(monitor={"metrics": [f"{file}:pair", f"{file}:rows"]}).monitor.metrics
    monitor = Monitor(["cl"], "cl", 1, metrics, 9, 0, {}, 8, 0, group=None, log=None)  # type: ignore[arg-type]
    file.write_text("def pair(x, y): return 2.0\ndef rows(images): return 2.0\n")
    pair, rows = metrics
    assert monitor.pair_metrics[pair](torch.ones(2, 2), torch.ones(2, 2)) == 1
    assert monitor._measured(rows, [Labelled(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))]) == 1
