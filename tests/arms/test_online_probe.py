"""The online probe: equals torch's SGD, changes no bit of the arms, and continues exactly after a resume."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import tiny
from torch import nn

from coupled.analysis.run import open_run
from coupled.arms.monitor import ONLINE_PROBE
from coupled.arms.sanity_checks import check_unlabelled
from coupled.coordinator import Coordinator
from coupled.models.online_probe import OnlineProbe
from coupled.parallel.process_group import process_group
from coupled.storage.checkpoints import read_newest
from coupled.stream.clean import choose_images, clean_batches

SMALL: dict[str, Any] = {
    "arms": {"cl": "dcl", "ce": {"objective": "cross_entropy", "optimizer": {"base_lr": 0.02}}},
    "batch": {"size": 480},  # 3 steps an epoch
}
PROBE = {"base_lr": 0.5, "weight_decay": 1e-3}


def test_the_probe_equals_a_linear_layer_trained_by_torch() -> None:
    """Another gradient, a decayed bias or a rate that does not follow the arm's would be another probe."""
    rng = torch.Generator().manual_seed(0)
    options = {"base_lr": 0.4, "momentum": 0.9, "weight_decay": 0.1}
    probe = OnlineProbe(6, 3, 2.0, **options, device=torch.device("cpu"), dtype=torch.float64)
    layer = nn.Linear(6, 3, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": 0.1}, {"params": [layer.bias]}]
    sgd = torch.optim.SGD(groups, lr=1, momentum=0.9)
    for lr in (0.5, 2.0, 1.0):
        embedding_VBD = torch.randn(2, 5, 6, generator=rng, dtype=torch.float64).requires_grad_()
        labels_B = torch.randint(3, (5,), generator=rng)
        logits = layer(embedding_VBD.detach().flatten(0, 1))
        correct = (logits.argmax(1) == labels_B.repeat(2)).double().mean()
        assert probe.gradients(embedding_VBD, labels_B) == correct
        sgd.zero_grad()
        nn.functional.cross_entropy(logits, labels_B.repeat(2)).backward()
        for group in sgd.param_groups:
            group["lr"] = 0.4 * lr / 2.0
        sgd.step()
        probe.update(lr)
        assert embedding_VBD.grad is None
        torch.testing.assert_close(probe.weights_CE[:, :-1], layer.weight, rtol=0, atol=1e-14)
        torch.testing.assert_close(probe.weights_CE[:, -1], layer.bias, rtol=0, atol=1e-14)


def test_the_probe_of_an_arm_learns_from_h_of_all_views_and_the_labels_of_the_batch() -> None:
    """z, one view, or the labels of other images would give a probe of something else; it starts at zero weights."""
    with process_group("cpu") as group:
        coordinator = Coordinator(
            tiny.tiny_settings(**{**SMALL, "batch": {"size": 60}}, online_probe=PROBE), group, Path("unused")
        )
        batch = next(coordinator.step_batches(1))[""]
        for arm in coordinator.arms:
            arm.gradients(batch)
            with torch.no_grad():
                h_MD = arm.network(batch.views_VB3SS)["embedding"].flatten(0, 1)
            wrong_MC = 0.1 - nn.functional.one_hot(torch.cat([batch.labels_B, batch.labels_B]), 10).float()
            expected_CE = wrong_MC.T @ nn.functional.pad(h_MD, (0, 1), value=1.0) / len(h_MD)
            torch.testing.assert_close(arm.probe.gradient_CE, expected_CE, rtol=1e-4, atol=1e-6)
            assert expected_CE.abs().max() > 1e-3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run without probes, the same with probes, and one that was stopped in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("probes")
    probed = {**SMALL, "online_probe": PROBE, "monitor": {"metrics": ["weight_gap"], "num_images": 100}}
    tiny.train(folder / "without", **SMALL)
    tiny.train(folder / "with", **probed)
    tiny.train(folder / "resumed", max_steps=4, log_every=3, **probed)
    tiny.train(folder / "resumed", resume=True, log_every=3, **probed)
    return {path.name: path for path in folder.iterdir()}


def test_the_arms_have_the_same_bits_with_and_without_the_probe(runs: dict[str, Path]) -> None:
    """A probe whose gradient reaches the encoder would train the arms with labels. Snapshots do not contain it."""
    for arm in SMALL["arms"]:
        without, with_probe = (tiny.tensors(runs[name], arm, 2) for name in ("without", "with"))
        assert without.keys() == with_probe.keys()
        assert all(torch.equal(without[name], with_probe[name]) for name in without)
    tables = {name: pd.read_csv(run / "steps.csv") for name, run in runs.items()}
    added = [f"{arm}_probe_accuracy" for arm in SMALL["arms"]]
    assert [name for name in tables["with"] if name not in tables["without"]] == added
    pd.testing.assert_frame_equal(tables["with"].drop(columns=added), tables["without"])


def test_a_resumed_run_continues_the_probe(runs: dict[str, Path]) -> None:
    """A probe that starts again would have another accuracy; so would one that misses a rollback of several steps."""
    for table in ("steps.csv", "monitor.csv"):
        assert (runs["resumed"] / table).read_bytes() == (runs["with"] / table).read_bytes()
    assert tiny.snapshot_bytes(runs["resumed"]) == tiny.snapshot_bytes(runs["with"])
    for arm in SMALL["arms"]:
        resumed, whole = (read_newest(runs[name] / "checkpoints").arms[arm] for name in ("resumed", "with"))
        names = sorted(name for name in whole if ONLINE_PROBE in name)
        assert names == ["kept/online_probe.velocity", "kept/online_probe.weights"]
        assert all(torch.equal(resumed[name], whole[name]) for name in names)


def test_the_monitor_has_the_accuracy_of_the_probe_on_test_images(runs: dict[str, Path]) -> None:
    """The accuracy on the views of the training does not measure generalisation."""
    rows = pd.read_csv(runs["with"] / "monitor.csv").query(f"metric == '{ONLINE_PROBE}'")
    assert rows.groupby("epoch").arm.agg(list).to_dict() == {epoch: [*SMALL["arms"]] for epoch in range(3)}
    assert set(rows.split) == {"test"}
    run = open_run(runs["with"])
    images = run.images("test")
    chosen_N = choose_images(len(images), 100, run.settings.seed, "test")
    for row in rows[rows.epoch == 2].itertuples():
        encoder = run.encoder(row.arm, 2).eval()
        weights_CE = read_newest(runs["with"] / "checkpoints").arms[row.arm]["kept/online_probe.weights"]
        with torch.no_grad():
            h_ND = torch.cat([encoder(each) for each in clean_batches(images, chosen_N, 8, torch.device("cpu"), 0)])
        correct = (h_ND @ weights_CE[:, :-1].T + weights_CE[:, -1]).argmax(1) == images.labels_N[chosen_N]
        assert row.value == pytest.approx(correct.double().mean().item(), abs=1e-9)


def test_settings_without_a_probe_are_recorded_as_before() -> None:
    """A new key in run.json would change the digest of every run."""
    assert "online_probe" not in tiny.tiny_settings().resolved()
    assert tiny.tiny_settings(online_probe={}).online_probe is not None


def test_a_probe_that_cannot_be_trained_is_refused() -> None:
    """A mixed view has two labels, and an image without a label none."""
    mixed = {"augmentation": {"mixup_alpha": 0.2}, "arms": {"ce": "cross_entropy"}}
    tiny.tiny_settings(**mixed)
    with pytest.raises(
        ValueError, match=re.escape("online_probe: set, but arm 'ce' has augmentation.mixup_alpha: 0.2")
    ):
        tiny.tiny_settings(online_probe={}, **mixed)
    with pytest.raises(ValueError, match="online_probe: the training images have no labels"):
        check_unlabelled({}, "uniform", probed=True)
