"""Runs of more than two views and of two augmentation recipes: world size, resume and analysis."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import multi_crop, ranks, tiny
from support.objectives import small_arms

import coupled
import coupled.train
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.representations.features import plan_of, view_features
from coupled.arms.arm import Arm
from coupled.config import by_name
from coupled.objectives import Needs, cross_entropy

FOUR: dict[str, Any] = {
    "views": 4,
    "rotation_prob": 0.3,
    "second": {"blur_prob": 0.1, "solarize_prob": 0.2, "crop_scale": [0.2, 0.6]},
}
ARMS: dict[str, Any] = {"cl": "dcl", "v": "vicreg", "b": {"objective": "byol", "hidden_dim": 16}}
SMALL: dict[str, Any] = {
    "epochs": 1,
    "dataset": {**tiny.TINY["dataset"], "classes": [0, 1, 2]},
    "batch": {"size": 144},  # 2 steps
    "augmentation": {**tiny.TINY["augmentation"], **FOUR},
    "arms": ARMS,
}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> coupled.Run:
    """A finished run of `coupled.train` with four views and two recipes."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "four.yaml").write_text(json.dumps({**tiny.TINY, **SMALL}))
    return coupled.train(folder / "four.yaml", run_dir=folder / "run")


def test_a_run_of_four_views_is_complete_and_measured_on_four_views(four: coupled.Run) -> None:
    """Training and analysis use the same augmentations."""
    assert four.verify() == []
    assert {key: four.description["settings"]["augmentation"][key] for key in FOUR} == FOUR
    images, embedder = four.images("test"), Embedder(four, torch.device("cpu"))
    assert plan_of(four.settings, images).table_VNR.shape[:2] == (4, len(images))
    views_VND = view_features(embedder, images, torch.arange(20), "cl", 1)["h"]
    assert views_VND.shape[:2] == (4, 20)
    assert len(views_VND.unique(dim=0)) == 4
    losses = four.losses(arms=["cl"], epochs=1, split="test", temperatures=[0.5], num_images=40)
    assert losses.skipped_anchors.tolist() == [0] * len(losses)
    spread = four.quality(arms=["cl"], epochs=1, split="test", metrics=["augmentation_spread"], num_images=40)
    assert (spread.value > 0).all()


def test_a_resumed_run_of_four_views_has_the_bytes_of_an_uninterrupted_run(four: coupled.Run, tmp_path: Path) -> None:
    """Views are a function of seed, epoch, image and view index only."""
    for more in ({"max_steps": 1}, {"resume": True}):
        coupled.train(four.path.parent / "four.yaml", run_dir=tmp_path / "run", **more)
    assert tiny.snapshot_bytes(tmp_path / "run") == tiny.snapshot_bytes(four.path)
    assert (tmp_path / "run/steps.csv").read_bytes() == (four.path / "steps.csv").read_bytes()


def test_memory_negatives_and_excluded_anchors_count_all_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the views need about twice the memory. A fraction of the anchors is a fraction over all views."""
    read = Arm.read
    monkeypatch.setattr(Arm, "read", lambda arm, numbers_4: read(arm, numbers_4)._replace(skipped_anchors=24))
    for views in (2, 4):
        tiny.train(tmp_path / str(views), **{**SMALL, "arms": {"cl": "dcl"}, "augmentation": {"views": views}})
    said = capsys.readouterr().out
    for views in (2, 4):
        assert f"{views} views of each, so {views * 143} views of other images" in said
        assert f"arm cl: {24 / (views * 144):.1%} of the epoch's anchors" in said
    needed = [float(line.split()[4]) for line in said.splitlines() if line.startswith("a step needs about")]
    assert needed[1] > 1.5 * needed[0]


def test_every_objective_trains_on_four_views(tmp_path: Path) -> None:
    """No objective of the package needs exactly two views."""
    arms = small_arms()
    arms["vicregl"]["augmentation"] = {"rotation_prob": 0.0, "second": {"rotation_prob": 0.0}}  # it refuses rotations
    changed = {**SMALL, "batch": {"size": 48}, "optimizer": {**tiny.TINY["optimizer"], "base_lr": 1e-3}, "arms": arms}
    tiny.train(tmp_path / "run", max_steps=1, **changed)
    steps = pd.read_csv(tmp_path / "run/steps.csv")
    for name in arms:
        assert steps[f"{name}_skipped_anchors"].eq(0).all(), name
        assert steps[f"{name}_grad_norm"].gt(0).all(), name


def test_an_objective_of_two_views_is_rejected_with_more_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would fail within its formula or ignore views silently."""
    monkeypatch.setattr(cross_entropy, "needs", lambda **_: Needs(("projection",), views=2))
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    assert coupled.train.main(["--config", "run.yaml", "--run-dir", "run", "augmentation.views=3"]) == 2
    assert "coupled train: augmentation.views: got 3; 'cross_entropy' of arm ce takes 2\n" in capsys.readouterr().err
    assert not Path("run").exists()


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> None:
    tiny.train(run, **changed)


@pytest.mark.distributed
def test_two_ranks_train_four_views_of_two_recipes_like_one_rank(tmp_path: Path) -> None:
    """The views of an image do not depend on the rank that computes them, and all views are gathered."""
    arms = {"cl": "dcl", "v": "vicreg"}
    changed = {**SMALL, "precision": "float64", "arms": arms}
    found = {}
    for world_size in (1, 2):
        run = tmp_path / str(world_size)
        ranks.run(world_size, train_on_a_rank, run, changed)
        steps = pd.read_csv(run / "steps.csv")
        ends = [
            torch.cat([t.flatten() for t in tiny.tensors(run, arm, epoch).values()]) for arm in arms for epoch in (0, 1)
        ]
        found[world_size] = steps, ends
    (one, ends_of_one), (two, ends_of_two) = found[1], found[2]
    assert two.inputs_digest.tolist() == one.inputs_digest.tolist()
    for column in one.columns[2:]:
        if column != "inputs_digest":
            assert two[column].tolist() == pytest.approx(one[column].tolist(), rel=1e-8), column
    for start, end, expected in zip(ends_of_one[::2], ends_of_two[1::2], ends_of_one[1::2], strict=True):
        assert (end - expected).norm() < 1e-6 * expected.norm()
        assert (end - start).norm() > 1e-4 * start.norm()


LOCAL: dict[str, Any] = {
    **SMALL,
    "augmentation": {**tiny.TINY["augmentation"], "local_views": 3, "local_size": 4, "local_crop_scale": [0.1, 0.4]},
    "arms": {"cl": "dcl", "m": "multi_crop"},
}


@contextmanager
def multi_crop_is_known() -> Iterator[None]:
    """Register `multi_crop` as an objective within the context."""
    find = by_name.find
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            by_name, "find", lambda package, name: multi_crop if name == "multi_crop" else find(package, name)
        )
        yield


def train_local(run: Path, changed: dict[str, Any]) -> None:
    with multi_crop_is_known():
        tiny.train(run, **changed)


def test_arms_with_and_without_local_views_train_and_resume_in_one_run(tmp_path: Path) -> None:
    """Multi-crop: the arm without local views is bit for bit equal to that of a run without them."""
    (tmp_path / "local.yaml").write_text(json.dumps({**tiny.TINY, **LOCAL}))
    with multi_crop_is_known():
        whole = coupled.train(tmp_path / "local.yaml", run_dir=tmp_path / "whole")
        for more in ({"max_steps": 1}, {"resume": True}):
            coupled.train(tmp_path / "local.yaml", run_dir=tmp_path / "stopped", **more)
        assert tiny.snapshot_bytes(tmp_path / "stopped") == tiny.snapshot_bytes(whole.path)
        assert whole.verify() == []
        assert plan_of(whole.settings, whole.images("test")).local is None  # measures use no local views
        assert len(whole.quality(arms=["m"], epochs=1, metrics=["augmentation_spread"], num_images=40))
    plain = {
        "arms": {"cl": "dcl"},
        "augmentation": {"local_views": 0, "local_size": None, "local_crop_scale": [0.05, 0.4]},
    }
    alone = coupled.train(tmp_path / "local.yaml", run_dir=tmp_path / "alone", **plain)
    for name, tensor in alone.state_dict("cl", 1).items():
        assert torch.equal(whole.state_dict("cl", 1)[name], tensor)
    weights, start = whole.state_dict("m", 1), whole.state_dict("m", 0)
    assert not torch.equal(weights["encoder.conv1.weight"], whole.state_dict("cl", 1)["encoder.conv1.weight"])
    assert not torch.equal(weights["encoder.conv1.weight"], start["encoder.conv1.weight"])


@pytest.mark.distributed
def test_two_ranks_train_local_views_like_one_rank(tmp_path: Path) -> None:
    """Local views, and the batch norm over them, do not depend on the number of processes."""
    changed = {**LOCAL, "precision": "float64", "arms": {"m": "multi_crop"}}
    for world_size in (1, 2):
        ranks.run(world_size, train_local, tmp_path / str(world_size), changed)
    one, two = (pd.read_csv(tmp_path / w / "steps.csv") for w in "12")
    assert two.inputs_digest.tolist() == one.inputs_digest.tolist()
    for column in ("m_loss", "m_grad_norm"):
        assert two[column].tolist() == pytest.approx(one[column].tolist(), rel=1e-8), column


def test_invalid_uses_of_local_views_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local views without an objective that uses them, the reverse, and an encoder of fixed image size."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    crops = ["augmentation.local_views=2", "augmentation.local_size=4"]
    vit = ["encoder={name: vit_tiny_patch16_224}", "arms={m: multi_crop}"]
    with multi_crop_is_known():
        for given, text in (
            (crops, "augmentation.local_views: got 2; no arm's objective takes local views"),
            (
                ["arms={m: multi_crop}"],
                "augmentation.local_views: got 0; objective 'multi_crop' of arm m takes local views",
            ),
            (
                [
                    *crops,
                    "arms={m: multi_crop}",
                    "precision=bfloat16",
                    "dataset.image_size=32",
                    "encoder.stem=imagenet",
                ],
                "precision: got bfloat16; on a CPU oneDNN computes a wrong",
            ),
            ([*crops, *vit], "encoder.name: 'vit_tiny_patch16_224' does not work with augmentation.local_size 4"),
        ):
            assert coupled.train.main(["--config", "run.yaml", "--run-dir", "run", *given]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"coupled train: {text}"), error
            assert error.count("\n") == 1
            assert not Path("run").exists()
