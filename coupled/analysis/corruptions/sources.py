"""Corrupted test images: generated from the clean ones, or read from a folder as CIFAR-10-C or ImageNet-C.

Shape letters: N images of the test split, B images of a batch, S side of an image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.analysis.corruptions.constants import CORRUPTIONS, SEVERITIES, generated
from coupled.analysis.corruptions.generate import corrupted_batch
from coupled.analysis.representations.embeddings import Sample
from coupled.datasets import AnyImageDataset, ImageDataset, ImageFiles
from coupled.datasets._files import class_files, names_below
from coupled.stream.clean import BATCH, clean_pixels

OPTION = "corrupted_images"
LABELS = "labels.npy"


class Source(Protocol):
    """Corrupted copies of the images of the test split; those of severity 0 are clean."""

    @property
    def name(self) -> str:
        """The text in the tables."""

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The names of the corruptions."""

    def images(self, corruption: str, severity: int) -> AnyImageDataset:
        """Return the images that are read for a corruption; generated ones are made of the clean images."""

    def pixels(
        self, images: AnyImageDataset, corruption: str, severity: int, size: int, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield the corrupted copies of the chosen images, uint8 [B, 3, S, S] on the CPU."""


@dataclass(frozen=True)
class Generated:
    """Corrupted copies that are generated when they are needed."""

    clean: Sample
    seed: int
    workers: int | None
    name: str = "generated"
    corruptions: tuple[str, ...] = field(default_factory=generated)

    def images(self, corruption: str, severity: int) -> AnyImageDataset:
        """Return the clean images."""
        return self.clean.images

    def pixels(
        self, images: AnyImageDataset, corruption: str, severity: int, size: int, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield the corrupted copies of the chosen images."""
        batches = clean_pixels(images, self.clean.chosen_N, size, device, self.workers)
        for pixels_B3SS, chosen_B in zip(batches, self.clean.chosen_N.split(BATCH), strict=True):
            if severity:
                yield corrupted_batch(pixels_B3SS, chosen_B.tolist(), corruption, severity, self.seed)
            else:
                yield pixels_B3SS


@dataclass(frozen=True)
class Folder:
    """Corrupted copies in a folder: arrays of all severities, or folders of image files."""

    folder: Path
    paths: Mapping[str, Path]  # of each corruption
    clean: Sample
    workers: int | None

    @property
    def name(self) -> str:
        """The absolute path of the folder."""
        return str(self.folder.resolve())

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions of the paper that are in the folder, in the paper's order."""
        return tuple(self.paths)

    def images(self, corruption: str, severity: int) -> AnyImageDataset:
        """Return the images of a corruption. Raises ValueError if they are not those of the test split."""
        if not severity:
            return self.clean.images
        path = self.paths[corruption]
        if path.suffix == ".npy":
            return _of_array(path, severity, self.clean.images)
        return _of_files(path / str(severity), self.clean.images)

    def pixels(
        self, images: AnyImageDataset, corruption: str, severity: int, size: int, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield the chosen images."""
        return clean_pixels(images, self.clean.chosen_N, size, device, self.workers)


def find_source(folder: Path | None, clean: Sample, seed: int, workers: int | None) -> Source:
    """Return the images of a folder, or generated ones. Raises ValueError for a folder without corrupted images."""
    if folder is None:
        return Generated(clean, seed, workers)
    paths: dict[str, Path] = {}
    for name in CORRUPTIONS:
        folders = [folder / name, *sorted(folder.glob(f"*/{name}"))]
        places = [folder / f"{name}.npy", *(each for each in folders if (each / str(SEVERITIES[0])).is_dir())]
        if found := next((each for each in places if each.exists()), None):
            paths[name] = found
    if not paths:
        raise ValueError(
            f"{OPTION}: '{folder}' holds no corrupted images; expected <corruption>.npy and {LABELS} as in CIFAR-10-C,"
            " or <corruption>/<severity>/<class>/<image> as in ImageNet-C, with the corruptions "
            + ", ".join(CORRUPTIONS)
        )
    if any(path.suffix == ".npy" for path in paths.values()):
        _check_labels(folder / LABELS, clean.images.labels_N)
    return Folder(folder, paths, clean, workers)


def _array(path: Path) -> NDArray[np.uint8]:
    """Return the array of a file. Raises ValueError for another file."""
    try:
        found: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{OPTION}: {path}: not a file of numpy's format .npy ({error})") from None
    return found


def _check_labels(path: Path, labels_N: Tensor) -> None:
    """Raise ValueError unless the labels of a file are those of the test split, in its order."""
    if not path.is_file():
        raise ValueError(f"{OPTION}: no file '{path}', which CIFAR-10-C has beside the images")
    found = _array(path)
    if found.ndim != 1 or len(found) not in (len(labels_N), len(SEVERITIES) * len(labels_N)):
        raise ValueError(f"{OPTION}: {path}: shape {found.shape}; the test split of the run has {len(labels_N)} images")
    _check_same(torch.from_numpy(found[: len(labels_N)].astype(np.int64)), labels_N, path)


def _check_same(found_N: Tensor, labels_N: Tensor, path: Path) -> None:
    for place in (found_N != labels_N).nonzero().flatten().tolist()[:1]:
        raise ValueError(
            f"{OPTION}: {path}: image {place} has label {int(found_N[place])}, but test image {place} of the run has"
            f" label {int(labels_N[place])}; expected are the run's test images, in their order"
        )


def _of_array(path: Path, severity: int, clean: AnyImageDataset) -> ImageDataset:
    """Return the images of a severity in an array [5 N, S, S, 3], severity after severity."""
    found, count = _array(path), len(clean)
    if found.ndim != 4 or found.shape[-1] != 3 or found.dtype != np.uint8 or len(found) != len(SEVERITIES) * count:
        raise ValueError(
            f"{OPTION}: {path}: shape {found.shape} of {found.dtype}; expected ({len(SEVERITIES) * count}, S, S, 3) of"
            f" uint8, all severities of the {count} test images of the run"
        )
    pixels_NSS3 = torch.from_numpy(np.array(found[(severity - 1) * count : severity * count]))
    return ImageDataset(
        name=path.stem,
        split="test",
        images_N3HW=pixels_NSS3.permute(0, 3, 1, 2).contiguous(),
        labels_N=clean.labels_N,
        class_names=clean.class_names,
        mean=clean.mean,
        std=clean.std,
    )


def _of_files(folder: Path, clean: AnyImageDataset) -> ImageFiles:
    """Return the images below folder/<class>/, of the classes of the run, class after class."""
    try:
        files = {name: paths for name, paths in class_files(folder).items() if name in clean.class_names}
    except ValueError as error:
        raise ValueError(f"{OPTION}: {str(error).removeprefix('dataset.root: ')}") from None
    labels_N = torch.tensor([clean.class_names.index(name) for name, paths in files.items() for _ in paths])
    if len(labels_N) != len(clean):
        raise ValueError(
            f"{OPTION}: {folder}: {len(labels_N)} images of the run's classes; its test split has {len(clean)}"
        )
    _check_same(labels_N, clean.labels_N, folder)
    return ImageFiles(
        name=str(folder),
        split="test",
        root=folder,
        files_N=names_below(folder, files),
        labels_N=labels_N,
        class_names=clean.class_names,
        mean=clean.mean,
        std=clean.std,
    )
