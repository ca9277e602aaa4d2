"""Snapshots of several arms -> their embeddings and projections of the same images, in one pass over the images.

Clean views (no augmentation), networks in evaluation mode, no gradients.

Shape letters: N images of the split, B images of a batch, D width of an output.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from coupled.by_name import find
from coupled.checked import check_options
from coupled.image_sets import ImageSet
from coupled.network import Network, build_network, shared_tensors
from coupled.settings import Settings
from coupled.snapshots import SnapshotStore
from coupled.stream.augment import clean_views
from coupled.stream.seeds import permutation, philox

OUTPUTS = {"h": "embedding", "z": "projection"}  # layer on the command line and in CSVs -> output of a network
BATCH = 256  # images a forward; changes speed and memory, not the results beyond rounding


def load_images(settings: Settings, split: str, digests: Mapping[str, Any]) -> ImageSet:
    """The split of the run's image set; `digests` is `image_set` of run.json.

    Raises ValueError if the images are not those that the run was made with.
    """
    load = find("coupled.image_sets", settings.image_set.name).load
    images: ImageSet = load(split, **check_options(load, settings.image_set.options, "image_set"))
    expected, found = digests.get(f"{split}_digest"), images.digest()
    if found != expected:
        raise ValueError(
            f"image_set: the {split} split of '{images.name}' is not the one of the run:"
            f" its digest should be {expected}, found {found}"
        )
    return images


def choose_images(images: int, samples: int | None, seed: int, split: str) -> Tensor:
    """Numbers of the images to use, ascending [min(samples, images)]; all of them if `samples` is None.

    A subset depends on nothing but its arguments, and a smaller one lies within a larger one.
    """
    order_N = permutation(images, philox(seed, f"analysis/{split}"))
    return torch.from_numpy(order_N[:samples]).sort().values


class Embedder:
    """The networks of some arms, built once; `load` gives them the weights of an epoch."""

    def __init__(self, settings: Settings, store: SnapshotStore, arms: Sequence[str], device: torch.device) -> None:
        self.store, self.device, self.size = store, device, settings.encoder.image_size
        self.networks: dict[str, Network] = {}
        for arm in arms:
            network = build_network(
                encoder=settings.encoder.name,
                width=settings.encoder.width,
                stem=settings.encoder.stem,
                image_size=settings.encoder.image_size,
                projector_hidden=settings.projector.hidden,
                projector_out=settings.projector.out,
                seed=settings.seed,
            )
            self.networks[arm] = network.to(device).eval()

    def load(self, epoch: int) -> None:
        """Give every network its arm's weights after `epoch`. Raises ValueError if names or shapes differ."""
        for arm, network in self.networks.items():
            expected = shared_tensors(network)
            found = {name: tensor for name, tensor in self.store.read(arm, epoch).items() if _is_shared(name)}
            for name in sorted(expected.keys() ^ found.keys()):
                where = "is missing" if name in expected else "is not in the network that run.json describes"
                raise ValueError(f"{self.store.path(arm, epoch)}: tensor '{name}' {where}")
            for name, tensor in found.items():
                if tensor.shape != expected[name].shape:
                    raise ValueError(
                        f"{self.store.path(arm, epoch)}: tensor '{name}' should have shape"
                        f" {tuple(expected[name].shape)}, found {tuple(tensor.shape)}"
                    )
            network.load_state_dict(found)

    @torch.no_grad()
    def outputs(self, images: ImageSet, chosen_N: Tensor) -> Iterator[dict[tuple[str, str], Tensor]]:
        """Batch by batch, the float32 outputs [B, D] of the chosen images by (arm, layer), layer "h" or "z"."""
        for chosen_B in chosen_N.split(BATCH):
            pixels_B3HW = images.images_N3HW[chosen_B].to(self.device)
            views_1B3SS = clean_views(pixels_B3HW, self.size, images.mean, images.std)[None]
            batch = {}
            for arm, network in self.networks.items():
                outputs = network(views_1B3SS)
                batch.update({(arm, layer): outputs[name][0] for layer, name in OUTPUTS.items()})
            yield batch


def _is_shared(name: str) -> bool:
    return name.split(".")[0] in ("encoder", "projector")
