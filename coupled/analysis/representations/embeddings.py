"""Snapshots of several arms -> their embeddings and projections of the same images, in one pass over the images.

Clean views (no augmentation), networks in evaluation mode, no gradients.

Shape letters: N images that are looked at, B of a batch, D width of an output.
"""

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coupled.analysis.against import run_of
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
    """The split of the run's dataset; `digests` is `dataset` of run.json, and `run` the folder it lies in.

    Raises ValueError, which names the files, if the images are not those that the run was made with. Those of the same
    classes may be accepted as they are, which is said; every table has the digest of the images its rows come from.
    """
    images = load_dataset(settings.dataset.model_dump(), split, settings.seed)
    expected, found, names = digests.get(f"{split}_digest"), images.digest(), list(images.class_names)
    if found == expected:
        return images
    what = (
        f"dataset: the {split} split of '{images.name}' is not the one of the run: its digest should be {expected},"
        f" found {found}" + (f"; {changed_files(run, digests, {split: images})}" if run else "")
    )
    if names != digests.get("classes", names):
        raise ValueError(f"{what}; its classes are others, too: put the images back")
    if not accept:
        raise ValueError(f"{what}; put the images back, or measure those that are there: {ACCEPT}")
    if os.environ.get("RANK", "0") == "0":
        say(f"warning: {what}; the images are measured as they are", sys.stderr)
    return images


class Sample(NamedTuple):
    """The images of a split, the numbers of those to look at, and the digest of all images as tables hold it."""

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
    """The networks of the arms of a run, each built once; weights are read when an epoch is asked for."""

    def __init__(self, run: Run, device: torch.device, cache: EmbeddingCache | None = None) -> None:
        self.run, self.settings, self.device, self.cache = run, run.settings, device, cache
        self.networks: dict[str, Network] = {}
        self.epochs: dict[str, int] = {}

    def network(self, arm: str, epoch: int) -> Network:
        """The network of `arm` after `epoch`, in evaluation mode. Raises ValueError if the snapshot does not fit it."""
        if arm not in self.networks:
            self.networks[arm] = self._build(run_of(self.run, arm))
        if self.epochs.get(arm) != epoch:
            load_weights(self.networks[arm], self.run.state_dict(arm, epoch), str(self.run.snapshots.path(arm, epoch)))
            self.epochs[arm] = epoch
        return self.networks[arm]

    def layers(self, names: Iterable[str]) -> dict[str, int]:
        """The layers that `names` mean, and their widths. Raises ValueError that lists those there are."""
        return find_layers(self._build(self.run), names, self.settings.image_size)

    @property
    def outputs_there(self) -> tuple[str, ...]:
        """`h` and `z`, or `h` alone of a run that was imported without a projector."""
        return tuple(OUTPUTS) if has_projector(self.run.description) else ("h",)

    def _build(self, run: Run) -> Network:
        return network_of(run).to(self.device).eval()

    def readable(self, arms: Iterable[str], epoch: int, skip_corrupt: bool) -> list[str]:
        """Those of `arms` whose snapshot of `epoch` can be read: all, or with `skip_corrupt` the others are said."""
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
        """Batch by batch, the outputs [B, D] of the chosen images by (arm, layer); see `layers.py` for their names.

        An arm of which the cache has all `layers` is not computed; what is computed is cached after the last batch.
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
        """All that the rows of a layer depend on."""
        of_arm = run_of(self.run, arm).settings
        settings = [of_arm.encoder.model_dump(), of_arm.projector.model_dump()]
        colours = [images.mean, images.std]
        chosen = hashlib.blake2b(chosen_N.numpy().tobytes(), digest_size=16).hexdigest()
        how = [self.device.type, torch.__version__, BATCH]
        return [self.run.snapshots.entry(arm, epoch).digest, images.digest(), colours, chosen, layer, settings, how]

    @torch.no_grad()
    def _computed(
        self, images: AnyImageDataset, chosen_N: Tensor, arms: Sequence[str], epoch: int, layers: Collection[str]
    ) -> Iterator[dict[tuple[str, str], Tensor]]:
        """The outputs of `arms` batch by batch; without arms nothing is read, and the batches are empty."""
        if not arms:
            yield from ({} for _ in chosen_N.split(BATCH))
            return
        networks = {arm: self.network(arm, epoch) for arm in arms}
        size, workers = self.settings.image_size, self.settings.dataset.num_workers
        for views_B3SS in clean_batches(images, chosen_N, size, self.device, workers):
            batch = {}
            for arm, network in networks.items():
                found = layer_outputs(network, views_B3SS[None], layers)
                batch.update({(arm, layer): rows_BD for layer, rows_BD in found.items()})
            yield batch


def untrained_network(settings: Settings) -> Network:
    """The encoder and projector that the settings of a run describe, as they were before training."""
    return build_network(**settings.network_options(), seed=settings.seed)


def network_of(run: Run) -> Network:
    """The network that the snapshots of a run fit, untrained; without a projector if it was imported without one."""
    network = untrained_network(run.settings)
    if has_projector(run.description):
        return network
    return Network(network.encoder, nn.Sequential(), {}, {}, needs=("embedding",))


def check_projector(run: Run) -> None:
    """Raise ValueError unless the snapshots of the run have a projector."""
    if not has_projector(run.description):
        raise ValueError(f"--run-dir: '{run.path}' was imported without a projector, and this needs projections")


def load_weights(network: Network, tensors: Mapping[str, Tensor], path: str) -> None:
    """Give `network` the encoder and projector of a snapshot. Raises BadSnapshotError if one does not fit."""
    expected = shared_tensors(network)
    found = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in ("encoder", "projector")}
    for name in sorted(expected.keys() ^ found.keys()):
        where = "is missing" if name in expected else "is not in the network that run.json describes"
        raise BadSnapshotError(f"{path}: tensor '{name}' {where}")
    for name, tensor in found.items():
        if kind(expected[name]) != kind(tensor):
            raise BadSnapshotError(f"{path}: tensor '{name}' should be {kind(expected[name])}, found {kind(tensor)}")
    network.load_state_dict(found)


def kind(tensor: Tensor) -> str:
    """Shape and type of a tensor as a snapshot keeps it: every float is a float32."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return f"{tuple(tensor.shape)} {str(dtype).removeprefix('torch.')}"
