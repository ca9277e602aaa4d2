"""The representations of one arm, all in memory on the CPU, for metrics that need them at once.

Shape letters: N selected images, B images of a batch, V views, D width of an output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import BATCH, Embedder, network_outputs
from coupled.analysis.representations.layers import OUTPUTS
from coupled.config.schema import Settings
from coupled.datasets import AnyImageDataset
from coupled.metrics.arm import Labelled
from coupled.models.network import Network
from coupled.stream.batches import batches
from coupled.stream.view_plan import EpochPlan, view_plan

UNTRAINED_EPOCH = 0  # training starts at epoch 1, so the views of epoch 0 are never trained on


def clean_features(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> dict[str, Labelled]:
    """Return representations [N, D] of clean views of the chosen images by layer; see `Embedder.outputs`."""
    layers = embedder.outputs_there
    batches = list(embedder.outputs(images, chosen_N, [arm], epoch, layers))
    return {
        layer: Labelled(torch.cat([batch[arm, layer].cpu() for batch in batches]), images.labels_N[chosen_N])
        for layer in layers
    }


def features_of(
    network: Network, settings: Settings, images: AnyImageDataset, chosen_N: Tensor, layers: Sequence[str]
) -> dict[str, Labelled]:
    """Return representations [N, D] as `clean_features`, by a network in evaluation mode that is no snapshot."""
    batches = [batch[""] for batch in network_outputs({"": network}, settings, images, chosen_N, layers)]
    return {
        layer: Labelled(torch.cat([batch[layer].cpu() for batch in batches]), images.labels_N[chosen_N])
        for layer in layers
    }


def view_features(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> dict[str, Tensor]:
    """Return representations [V, N, D] of augmented views of the chosen images by layer, in evaluation mode.

    The views are drawn with the run's augmentation and seed, for an epoch number that is never trained on. They are the
    same for every arm and epoch. Raises ValueError if the snapshot does not fit the network.
    """
    parts = list(_outputs(embedder, images, chosen_N, arm, epoch))
    return {layer: torch.cat([part[OUTPUTS[layer]].cpu() for part in parts], dim=1) for layer in embedder.outputs_there}


def plan_of(settings: Settings, images: AnyImageDataset, epoch: int = UNTRAINED_EPOCH) -> EpochPlan:
    """Return the plan of views of an epoch, by default one that no arm is trained on.

    The recipe is the run's augmentation without MixUp and CutMix.
    """
    augmentation = replace(settings.augmentation.plain().unmixed(), local_views=0)  # metrics use global views only
    return view_plan(settings.seed, epoch, len(images), augmentation)


def view_batches(
    settings: Settings, images: AnyImageDataset, chosen_N: Tensor, device: torch.device, epoch: int = UNTRAINED_EPOCH
) -> Iterator[Tensor]:
    """Yield the augmented views [V, B, 3, S, S] of the chosen images in an epoch, batch by batch."""
    plan = plan_of(settings, images, epoch)
    whole_N, rest_N = chosen_N.tensor_split([len(chosen_N) // BATCH * BATCH])
    # two calls instead of one per batch, because each call copies the dataset to the device or starts the workers
    for order_KB in (whole_N.view(-1, BATCH), rest_N.view(-1, max(1, len(rest_N)))):
        for batch in batches(
            images,
            order_KB.numpy(),
            plan,
            epoch=epoch,
            size=settings.image_size,
            device=device,
            workers=settings.dataset.num_workers,
        ):
            yield batch.views_VB3SS


@torch.no_grad()
def _outputs(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> Iterator[dict[str, Tensor]]:
    network = embedder.network(arm, epoch)
    for views_VB3SS in view_batches(embedder.settings, images, chosen_N, embedder.device):
        yield network(views_VB3SS)
