"""The images that a run is trained on: their list `images.jsonl`, and the check whether they have changed.

For a dataset that is read from image files, the list has one JSON array per line: [split, file, label, content]. The
content is the size in bytes of a file that is read while training, or a digest of the pixels of an image that is held
in memory. run.json has the digest of the list and the digests of the splits.
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
SAME = ("name", "classes", "train_digest", "test_digest", "training_digest")

Rows = Iterator[tuple[str, str, int, int | str]]


def describe_images(name: str, images: Mapping[str, AnyImageDataset]) -> dict[str, Any]:
    """Return the entry of run.json about the dataset `name`; `images` by split."""
    about: dict[str, Any] = {"name": name, "classes": list(images["train"].class_names), **colours(images["train"])}
    for split, each in images.items():
        about |= {f"{split}_images": len(each), f"{split}_digest": each.digest()}
    listed = listing(images)
    return {**about, "listing_digest": _digest(listed)} if listed else about


def colours(images: AnyImageDataset) -> dict[str, list[float]]:
    """Return the mean and std of each colour channel, of pixel values in [0, 1], that normalise the images."""
    return {"mean": list(images.mean), "std": list(images.std)}


def record_images(
    run: Path, content: Mapping[str, Any], images: Mapping[str, AnyImageDataset], accepted_after: int | None
) -> None:
    """Write the list of the image files, if the images are files; `content` is the run.json for these images.

    If changed images were accepted after step `accepted_after`, run.json gets the changed images, and a record of the
    images up to that step.
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
    """Yield a line if the list does not match its digest in run.json; `about` is the `dataset` of run.json."""
    expected = about.get("listing_digest")
    found = _digest((run / NAME).read_bytes()) if (run / NAME).is_file() else "no file"
    if expected and found != expected:
        yield f"{run / NAME}: damaged: expected digest {expected}, found {found}; it only serves to name changed images"


def changed_files(run: Path, about: Mapping[str, Any], images: Mapping[str, AnyImageDataset]) -> str:
    """Return a text with the files that have changed since the list was written, or why they are unknown."""
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
    """Return a line if the images have changed since the run in `run` was started, and `accept` is set; else [].

    `content` is the run.json for the current images. Raises ValueError if the change is not accepted, or if the run
    cannot continue because the classes or the steps per epoch differ.
    """
    if not (run / "run.json").is_file():
        return []
    was, now = read_run_json(run).get("dataset", {}), content["dataset"]
    changed = [key for key in SAME if was.get(key) != now.get(key)]
    if not changed:
        return []
    differing = "; ".join(f"{key} was {was.get(key)}, is {now.get(key)}" for key in changed)
    what = f"dataset: the images have changed since '{run}' was started: {differing}; "
    what += changed_files(run, was, images)
    if not accept:
        raise ValueError(f"{what}; restore the images, or continue with the changed images: --resume {ACCEPT}")
    size = content["settings"]["batch"]["size"]
    steps = [about.get("training_images", about.get("train_images", 0)) // size for about in (was, now)]
    if was.get("classes") != now["classes"] or steps[0] != steps[1]:
        raise ValueError(
            f"{what}; {ACCEPT} needs the same classes and steps per epoch (were {steps[0]}, are {steps[1]}); start a"
            " new run"
        )
    return [f"{what}; accepted by {ACCEPT}"]


def listing(images: Mapping[str, AnyImageDataset]) -> bytes:
    """Return the list of both splits; b"" if the images are not read from image files."""
    return "".join(json.dumps(row) + "\n" for split, each in images.items() for row in _rows(split, each)).encode()


def changes(there: bytes, split: str, images: AnyImageDataset) -> str:
    """Return a text with the files of the split that differ from the list `there`; "" if no files are known.

    Raises ValueError if `there` is not such a list.
    """
    was = {}
    for number, line in enumerate(there.decode().splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[1], str):
            raise ValueError(f"{NAME} line {number}: expected [split, file, label, content]")
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
