"""`encoder.weights` and `encoder.freeze`: one verified start for all arms, and parameters that are not trained."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support import ranks, tiny
from torch import Tensor, nn

from coupled.analysis.run import open_run
from coupled.analysis.verification.given_weights import faults_of_frozen, faults_of_given_weights
from coupled.config.controls import perturb
from coupled.config.load import resolve
from coupled.models.freezing import freeze
from coupled.models.network import build_network
from coupled.train import main

ENCODER: dict[str, Any] = {"name": "resnet18", "width_multiplier": 0.0625}
FROZEN = ["conv1.weight", "bn1.*", "layer[12].*"]
ARMS = {"cl": "dcl", "b": {"objective": "byol", "hidden_dim": 16}, "ce": "cross_entropy"}
BATCH = {"size": 720}  # two steps an epoch
TIMM = {"name": "test_resnet", "stem": "imagenet"}  # timm's smallest ResNet


def encoder_tensors(seed: int = 9, **changed: Any) -> dict[str, Tensor]:
    """The state dict of an encoder trained by another program."""
    options = {"encoder": "resnet18", "width_multiplier": 0.0625, "image_size": 8, **changed}
    tensors = build_network(**options, seed=seed).encoder.state_dict()
    return {name: each + 0.25 if name.endswith("running_mean") else each for name, each in tensors.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as MoCo's and SupContrast's code write it, with the other entries that such files contain."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    tensors = {f"module.encoder_q.{name}": each for name, each in encoder_tensors().items()}
    tensors |= {f"module.encoder_k.{name}": each for name, each in encoder_tensors(seed=1).items()}
    beside = {"epoch": 3, "best": np.float64(0.5), "opt": argparse.Namespace(lr=0.1)}
    torch.save({"state_dict": tensors | {"module.encoder_q.fc.weight": torch.ones(10, 32)}, **beside}, path)
    return path


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "given"
    tiny.train(folder, encoder={**ENCODER, "weights": str(file), "freeze": FROZEN}, arms=ARMS, batch=BATCH)
    return folder


def test_all_arms_start_from_the_given_weights_and_run_json_has_their_digests(run: Path, file: Path) -> None:
    """The start is the file's bytes, in every arm and in BYOL's target."""
    given = encoder_tensors()
    for arm, prefixes in {"cl": ["encoder."], "ce": ["encoder."], "b": ["encoder.", "target.encoder."]}.items():
        start = tiny.tensors(run, arm, 0)
        for prefix in prefixes:
            assert all(torch.equal(start[prefix + name], tensor) for name, tensor in given.items())
    opened = open_run(run)
    assert opened.description["settings"]["encoder"]["weights_digest"] == opened.settings.encoder.weights_digest
    assert opened.description["start"]["weights"] == str(file)
    assert opened.verify() == []


def test_frozen_tensors_stay_equal_in_all_snapshots_and_the_others_move(run: Path) -> None:
    """A batch norm that is frozen as a whole keeps its running averages as well."""
    for arm in ARMS:
        first, last = tiny.tensors(run, arm, 0), tiny.tensors(run, arm, 2)
        same = {name for name in first if torch.equal(first[name], last[name])}
        stages = {name.partition("encoder.")[2].split(".")[0] for name in same if "encoder." in name}
        assert {"conv1", "bn1", "layer1", "layer2"} == stages, arm
        frozen = {name for name in first if name.removeprefix("encoder.").startswith(tuple(stages))}
        assert frozen <= same, arm


def test_verify_notices_another_start_and_a_frozen_tensor_that_moved(run: Path) -> None:
    """The settings are changed to other weights and to more frozen parameters."""
    opened = open_run(run)
    other = {"start": {"encoder_digest": "0" * 32}}
    found = list(faults_of_given_weights(opened.snapshots, opened.settings, other))
    assert len(found) == len(ARMS)
    assert all("the encoder does not start from" in text for text in found)
    assert list(faults_of_given_weights(opened.snapshots, opened.settings, {})) == [
        "run.json: no start.encoder_digest, which a run with encoder.weights has"
    ]
    more = opened.settings.encoder.model_copy(update={"freeze": ("layer4.1.conv2.weight",)})
    found = list(faults_of_frozen(opened.snapshots, opened.settings.model_copy(update={"encoder": more})))
    assert [text.partition("snapshots/")[2].partition(":")[0] for text in found] == [
        f"{arm}/epoch_0001.safetensors" for arm in ARMS
    ]


def test_a_resume_identifies_the_weights_file_by_its_content(
    run: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A moved file holds the same weights; a changed file is refused, because it is another experiment."""
    moved = shutil.copy(file, tmp_path / "moved.pth")
    encoder = {**ENCODER, "weights": str(moved), "freeze": FROZEN}
    tiny.train(shutil.copytree(run, tmp_path / "run"), resume=True, encoder=encoder, arms=ARMS, batch=BATCH)
    assert tiny.snapshot_bytes(tmp_path / "run") == tiny.snapshot_bytes(run)
    torch.save(encoder_tensors(seed=2), moved)
    with pytest.raises(ValueError, match=r"was started with other settings: encoder\.weights_digest was"):
        tiny.train(tmp_path / "run", resume=True, encoder=encoder, arms=ARMS, batch=BATCH)
    pinned = {**encoder, "weights_digest": open_run(run).settings.encoder.weights_digest}
    with pytest.raises(ValueError, match=r"encoder\.weights: '.*moved.pth' has sha256 .*, encoder\.weights_digest is"):
        tiny.tiny_settings(encoder=pinned)
    said = capsys.readouterr().out
    assert f"starts from {moved} under 'state_dict.module.encoder_q.'; the projector from the seed" in said
    assert (
        "not used from this file: state_dict.module.encoder_q.fc.weight, state_dict.module.encoder_k.conv1.weight"
        in said
    )


def train_on_a_rank(folder: Path, changed: dict[str, Any]) -> None:
    tiny.train(folder, **changed)


@pytest.mark.distributed
def test_two_ranks_train_with_frozen_stages(tmp_path: Path) -> None:
    """DDP must not wait for gradients of frozen parameters; the weights are a snapshot of another run."""
    few: dict[str, Any] = {"epochs": 1, "batch": {"size": 720}, "arms": {"cl": "dcl"}}
    tiny.train(tmp_path / "first", encoder=TIMM, seed=4, **{**few, "epochs": 0})
    weights = f"run:{tmp_path / 'first'}@cl@0"
    encoder = {**TIMM, "weights": weights, "freeze": ["conv1.*", "layer1.*"]}
    ranks.run(2, train_on_a_rank, tmp_path / "second", {"encoder": encoder, **few})
    places = (("first", 0), ("second", 0), ("second", 1))
    given, start, end = (tiny.tensors(tmp_path / run, "cl", epoch) for run, epoch in places)
    for name in (name for name in given if name.startswith("encoder.")):
        assert torch.equal(start[name], given[name])
        if "conv1." in name.removeprefix("encoder.")[:6] or ".layer1." in name:
            assert torch.equal(end[name], given[name]), name
    assert not torch.equal(end["encoder.layer2.0.conv1.weight"], given["encoder.layer2.0.conv1.weight"])
    assert open_run(tmp_path / "second").verify() == []


def test_settings_without_weights_keep_their_digest() -> None:
    """Unused keys are neither in the digest nor in run.json."""
    assert tiny.tiny_settings(encoder={"name": "resnet18"}).resolved()["encoder"].keys() == {
        "name",
        "width_multiplier",
        "stem",
        "zero_init_last",
    }


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_leaves_the_classifier_trainable_and_unknown_patterns_are_refused(
    frozen: bool, tmp_path: Path
) -> None:
    """CE on the embedding still trains its classifier."""
    arms = {"ce": {"objective": "cross_entropy", "input": "embedding"}}
    if frozen:
        tiny.train(tmp_path / "run", encoder={**ENCODER, "freeze": ["*"]}, arms=arms, epochs=1, batch=BATCH)
        first, last = (tiny.tensors(tmp_path / "run", "ce", epoch) for epoch in (0, 1))
        assert {name for name in first if not torch.equal(first[name], last[name])} == {
            "classifier.weight",
            "classifier.bias",
        }
    else:
        with pytest.raises(ValueError, match=r"^encoder\.freeze: 'layer9\.\*' matches no parameter of the encoder \("):
            tiny.train(tmp_path / "run", encoder={**ENCODER, "freeze": ["layer9.*"]}, arms=arms)
        assert not (tmp_path / "run").exists()


def damaged(tmp_path: Path, how: str) -> str:
    """A value of `encoder.weights` that cannot be used."""
    path, tensors = tmp_path / "w.pth", encoder_tensors()
    if how == "code":
        torch.save({"model": nn.Linear(2, 2)}, path)
    elif how == "missing":
        torch.save({"model": {name: each for name, each in tensors.items() if "layer4.1" not in name}}, path)
    elif how == "stem":
        torch.save(encoder_tensors(stem="imagenet"), path)
    elif how == "wide":
        torch.save(encoder_tensors(width_multiplier=0.125), path)
    elif how == "two":
        torch.save({f"{place}.{name}": each for name, each in tensors.items() for place in ("a", "b")}, path)
    elif how == "other":
        torch.save({"x": torch.zeros(2)}, path)
    elif how == "cut":
        save_file(tensors, path.with_suffix(".safetensors"))
        path = path.with_suffix(".safetensors")
        path.write_bytes(path.read_bytes()[:1000])
    else:
        return how
    return str(path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("code", "' has torch.nn.modules.linear.Linear, which torch loads only by running code of the file"),
        ("missing", "': 10 of 100 tensors of the encoder are missing: 'model.layer4.1.conv1.weight', "),
        (
            "wide",
            "have another shape: 'conv1.weight' is (8, 3, 3, 3), the encoder's (4, 3, 3, 3)\n",
        ),
        (
            "stem",
            "'conv1.weight' is (4, 3, 7, 7), the encoder's (4, 3, 3, 3); the file has another stem: set encoder.stem",
        ),
        ("two", "': the encoder fits under several prefixes: 'a.', 'b.'; keep only one in the file"),
        ("other", "': the file has no tensor of the encoder under any prefix; its tensors are 'x'"),
        ("cut", ".safetensors' is not a readable safetensors file: "),
        ("absent.pth", "no file 'absent.pth'; allowed is a .safetensors, .pth or .pt file, timm:TAG, or run:DIR@ARM@"),
        ("run:somewhere", "got 'run:somewhere'; write it as run:DIR@ARM@EPOCH"),
        ("run:somewhere@cl@1", "no snapshot 'somewhere/snapshots/cl/epoch_0001.safetensors' (the folder has no snap"),
        ("tagged", "encoder.name: got 'resnet18.a1_in1k' with encoder.weights; write resnet18"),
        ("timm:a9_in1k", "timm has no weights 'a9_in1k' of 'resnet18' (known: a1_in1k, "),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_line(
    how: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and no code from a file is executed."""
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.TINY_YAML + "arms: {cl: dcl}\n")
    weights = "timm:a1_in1k" if how == "tagged" else damaged(tmp_path, how)
    words = [str(config), "--run-dir", str(tmp_path / "run"), f"encoder.weights={weights}"]
    words += ["encoder.timm_options={}"]  # the weights are of a ResNet-18
    words += ["encoder.name=resnet18.a1_in1k"] if how == "tagged" else []
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (": encoder.name: " if how == "tagged" else ": encoder.weights: ") in said
    assert says in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"weights_digest": "0" * 64}, r"encoder\.weights_digest: got 0+ without encoder\.weights"),
        ({"weights": "x.pth", "freeze": [""]}, r"encoder\.freeze\.0: got ''"),
    ],
)
def test_invalid_keys_of_given_weights_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tiny.tiny_settings(encoder={**ENCODER, **changed})


def test_an_arm_with_unshared_initialisation_is_refused_with_given_weights(file: Path) -> None:
    with pytest.raises(ValueError, match=r"arms\.cl\.unshared: got init with encoder\.weights"):
        tiny.tiny_settings(
            encoder={**ENCODER, "weights": str(file)}, arms={"cl": {"objective": "dcl", "unshared": ["init"]}}
        )


def test_an_encoder_name_with_a_pretrained_tag_is_refused_with_the_fix() -> None:
    """It would train from random weights under a name that claims otherwise."""
    for name, way in (("resnet18.a1_in1k", "write resnet18, and encoder.weights=timm:a1_in1k to start from"),):
        with pytest.raises(ValueError, match=way):
            build_network(encoder=name)


def cache(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """The Hugging Face cache as a download leaves it, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if tensors:
        snapshot = folder / f"models--timm--{name}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
        save_file(tensors, snapshot / "model.safetensors")


def test_timm_weights_are_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's files contain a classifier of 1000 classes."""
    model = timm.create_model("test_resnet", num_classes=1000)
    cache(monkeypatch, tmp_path / "hub", "test_resnet.r160_in1k", model.state_dict())
    settings = {"encoder": {**TIMM, "weights": "timm:r160_in1k"}, "epochs": 0, "arms": {"cl": "dcl"}}
    tiny.train(tmp_path / "run", **settings)
    start = tiny.tensors(tmp_path / "run", "cl", 0)
    given = {name: each for name, each in model.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(start[f"encoder.{name}"], each) for name, each in given.items())
    assert len(json.loads((tmp_path / "run/run.json").read_text())["settings"]["encoder"]["weights_digest"]) == 64


def test_timm_weights_without_internet_access_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache(monkeypatch, tmp_path / "hub", "test_resnet.r160_in1k", {})
    tree = {**tiny.TINY, "encoder": {**TIMM, "weights": "timm:r160_in1k"}}
    says = r"^encoder\.weights: 'timm:r160_in1k' of 'test_resnet' is not in timm's cache and cannot be downloaded \("
    with pytest.raises(ValueError, match=says):
        resolve(tree)


def test_a_safetensors_file_is_accepted(tmp_path: Path) -> None:
    """In half precision here; a snapshot has float32."""
    tensors = {name: each.half() if each.is_floating_point() else each for name, each in encoder_tensors().items()}
    save_file({f"backbone.{name}": each for name, each in tensors.items()}, tmp_path / "w.safetensors")
    encoder = {**ENCODER, "weights": str(tmp_path / "w.safetensors")}
    tiny.train(tmp_path / "run", encoder=encoder, epochs=0, arms={"cl": "dcl"})
    start = load_file(tmp_path / "run/snapshots/cl/epoch_0000.safetensors")
    assert all(torch.equal(start[f"encoder.{name}"], each.float()) for name, each in tensors.items() if each.dim())


def test_a_perturbation_moves_a_trainable_weight() -> None:
    """Otherwise the twin of a run with a frozen stem would differ in a frozen tensor."""
    network = build_network(encoder="resnet18", width_multiplier=0.0625, image_size=8)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    freeze(network.encoder, ["conv1.weight"])
    perturb(network, 1, torch.float32)
    moved = [name for name, each in network.state_dict().items() if not torch.equal(each, before[name])]
    assert moved == ["encoder.layer1.0.conv1.weight"]
