"""Embeddings and projections of the same images by snapshots of several arms, in one pass over the images.

Clean views (no augmentation), networks in evaluation mode, no gradients.

Shape letters: N selected images, B images of a batch, D width of an output.
"""

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coupled.analysis.against import own_name, run_of
from coupled.analysis.driver import skipping
from coupled.analysis.representations.cache import EmbeddingCache
from coupled.analysis.representations.layers import OUTPUTS, find_layers, layer_outputs
from coupled.analysis.run import DIGITS, Run
from coupled.config.registry import load_dataset
from coupled.config.schema import Settings
from coupled.datasets import AnyImageDataset
from coupled.models.network import Network, build_network, shared_tensors
from coupled.monitoring.terminal import say
from coupled.storage.dataset_record import ACCEPT, changed_files
from coupled.storage.run_description import has_projector
from coupled.storage.snapshots import BadSnapshotError
from coupled.stream.clean import BATCH, choose_images, clean_batches

DEVICES = ("auto", "cpu", "cuda")


def load_images(
    settings: Settings, split: str, digests: Mapping[str, Any], run: Path | None = None, accept: bool = False
) -> AnyImageDataset:
    """Load a split of the run's dataset; `digests` is `dataset` of run.json, `run` the folder of the run.

    Raises ValueError, which names the changed files, if the images are not those of the training. With `accept`,
    changed images of the same classes are used with a warning. Every row of a table has the digest of its images.
    """
    images = load_dataset(settings.dataset.model_dump(), split, settings.seed)
    expected, found, names = digests.get(f"{split}_digest"), images.digest(), list(images.class_names)
    if found == expected:
        return images
    what = (
        f"dataset: the {split} split of '{images.name}' is not the one of the run: expected digest {expected},"
        f" found {found}" + (f"; {changed_files(run, digests, {split: images})}" if run else "")
    )
    if names != digests.get("classes", names):
        raise ValueError(f"{what}; its classes differ as well; restore the original images")
    if not accept:
        raise ValueError(f"{what}; restore the original images, or measure the changed ones: {ACCEPT}")
    if os.environ.get("RANK", "0") == "0":
        say(f"warning: {what}; the images are measured as they are", sys.stderr)
    return images


class Sample(NamedTuple):
    """The images of a split, the indices of the selected ones, and the digest of all images as in the tables."""

    images: AnyImageDataset
    chosen_N: Tensor
    digest: str


def load_sample(run: Run, split: str, num_images: int | None, accept_changed_images: bool) -> Sample:
    """At most `num_images` images of a split, always the same ones. Raises ValueError as `load_images` does."""
    images = run.images(split, accept_changed_images)
    return Sample(images, choose_images(len(images), num_images, run.settings.seed, split), images.digest()[:DIGITS])


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. Raises ValueError for CUDA without a GPU."""
    if name not in DEVICES:
        raise ValueError(f"device: got '{name}'; allowed are {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch sees no CUDA device; allowed here: cpu, auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Embedder:
    """The networks of the arms of a run. Each is built once; weights are read on demand for an epoch."""

    def __init__(self, run: Run, device: torch.device, cache: EmbeddingCache | None = None) -> None:
        self.run, self.settings, self.device, self.cache = run, run.settings, device, cache
        self.networks: dict[str, Network] = {}
        self.epochs: dict[str, int] = {}

    def network(self, arm: str, epoch: int) -> Network:
        """Return the network of `arm` after `epoch`, in evaluation mode. Raises ValueError for a bad snapshot."""
        if arm not in self.networks:
            self.networks[arm] = network_of(run_of(self.run, arm), own_name(arm)).to(self.device).eval()
        if self.epochs.get(arm) != epoch:
            load_weights(self.networks[arm], self.run.state_dict(arm, epoch), str(self.run.snapshots.path(arm, epoch)))
            self.epochs[arm] = epoch
        return self.networks[arm]

    def layers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the layers of `names` and their widths, the largest of all arms.

        Raises ValueError, which lists the layers of the network.
        """
        projectors = {str(self.settings.projector_of(arm)): arm for arm in self.settings.arms}
        networks = [network_of(self.run, arm).to(self.device).eval() for arm in projectors.values()]
        found = [find_layers(network, names, self.settings.image_size) for network in networks]
        return {layer: max(widths[layer] for widths in found) for layer in found[0]}

    @property
    def outputs_there(self) -> tuple[str, ...]:
        """`h` and `z`; only `h` for a run that was imported without a projector."""
        return tuple(OUTPUTS) if has_projector(self.run.description) else ("h",)

    def readable(self, arms: Iterable[str], epoch: int, skip_corrupt: bool) -> list[str]:
        """Return the arms whose snapshot of `epoch` can be read. Without `skip_corrupt` a bad snapshot is an error."""
        good = []
        for arm in arms:
            with skipping(skip_corrupt):
                self.network(arm, epoch)
                good.append(arm)
        return good

    def outputs(
        self,
        images: AnyImageDataset,
        chosen_N: Tensor,
        arms: Sequence[str],
        epoch: int,
        layers: Collection[str] = tuple(OUTPUTS),
    ) -> Iterator[dict[tuple[str, str], Tensor]]:
        """Yield the outputs [B, D] of the chosen images by (arm, layer), batch by batch; see `layers.py` for layers.

        An arm whose `layers` are all in the cache is not computed. Computed outputs are cached after the last batch.
        Raises ValueError if a snapshot is damaged or does not fit the network.
        """
        ends = [(arm, layer) for arm in arms for layer in layers]
        held: dict[tuple[str, str], Tensor] = {}
        if self.cache:
            sources = {end: self._sources(images, chosen_N, epoch, *end) for end in ends}
            found = {end: self.cache.get(sources[end]) for end in ends}
            held = {end: rows_ND.to(self.device) for end, rows_ND in found.items() if rows_ND is not None}
        missing = [arm for arm in arms if any((arm, layer) not in held for layer in layers)]
        computed: dict[tuple[str, str], list[Tensor]] = {(arm, layer): [] for arm in missing for layer in layers}
        first = 0
        for batch in self._computed(images, chosen_N, missing, epoch, layers):
            size = min(BATCH, len(chosen_N) - first)
            for end, parts in computed.items():
                if self.cache:
                    parts.append(batch[end].cpu())
            yield {end: batch[end] if end in batch else held[end][first : first + size] for end in ends}
            first += size
        for end, parts in computed.items():
            if self.cache:
                self.cache.put(sources[end], torch.cat(parts))

    def _sources(self, images: AnyImageDataset, chosen_N: Tensor, epoch: int, arm: str, layer: str) -> list[Any]:
        """Return everything that the rows of a layer depend on."""
        of_run = run_of(self.run, arm).settings
        settings = [of_run.encoder.model_dump(), of_run.projector_of(own_name(arm)).model_dump()]
        colours = [images.mean, images.std]
        chosen = hashlib.blake2b(chosen_N.numpy().tobytes(), digest_size=16).hexdigest()
        how = [self.device.type, torch.__version__, BATCH]
        return [self.run.snapshots.entry(arm, epoch).digest, images.digest(), colours, chosen, layer, settings, how]

    @torch.no_grad()
    def _computed(
        self, images: AnyImageDataset, chosen_N: Tensor, arms: Sequence[str], epoch: int, layers: Collection[str]
    ) -> Iterator[dict[tuple[str, str], Tensor]]:
        """Yield the outputs of `arms` batch by batch. Without arms no image is read and the batches are empty."""
        if not arms:
            yield from ({} for _ in chosen_N.split(BATCH))
            return
        networks = {arm: self.network(arm, epoch) for arm in arms}
        for found in network_outputs(networks, self.settings, images, chosen_N, layers):
            yield {(arm, layer): rows_BD for arm, rows in found.items() for layer, rows_BD in rows.items()}


@torch.no_grad()
def network_outputs(
    networks: Mapping[str, Network],
    settings: Settings,
    images: AnyImageDataset,
    chosen_N: Tensor,
    layers: Collection[str],
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Yield the outputs [B, D] of the chosen images by network and layer, batch by batch.

    The networks are on one device, in evaluation mode.
    """
    device = next(next(iter(networks.values())).parameters()).device
    for views_B3SS in clean_batches(images, chosen_N, settings.image_size, device, settings.dataset.num_workers):
        yield {name: layer_outputs(network, views_B3SS[None], layers) for name, network in networks.items()}


def untrained_network(settings: Settings, arm: str | None = None) -> Network:
    """Return the encoder and projector that the settings of a run describe, before training; see `network_options`."""
    return build_network(**settings.network_options(arm), seed=settings.seed)


def network_of(run: Run, arm: str) -> Network:
    """Return an untrained network for the snapshots of an arm; without a projector if it was imported without one."""
    network = untrained_network(run.settings, arm)
    if has_projector(run.description):
        return network
    return Network(network.encoder, nn.Sequential(), {}, {}, needs=("embedding",))


def check_projector(run: Run) -> None:
    """Raise ValueError unless the snapshots of the run have a projector."""
    if not has_projector(run.description):
        raise ValueError(f"--run-dir: '{run.path}' was imported without a projector; this program needs projections")


def load_weights(network: Network, tensors: Mapping[str, Tensor], path: str) -> None:
    """Load encoder and projector of a snapshot into `network`. Raises BadSnapshotError if one does not fit."""
    expected = shared_tensors(network)
    found = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in ("encoder", "projector")}
    for name in sorted(expected.keys() ^ found.keys()):
        where = "is missing" if name in expected else "is not in the network that run.json describes"
        raise BadSnapshotError(f"{path}: tensor '{name}' {where}")
    for name, tensor in found.items():
        if kind(expected[name]) != kind(tensor):
            raise BadSnapshotError(f"{path}: tensor '{name}': expected {kind(expected[name])}, found {kind(tensor)}")
    network.load_state_dict(found)


def kind(tensor: Tensor) -> str:
    """Return shape and type of a tensor as stored in a snapshot, where every float is a float32."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return f"{tuple(tensor.shape)} {str(dtype).removeprefix('torch.')}"
