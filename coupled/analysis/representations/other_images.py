"""Images that a run was not trained on, normalised like its own: another dataset, or a folder of images."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from coupled.analysis.driver import tracked
from coupled.analysis.representations.embeddings import BATCH, Embedder, Sample, choose_images
from coupled.analysis.run import DIGITS, Run
from coupled.analysis.selection import choices
from coupled.config.by_name import known
from coupled.config.registry import load_dataset
from coupled.config.user_code import import_code, is_reference, of_callable
from coupled.datasets import SPLITS, AnyImageDataset, Colour, ImageFiles
from coupled.datasets._files import images as image_paths
from coupled.datasets._files import passed_over
from coupled.monitoring.terminal import say

NO_LABEL = -1
PART = 16 * BATCH  # images between two lines of progress
ALSO_TEST = ("val", "validation")  # names of a folder of test images, where there is no `test`


def normalisation(run: Run) -> tuple[Colour, Colour]:
    """Return mean and std with which the run's images were normalised, from run.json.

    If run.json has none, they are measured on the train images of the run, whose digest is checked.
    """
    about = run.description["dataset"]
    if about.get("mean") and about.get("std"):
        (*mean,), (*std,) = about["mean"], about["std"]
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    images = run.images("train")
    return images.mean, images.std


def other_dataset(run: Run, name: str, root: Path | None, split: str, option: str) -> AnyImageDataset:
    """Load a split of the dataset `name`, or of the folder of images at that path, at the run's image size.

    Raises ValueError, which begins with the name of the option, if there is no such dataset.
    """
    section: dict[str, Any] = {"name": name, "image_size": run.settings.image_size}
    if is_reference(name):  # the user named this code on the command line, which permits the import
        section["name"] = import_code(name, option).reference
    if name == "huggingface":
        if root is None:
            raise ValueError(f"--dataset-root: missing; {option} huggingface needs the name or folder of the dataset")
        section["path"] = str(root)
    elif name.startswith("labels="):  # the images of the run with another set of labels
        if root is not None:
            raise ValueError(f"--dataset-root: got '{root}' with {option} {name}, which is the run's dataset; drop it")
        section = {**run.settings.dataset.model_dump(), "labels": name.removeprefix("labels="), "classes": None}
    elif is_folder(name):
        if root is not None:
            raise ValueError(f"--dataset-root: got '{root}' with {option} {name}, which is a folder; drop it")
        section |= {"name": "folder", "root": name}
    elif root is not None:
        section["root"] = str(root)
    try:
        images = load_dataset(section, split, run.settings.seed)
    except ValueError as error:
        raise ValueError(_of_option(option, name, root, str(error))) from None
    return _normalised(images, normalisation(run))


def _normalised(images: AnyImageDataset, colours: tuple[Colour, Colour]) -> AnyImageDataset:
    return replace(images, mean=colours[0], std=colours[1])


def _of_option(option: str, name: str, root: Path | None, error: str) -> str:
    """Turn a message about a key of the settings into one about an option."""
    if error.startswith("dataset.name: "):
        return f"{option}: no folder '{name}', and {error.removeprefix('dataset.name: ')}"
    if root is not None and error.startswith("dataset.root: unknown key"):
        return f"--dataset-root: got '{root}', but the dataset '{name}' takes none; drop it"
    for setting in (" or pass dataset.download=true", ", or set dataset.split=0.9 to divide one folder of classes"):
        error = error.replace(setting, "")
    return f"{option} {name}: {error}"


def other_sample(run: Run, name: str, root: Path | None, split: str, num_images: int | None) -> Sample:
    """Select at most `num_images` labelled images of a split of another dataset, always the same ones.

    Raises ValueError if an image has no label.
    """
    images = other_dataset(run, name, root, split, "--dataset")
    if (images.labels_N < 0).any():
        raise ValueError(f"--dataset: '{name}' has {split} images without a label, which is needed to measure quality")
    return Sample(images, choose_images(len(images), num_images, run.settings.seed, split), images.digest()[:DIGITS])


def images_name(images: "str | Path | Callable[..., object] | None", argument: str) -> str | None:
    """Return a name, a folder or a function that returns a dataset as text, as in an option of the programs."""
    if callable(images) and not isinstance(images, str | Path):
        return of_callable(images, argument).reference
    return None if images is None else str(images)


def is_folder(name: str) -> bool:
    """Whether the value of an option is the path of a folder. The name of a dataset never is."""
    return name not in known("coupled.datasets") and Path(name).is_dir()


def dataset_label(name: str, root: Path | None) -> str:
    """Return the name of the dataset in tables; for a folder its absolute path, so that folders are not confused."""
    if name == "folder" and root is not None:
        return str(root.resolve())
    if name == "huggingface" and root is not None:
        return f"{name}:{root}"
    return str(Path(name).resolve()) if is_folder(name) else name


def images_by_split(
    run: Run,
    name: str | None = None,
    root: Path | None = None,
    splits: Sequence[str] | str | None = None,
    accept_changed_images: bool = False,
) -> dict[str, AnyImageDataset]:
    """Return the images of the dataset `name`, of a folder at that path, or of the run (None), by split.

    Images of a folder are read from disk on demand. A folder with train/ and test/ (or val/) has these splits;
    otherwise all images are one split with the name "". The label of an image is the name of the first folder below the
    split; an image directly in the split has no label (-1).

    Raises ValueError for missing images or an unknown split.
    """
    chosen = choices("split", SPLITS if splits is None else splits, SPLITS)
    if name is None:
        if root is not None:
            raise ValueError("--dataset-root: needs --images with the name of a dataset")
        colours = normalisation(run)
        own = {split: run.images(split, accept_changed_images) for split in chosen}
        return {split: _normalised(images, colours) for split, images in own.items()}
    if accept_changed_images:
        raise ValueError("--accept-changed-images: not used with --images, which are not the run's; drop it")
    if not is_folder(name):
        return {split: other_dataset(run, name, root, split, "--images") for split in chosen}
    if root is not None:
        raise ValueError(f"--dataset-root: got '{root}' with --images {name}, which is a folder; drop it")
    there = _folders_of_splits(Path(name))
    if not there and splits is not None:
        raise ValueError(f"--split: got {' '.join(chosen)}, but '{name}' has no folders train and test")
    return (
        {split: _pictures(run, there[split], split) for split in chosen}
        if there
        else {"": _pictures(run, Path(name), "")}
    )


def _folders_of_splits(folder: Path) -> dict[str, Path]:
    """Return the folders of both splits; an empty dictionary unless both exist."""
    test = next((folder / each for each in ("test", *ALSO_TEST) if (folder / each).is_dir()), None)
    return {"train": folder / "train", "test": test} if test and (folder / "train").is_dir() else {}


def _pictures(run: Run, folder: Path, split: str) -> ImageFiles:
    passed: Counter[str] = Counter()
    files = [Path(path).relative_to(folder) for path in image_paths(folder, passed)]
    if not files:
        raise ValueError(f"--images: '{folder}' holds no image")
    for note in passed_over(split or str(folder), passed):
        say(note)
    names = sorted({file.parts[0] for file in files if len(file.parts) > 1})
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[file.parts[0]] if len(file.parts) > 1 else NO_LABEL for file in files]
    mean, std = normalisation(run)
    return ImageFiles(
        name=str(folder),
        split=split,
        root=folder,
        files_N=tuple(map(str, files)),
        labels_N=torch.tensor(labels),
        class_names=tuple(names),
        mean=mean,
        std=std,
    )


def embedded(
    embedder: Embedder,
    by_split: Mapping[str, AnyImageDataset],
    num_images: int | None,
    arms: Sequence[str],
    epoch: int,
    layer: str,
    show_progress: bool = False,
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Return the rows [N, D] of the images by arm, float32 on the CPU, and split, image, file and label of each row.

    At most `num_images` per split, always the same ones. `image` is the index in the split, from 0. Raises ValueError
    if a snapshot is damaged or does not fit the network.
    """
    rows: dict[str, list[Tensor]] = {arm: [] for arm in arms}
    about = []
    for images in by_split.values():
        chosen_N = choose_images(len(images), num_images, embedder.settings.seed, images.split)
        parts = chosen_N.split(PART)
        for part_N in tracked(parts, f"blocks of {PART:,} images") if show_progress else parts:
            for batch in embedder.outputs(images, part_N, arms, epoch, [layer]):
                for arm in arms:
                    rows[arm].append(batch[arm, layer].float().cpu())
        about.append(_described(images, chosen_N))
    return {arm: torch.cat(parts) for arm, parts in rows.items()}, pd.concat(about, ignore_index=True)


def _described(images: AnyImageDataset, chosen_N: Tensor) -> pd.DataFrame:
    numbers, names = chosen_N.tolist(), images.class_names
    labels = [None if label == NO_LABEL else names[label] for label in images.labels_N[chosen_N].tolist()]
    files = [images.files_N[number] if images.files_N else None for number in numbers]
    table = pd.DataFrame({"split": images.split, "image": numbers, "file": files, "label": labels})
    return table.astype({"split": "str", "file": "str", "label": "str"})
