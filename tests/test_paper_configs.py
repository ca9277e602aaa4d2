"""configs/paper: every file follows the protocol, its networks can be built, its header has the computed cost.

Networks are built on torch's meta device, so nothing is drawn or computed, and no dataset is needed.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support import tiny
from torch import Tensor, nn

from coupled.config.load import load_settings
from coupled.config.registry import find_objective
from coupled.config.safe_yaml import read_yaml
from coupled.config.schema import from_resolved
from coupled.models.network import Network, build_network, copy_with_heads, network_size
from coupled.storage.checkpoints import KEEP_NEWEST
from coupled.storage.snapshots import snapshot_epochs
from coupled.sweep.points import points, read_sweep

FOLDER = tiny.REPOSITORY / "configs/paper"
FILES = sorted(FOLDER.glob("*.yaml"))
SWEEPS = [path for path in FILES if "base" in read_yaml(path)]
RUNS = [path for path in FILES if path not in SWEEPS]
RATE = 50e12  # floating-point operations per second that the headers assume
STATES = 3 * (
    KEEP_NEWEST + 1
)  # weights and up to two moments; a new checkpoint is written before the oldest is deleted


class Images(NamedTuple):
    """Properties of a dataset that the cost depends on."""

    train: int
    classes: int


IMAGES = {
    "cifar10": Images(50_000, 10),
    "cifar100": Images(50_000, 100),
    "mini_imagenet": Images(50_000, 100),
    "tiny_imagenet": Images(100_000, 200),
    "imagenet": Images(1_281_167, 1000),
}
PROTOCOL = {  # facts: section 4; batch, temperature, epochs, projection, pixels, stem, preset
    "cifar10": (1024, 0.5, 1200, 64, 32, "cifar", "cifar"),
    "cifar10_vit": (1024, 0.5, 1200, 64, 32, "cifar", "cifar"),
    "cifar100": (1024, 0.1, 1200, 128, 32, "cifar", "cifar"),
    "mini_imagenet": (1024, 0.1, 1200, 128, 84, "imagenet", "imagenet"),
    "tiny_imagenet": (1024, 0.1, 1200, 128, 64, "cifar", "cifar"),
    "imagenet": (1024, 0.1, 300, 128, 224, "imagenet", "imagenet"),
}
OPTIMIZER = {
    "name": "lars",
    "base_lr": 0.3,
    "lr_scaling": "linear",
    "momentum": 0.9,
    "betas": None,
    "weight_decay": 1e-6,
    "warmup_epochs": 10.0,
    "schedule": "cosine",
    "clip_grad_norm": 1.0,
}


@cache
def shared(options: tuple[tuple[str, Any], ...]) -> Network:
    with torch.device("meta"):
        return build_network(**dict(options))


def shared_by(settings: dict[str, Any]) -> Network:
    """The network that the arms share."""
    return shared(tuple(from_resolved(settings).network_options().items()))


@cache
def forward_operations(network: Network, image_size: int) -> float:
    """Floating-point operations of one view in convolutions, linear layers and the two products of attention."""
    counted = 0

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Conv2d | nn.Linear):
            counted += 2 * output.numel() * layer.weight[0].numel()
        else:  # timm's attention with N tokens of width D: N x N x D for each product
            counted += 2 * 2 * output.shape[1] * output.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) or type(m).__name__ == "Attention"]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    network(torch.zeros(2, 2, 3, image_size, image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return counted / 4


def cost(settings: dict[str, Any]) -> tuple[float, float]:
    """Operations of a run and its bytes on disk: forward and backward (twice the forward) of both views and all arms.

    The classifier of CE is not counted: below 0.01 % of the operations and 0.5 % of the bytes.
    """
    whole = IMAGES[settings["dataset"]["name"]]
    classes = settings["dataset"].get("classes") or whole.classes
    batch, epochs = settings["batch"]["size"], settings["epochs"]
    steps = whole.train * classes // whole.classes // batch
    assert steps >= 1, f"{classes} classes hold no batch of {batch}"
    network, arms = shared_by(settings), len(settings["arms"])
    views = 2 * batch * steps * epochs
    kept = snapshot_epochs(epochs, settings["snapshots"]["every_epochs"], settings["snapshots"]["dense_until_epoch"])
    operations = forward_operations(network, settings["dataset"]["image_size"])
    return 3 * views * arms * operations, arms * network_size(network)[1] * (len(kept) + STATES)


def settings_of(path: Path) -> list[dict[str, Any]]:
    """The settings of the run, or of each point of a sweep."""
    if path in SWEEPS:
        return [point.settings for point in points(read_sweep(path))]
    return [load_settings(path).resolved()]


def header(path: Path) -> str:
    """The comment at the top of a file, in one line."""
    return " ".join(path.read_text(encoding="utf-8").split("\n\n")[0].replace("#", "").split())


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_config_follows_the_protocol(path: Path) -> None:
    """Results can be compared with published ones only under the published settings."""
    (settings,) = settings_of(path)
    batch, temperature, epochs, out, pixels, stem, preset = PROTOCOL[path.stem]
    assert settings["name"] == path.stem
    assert settings["batch"]["size"] == batch
    assert (settings["temperature"], settings["epochs"]) == (temperature, epochs)
    assert settings["projector"] == {"hidden_dim": 2048, "output_dim": out}
    vit = path.stem == "cifar10_vit"
    encoder = {"name": "vit_tiny_patch16_224" if vit else "resnet50", "width_multiplier": 1.0, "stem": stem}
    assert settings["dataset"]["image_size"] == pixels
    assert settings["encoder"] == {**encoder, "zero_init_last": False}
    assert settings["augmentation"]["preset"] == preset
    assert (settings["augmentation"]["crop_scale"], settings["augmentation"]["hflip_prob"]) == ([0.08, 1.0], 0.5)
    assert settings["optimizer"] == OPTIMIZER
    objectives = {arm: options["objective"] for arm, options in settings["arms"].items()}
    assert objectives == {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
    assert not any(options.get("positive_in_denominator") for options in settings["arms"].values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_cost_in_the_header_is_the_computed_cost(path: Path) -> None:
    """Command, operations, hours at the assumed rate, and bytes, computed from the networks of every point."""
    said = header(path)
    program = "scripts/sweep.py" if path in SWEEPS else "coupled/train.py --config"
    assert f"{program} configs/paper/{path.name}" in said
    costs = [cost(settings) for settings in settings_of(path)]
    operations, bytes_ = (sum(each) for each in zip(*costs, strict=True))
    assert f"{operations:.1e} floating-point operations" in said
    assert f"{operations / RATE / 3600:.0f} hours" in said.replace(",", "")
    assert "not measured" in said
    assert f"{bytes_ / 1e9:.0f} GB" in said.replace(",", "")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_networks_of_a_config_can_be_built(path: Path) -> None:
    """With the heads of each objective, as the coordinator builds them. The outputs are those the objective needs."""
    (settings,) = settings_of(path)
    first, size = shared_by(settings), settings["dataset"]["image_size"]
    for arm, options in settings["arms"].items():
        given = {key: value for key, value in options.items() if key != "objective"}
        needs = find_objective(arm, options["objective"], given, settings["temperature"]).needs
        with torch.device("meta"):
            network = copy_with_heads(first, needs, IMAGES[settings["dataset"]["name"]].classes, seed=0)
        outputs = network(torch.zeros(2, 2, 3, size, size, device="meta"))
        assert set(needs.outputs) <= set(outputs) <= {*needs.outputs, "projection"}  # logged by a run
        widths = {
            "projection": settings["projector"]["output_dim"],
            "logits": IMAGES[settings["dataset"]["name"]].classes,
        }
        assert {name: output.shape[-1] for name, output in outputs.items()} == {name: widths[name] for name in outputs}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_override_for_the_authors_denominator_works(path: Path) -> None:
    """It reproduces the published objectives and changes only these two arms."""
    overrides = re.findall(r"arms\.\w+\.positive_in_denominator=true", header(path))
    assert sorted(overrides) == [f"arms.{arm}.positive_in_denominator=true" for arm in ("cl", "nscl")]
    (plain,), changed = settings_of(path), load_settings(path, overrides).resolved()
    for arm in ("cl", "nscl"):
        assert changed["arms"][arm].pop("positive_in_denominator") is True
        del plain["arms"][arm]["positive_in_denominator"]
    assert changed == plain


def test_the_paper_sweeps_have_the_values_of_the_papers() -> None:
    """Facts, section 4, lists these values."""
    assert {path.stem for path in SWEEPS} == {
        "temperature",
        "batch_size",
        *(f"classes_{name}" for name in IMAGES),
    }
    swept = {path.stem: read_yaml(path)["grid"] for path in SWEEPS}
    assert swept["temperature"] == {"temperature": [0.1, 0.5, 1.0]}
    rules = ["linear", "sqrt", "fourth_root"]
    assert swept["batch_size"] == {"batch.size": [256, 512, 1024], "optimizer.lr_scaling": rules}
    counts = {name: swept[f"classes_{name}"]["dataset.classes"] for name in IMAGES}
    assert {2, 4, 6, 8} <= {*counts["cifar10"]}
    for name in ("cifar100", "mini_imagenet", "tiny_imagenet"):
        assert {2, 4, 6, 8, 10, 50} <= {*counts[name]}
    assert {5, 1000} <= {*counts["imagenet"]}
