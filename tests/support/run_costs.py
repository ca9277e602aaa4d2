"""The cost of a run from its settings: floating-point operations and bytes on the disk.

Networks are built on torch's meta device, so nothing is drawn or computed, and no dataset is needed.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from coupled.config.registry import find_objective
from coupled.config.schema import Settings
from coupled.models.network import Network, build_network, copy_with_heads, network_size
from coupled.objectives import Needs
from coupled.storage.checkpoints import KEEP_NEWEST
from coupled.storage.snapshots import snapshot_epochs

RATE = 160e12  # floating-point operations per second, measured under the conditions `MEASURED`
MEASURED = "measured with bfloat16 on one H200 (ResNet-18, 32 px, batch 1024, not compiled)"
# a checkpoint has weights and up to two moments; a new one is written before the oldest is deleted
SNAPSHOTS_OF_CHECKPOINTS = 3 * (KEEP_NEWEST + 1)


class Images(NamedTuple):
    """Properties of a dataset that the cost depends on."""

    train: int
    classes: int


IMAGES = {
    "cifar10": Images(50_000, 10),
    "cifar100": Images(50_000, 100),
    "digits": Images(1_438, 10),
    "fractals": Images(10_000, 100),
    "imagenet": Images(1_281_167, 1000),
    "mini_imagenet": Images(50_000, 100),
    "stl10": Images(5_000, 10),
    "svhn": Images(73_257, 10),
    "tiny_imagenet": Images(100_000, 200),
}
# images that a value of an option adds
ADDED = {"svhn": ("extra", True, 531_131), "stl10": ("train_part", "train+unlabeled", 100_000)}


class Cost(NamedTuple):
    """Floating-point operations of the training, and bytes of the snapshots and checkpoints."""

    operations: float
    disk: float


_NETWORKS: dict[str, Network] = {}
_NEEDS: dict[str, Needs] = {}
VIEWS = 2  # that a network is called with


def train_images(settings: Settings) -> int:
    """Return the number of train images that a run uses."""
    dataset = settings.dataset
    whole = IMAGES[dataset.name]
    option, value, added = ADDED.get(dataset.name, ("", "", 0))
    added *= dataset.options.get(option) == value
    chosen = dataset.options.get("classes") or whole.classes
    classes = chosen if isinstance(chosen, int) else len(chosen)
    return (whole.train + added) * classes // whole.classes


def networks(settings: Settings) -> Iterator[tuple[Needs, Network]]:
    """Yield needs and network of each arm, with its heads, on the meta device; equal arms share a network.

    A classifier has all classes of the dataset, even if the run draws some of them.
    """
    options, classes = settings.network_options(), IMAGES[settings.dataset.name].classes
    for name, arm in settings.arms.items():
        source = settings.arms[arm.twin] if arm.twin else arm
        asked = source.objective or "", source.options, settings.temperature
        if repr(asked) not in _NEEDS:
            _NEEDS[repr(asked)] = find_objective(name, *asked).needs
        needs = _NEEDS[repr(asked)]
        key = repr((options, needs, classes))
        if key not in _NETWORKS:
            shared = _shared(tuple(options.items()))
            with torch.device("meta"):
                _NETWORKS[key] = copy_with_heads(shared, needs, classes, seed=0)
        yield needs, _NETWORKS[key]


@cache
def _shared(options: tuple[tuple[str, Any], ...]) -> Network:
    with torch.device("meta"):
        return build_network(**dict(options))


def disk(settings: Settings, every_epochs: int | None = None) -> float:
    """Return the bytes of all snapshots and three checkpoints, for the run's interval of snapshots or another one."""
    kept = settings.snapshots
    epochs = snapshot_epochs(settings.epochs, every_epochs or kept.every_epochs, kept.dense_until_epoch)
    one = sum(_snapshot_bytes(network) for _, network in networks(settings))
    return one * (len(epochs) + SNAPSHOTS_OF_CHECKPOINTS)


@cache
def _snapshot_bytes(network: Network) -> int:
    return network_size(network)[1]


def run_cost(settings: Settings) -> Cost:
    """Return the cost of a run: forward and backward (twice the forward) of all views and arms.

    A target network has no backward pass. Local views are not counted.
    """
    images = train_images(settings)
    steps = images // settings.batch.size
    assert steps >= 1, f"{images} images hold no batch of {settings.batch.size}"
    views = settings.augmentation.views * settings.batch.size * steps * settings.epochs
    a_view = sum(_operations(network, settings.image_size) for _, network in networks(settings))
    return Cost(views * a_view, disk(settings))


@cache
def outputs(network: Network, image_size: int) -> dict[str, Tensor]:
    """Return the outputs of a network on the meta device for two views of one image.

    Batch norms are left out: they change no shape, and on this device torch computes shapes slowly, in Python.
    """
    with torch.no_grad(), mock.patch.object(nn.functional, "batch_norm", lambda x, *_, **__: x):
        return network.eval()(torch.zeros(VIEWS, 1, 3, image_size, image_size, device="meta"))


@cache
def _operations(network: Network, image_size: int) -> float:
    """Return the operations of one view in convolutions, linear layers and the two products of attention."""
    counted = 0.0

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Conv2d | nn.Linear):
            operations = 2 * output.numel() * layer.weight[0].numel()
        else:  # timm's attention with N tokens of width D: N x N x D for each product
            operations = 2 * 2 * output.shape[1] * output.numel()
        counted += operations if layer in of_target else 3 * operations

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) or type(m).__name__ == "Attention"]
    of_target = {*network.target.modules()} if network.target is not None else set()
    hooks = [layer.register_forward_hook(look) for layer in layers]
    outputs.__wrapped__(network, image_size)
    for hook in hooks:
        hook.remove()
    return counted / VIEWS


def hours(operations: float) -> str:
    """Return the time of these operations as a header states it."""
    time = operations / RATE / 3600
    return f"about {time:,.0f} hours" if time >= 1.5 else f"about {60 * time:.0f} minutes"


def gigabytes(disk: float) -> str:
    """Return bytes as a header states them."""
    return f"{disk / 1e9:,.0f} GB" if disk >= 1e9 else f"{disk / 1e6:.0f} MB"
