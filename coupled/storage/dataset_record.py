"""Which images a run was trained on: `images.jsonl` in its folder, and what happens when they have changed since.

The file lists the pictures of sets that are read from files; run.json has its digest, beside those of the splits.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from coupled.datasets import AnyImageSet
from coupled.datasets._listing import changes, listing
from coupled.storage.atomic_files import write_durably
from coupled.storage.run_description import read_run_json, write_run_json

NAME = "images.jsonl"
ACCEPT = "--accept-changed-images"
SAME = ("name", "classes", "train_digest", "test_digest")


def describe_images(name: str, images: Mapping[str, AnyImageSet]) -> dict[str, Any]:
    """What run.json says of the dataset `name`, `images` by split."""
    about: dict[str, Any] = {"name": name, "classes": list(images["train"].class_names)}
    for split, each in images.items():
        about |= {f"{split}_images": len(each), f"{split}_digest": each.digest()}
    listed = listing(images)
    return {**about, "listing_digest": _digest(listed)} if listed else about


def record_images(
    run: Path, content: Mapping[str, Any], images: Mapping[str, AnyImageSet], accepted_after: int | None
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


def changed_files(run: Path, about: Mapping[str, Any], images: Mapping[str, AnyImageSet]) -> str:
    """Which files have changed since the list was written, in words; why it cannot be told, if it cannot."""
    if not about.get("listing_digest"):
        return "the run has no list of files"
    for fault in check_listing(run, about):
        return fault
    there = (run / NAME).read_bytes()
    differing = {split: each for split, each in images.items() if each.digest() != about.get(f"{split}_digest")}
    found = {split: changes(there, split, each) for split, each in differing.items()}
    return "; ".join(f"{split} {text}" for split, text in found.items() if text) or "no file has changed"


def check_same_images(
    run: Path, content: Mapping[str, Any], images: Mapping[str, AnyImageSet], accept: bool
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


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
