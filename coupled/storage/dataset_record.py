"""Which images a run was trained on: `images.jsonl` in its folder, and what happens when they have changed since.

The file lists the pictures of datasets that are read from files, one JSON array a line: [split, file, label, content].
The content is the size in bytes of a picture that stays on the disk, and a digest of the pixels of one that is held in
memory. run.json has the digest of the list, beside those of the splits.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.storage.atomic_files import write_durably
from coupled.storage.run_description import read_run_json, write_run_json

NAME = "images.jsonl"
SHOWN = 3  # files that a message names
ACCEPT = "--accept-changed-images"
SAME = ("name", "classes", "train_digest", "test_digest")

Rows = Iterator[tuple[str, str, int, int | str]]


def describe_images(name: str, images: Mapping[str, AnyImageDataset]) -> dict[str, Any]:
    """What run.json says of the dataset `name`, `images` by split."""
    about: dict[str, Any] = {"name": name, "classes": list(images["train"].class_names), **colours(images["train"])}
    for split, each in images.items():
        about |= {f"{split}_images": len(each), f"{split}_digest": each.digest()}
    listed = listing(images)
    return {**about, "listing_digest": _digest(listed)} if listed else about


def colours(images: AnyImageDataset) -> dict[str, list[float]]:
    """Mean and std of the colours, of pixel values in [0, 1], with which the images are normalised."""
    return {"mean": list(images.mean), "std": list(images.std)}


def record_images(
    run: Path, content: Mapping[str, Any], images: Mapping[str, AnyImageDataset], accepted_after: int | None
) -> None:
    """Write the list of the images' files, if they are files; `content` is the run.json of the images as they are.

    If changed images were accepted after a step, run.json gets them, and keeps what the images were up to that step.
    """
    listed = listing(images)
    if listed and not ((run / NAME).is_file() and (run / NAME).read_bytes() == listed):
        write_durably(run / NAME, listed)
    if accepted_after is not None:
        there = read_run_json(run)
        before = {"until_step": accepted_after, "dataset": there["dataset"]}
        earlier = [*there.get("earlier_images", []), before]
        write_run_json(run, {**there, "dataset": content["dataset"], "earlier_images": earlier})


def check_listing(run: Path, about: Mapping[str, Any]) -> Iterator[str]:
    """A line if the list is not the one that run.json tells of; `about` is its `dataset`."""
    expected = about.get("listing_digest")
    found = _digest((run / NAME).read_bytes()) if (run / NAME).is_file() else "no file"
    if expected and found != expected:
        yield f"{run / NAME}: its digest should be {expected}, found {found}; it only serves to name changed images"


def changed_files(run: Path, about: Mapping[str, Any], images: Mapping[str, AnyImageDataset]) -> str:
    """Which files have changed since the list was written, in words; or why that is unknown."""
    if not about.get("listing_digest"):
        return "the run has no list of files"
    for fault in check_listing(run, about):
        return fault
    there = (run / NAME).read_bytes()
    differing = {split: each for split, each in images.items() if each.digest() != about.get(f"{split}_digest")}
    found = {split: changes(there, split, each) for split, each in differing.items()}
    return "; ".join(f"{split} {text}" for split, text in found.items() if text) or "no file has changed"


def check_same_images(
    run: Path, content: Mapping[str, Any], images: Mapping[str, AnyImageDataset], accept: bool
) -> list[str]:
    """A line if the images of the run in `run` have changed and that is accepted; `content` is the run.json of now.

    Raises ValueError if it is not accepted, or if the run could not go on: with other classes or steps an epoch.
    """
    if not (run / "run.json").is_file():
        return []
    was, now = read_run_json(run).get("dataset", {}), content["dataset"]
    if all(was.get(key) == now.get(key) for key in SAME):
        return []
    differing = "; ".join(f"{key} was {was.get(key)}, is {now[key]}" for key in SAME if was.get(key) != now[key])
    what = f"dataset: the images are not those that '{run}' was started with: {differing}; "
    what += changed_files(run, was, images)
    if not accept:
        raise ValueError(f"{what}; put them back, or go on with the images as they are: --resume {ACCEPT}")
    size = content["settings"]["batch"]["size"]
    steps = [about.get("train_images", 0) // size for about in (was, now)]
    if was.get("classes") != now["classes"] or steps[0] != steps[1]:
        raise ValueError(
            f"{what}; {ACCEPT} needs the same classes and steps an epoch (were {steps[0]}, are {steps[1]}); start a new"
            " run"
        )
    return [f"{what}; accepted by {ACCEPT}"]


def listing(images: Mapping[str, AnyImageDataset]) -> bytes:
    """The list of both splits; empty if their images are not files of their own."""
    return "".join(json.dumps(row) + "\n" for split, each in images.items() for row in _rows(split, each)).encode()


def changes(there: bytes, split: str, images: AnyImageDataset) -> str:
    """Which files of the split are not as in the list `there`, in words; "" if the list or the images tell of none.

    Raises ValueError if `there` is no such list.
    """
    was = {}
    for number, line in enumerate(there.decode().splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[1], str):
            raise ValueError(f"line {number} is not split, file, label and content")
        if row[0] == split:
            was[row[1]] = row[2:]
    now = {file: [label, content] for _, file, label, content in _rows(split, images)}
    if not was or not now:
        return ""
    kinds = {
        "changed": [file for file in now if file in was and was[file] != now[file]],
        "new": [file for file in now if file not in was],
        "gone": [file for file in was if file not in now],
    }
    return "; ".join(f"{kind}: {_named(files)}" for kind, files in kinds.items() if files)


def _rows(split: str, images: AnyImageDataset) -> Rows:
    labels = images.labels_N.tolist()
    if isinstance(images, ImageFiles):
        for file, label, (size, _) in zip(images.files_N, labels, images.file_status, strict=True):
            yield split, file, label, size
    elif images.files_N:
        for file, label, image_3HW in zip(images.files_N, labels, images.images_N3HW, strict=True):
            yield split, file, label, blake2b(image_3HW.contiguous().numpy().data, digest_size=8).hexdigest()


def _named(files: list[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return ", ".join(files[:SHOWN]) + more


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
