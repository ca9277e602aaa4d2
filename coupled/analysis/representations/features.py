"""The representations of one arm for metrics that need them all at once, on the CPU.

Shape letters: N images that are looked at, B of a batch, V views, D width of an output.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import BATCH, Embedder
from coupled.analysis.representations.layers import OUTPUTS
from coupled.config.schema import Settings
from coupled.datasets import AnyImageDataset
from coupled.metrics.arm import Labelled
from coupled.stream.batches import batches
from coupled.stream.view_plan import EpochPlan, view_plan

UNTRAINED_EPOCH = 0  # training starts at 1: the views of this epoch are like the trained ones, and none of them


def clean_features(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> dict[str, Labelled]:
    """The chosen images' representations [N, D] by layer "h" and "z", clean views; see `Embedder.outputs`."""
    layers = embedder.outputs_there
    batches = list(embedder.outputs(images, chosen_N, [arm], epoch, layers))
    return {
        layer: Labelled(torch.cat([batch[arm, layer].cpu() for batch in batches]), images.labels_N[chosen_N])
        for layer in layers
    }


def view_features(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> dict[str, Tensor]:
    """Representations of the augmented views of each chosen image [V, N, D] by layer, in evaluation mode.

    The views are drawn with the run's augmentation and seed, of an epoch that is never trained on: the same for every
    arm and epoch. Raises ValueError if the snapshot does not fit the network.
    """
    parts = list(_outputs(embedder, images, chosen_N, arm, epoch))
    return {layer: torch.cat([part[OUTPUTS[layer]].cpu() for part in parts], dim=1) for layer in embedder.outputs_there}


def plan_of(settings: Settings, images: AnyImageDataset) -> EpochPlan:
    """The plan of views that no arm is trained on, with the run's augmentation and seed."""
    augmentation = replace(settings.augmentation.plain(), local_views=0)  # measures look at whole views
    return view_plan(settings.seed, UNTRAINED_EPOCH, len(images), augmentation)


@torch.no_grad()
def _outputs(
    embedder: Embedder, images: AnyImageDataset, chosen_N: Tensor, arm: str, epoch: int
) -> Iterator[dict[str, Tensor]]:
    settings = embedder.settings
    plan = plan_of(settings, images)
    network = embedder.network(arm, epoch)
    whole_N, rest_N = chosen_N.tensor_split([len(chosen_N) // BATCH * BATCH])
    # two calls, not one a batch: each sends a set in memory to the device, or fills the pipeline of workers anew
    for order_KB in (whole_N.view(-1, BATCH), rest_N.view(-1, max(1, len(rest_N)))):
        for batch in batches(
            images,
            order_KB.numpy(),
            plan,
            epoch=UNTRAINED_EPOCH,
            size=settings.image_size,
            device=embedder.device,
            workers=settings.dataset.num_workers,
        ):
            yield network(batch.views_VB3SS)
