"""Images that a run was not trained on, normalised as its own: another dataset, or a folder of pictures."""

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
    """Mean and std with which the run's images were normalised: those of run.json.

    The run.json of an older run has none; they are then measured again on its train images, whose digest is checked.
    """
    about = run.description["dataset"]
    if about.get("mean") and about.get("std"):
        (*mean,), (*std,) = about["mean"], about["std"]
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    images = run.images("train")
    return images.mean, images.std


def other_dataset(run: Run, name: str, root: Path | None, split: str, option: str) -> AnyImageDataset:
    """A split of the dataset `name` at the size of the run's images, or of a folder of images with that path.

    Raises ValueError, which begins with the name of the option, if there is no such dataset.
    """
    section: dict[str, Any] = {"name": name, "image_size": run.settings.image_size}
    if is_reference(name):  # named by the user, who so allows to import it
        section["name"] = import_code(name, option).reference
    if name == "huggingface":
        if root is None:
            raise ValueError(
                f"--dataset-root: missing; with {option} huggingface it is the name or folder of the dataset"
            )
        section["path"] = str(root)
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
    """The message about a key of the settings as one about an option."""
    if error.startswith("dataset.name: "):
        return f"{option}: no folder '{name}', and {error.removeprefix('dataset.name: ')}"
    if root is not None and error.startswith("dataset.root: unknown key"):
        return f"--dataset-root: got '{root}', but the dataset '{name}' takes none; drop it"
    for setting in (" or pass dataset.download=true", ", or set dataset.split=0.9 to divide one folder of classes"):
        error = error.replace(setting, "")
    return f"{option} {name}: {error}"


def other_sample(run: Run, name: str, root: Path | None, split: str, num_images: int | None) -> Sample:
    """At most `num_images` labelled images of a split of another dataset, always the same ones. Raises ValueError."""
    images = other_dataset(run, name, root, split, "--dataset")
    if (images.labels_N < 0).any():
        raise ValueError(f"--dataset: '{name}' has {split} images without a label, which is needed to measure quality")
    return Sample(images, choose_images(len(images), num_images, run.settings.seed, split), images.digest()[:DIGITS])


def images_name(images: "str | Path | Callable[..., object] | None", argument: str) -> str | None:
    """A name, a folder or a function that returns a dataset as text, as the options of the programs have it."""
    if callable(images) and not isinstance(images, str | Path):
        return of_callable(images, argument).reference
    return None if images is None else str(images)


def is_folder(name: str) -> bool:
    """Whether the value of an option is the path of a folder; the name of a dataset is none, whatever lies there."""
    return name not in known("coupled.datasets") and Path(name).is_dir()


def dataset_label(name: str, root: Path | None) -> str:
    """How tables call the dataset: by its name, or by the whole path of a folder, so that two folders are not mixed."""
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
    """The images of the dataset `name`, of a folder with that path, or of the run (None), by split.

    Pictures of a folder stay on the disk; they may lie in it anyhow. Of one with train/ and test/ (or val/) each is a
    split; otherwise all pictures are one split, whose name is "". The label of a picture is the name of the folder
    below the split's in which it lies; a picture that lies in none has no label (-1).

    Raises ValueError for images or a split that there are not.
    """
    chosen = choices("split", SPLITS if splits is None else splits, SPLITS)
    if name is None:
        if root is not None:
            raise ValueError("--dataset-root: it needs --images with the name of a dataset")
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
    """The folders of both splits; none unless both are there."""
    test = next((folder / each for each in ("test", *ALSO_TEST) if (folder / each).is_dir()), None)
    return {"train": folder / "train", "test": test} if test and (folder / "train").is_dir() else {}


def _pictures(run: Run, folder: Path, split: str) -> ImageFiles:
    passed: Counter[str] = Counter()
    files = [Path(path).relative_to(folder) for path in image_paths(folder, passed)]
    if not files:
        raise ValueError(f"--images: '{folder}' holds no picture")
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
    """The rows [N, D] of the images by arm, float32 on the CPU; and split, image, file and label of each row.

    At most `num_images` a split, always the same ones. `image` is the number in the split, from 0. Raises ValueError
    if a snapshot is damaged or does not fit the network.
    """
    rows: dict[str, list[Tensor]] = {arm: [] for arm in arms}
    about = []
    for images in by_split.values():
        chosen_N = choose_images(len(images), num_images, embedder.settings.seed, images.split)
        parts = chosen_N.split(PART)
        for part_N in tracked(parts, f"{PART:,} images at a time") if show_progress else parts:
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
