"""What is written and said of a run before it starts: run.json, and a few lines on the screen."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from coupled.arms import Arms
from coupled.image_sets import AnyImageSet
from coupled.process_group import ProcessGroup
from coupled.resume_state import KEPT
from coupled.run_log import describe_code


def description(
    settings: Mapping[str, Any],
    settings_sha256: str,
    images: Mapping[str, AnyImageSet],
    group: ProcessGroup,
    placed: list[list[str]],
) -> dict[str, Any]:
    """The content of run.json; `images` by split."""
    digests = {f"{split}_digest": each.digest() for split, each in images.items()}
    classes = list(images["train"].class_names)
    return {
        "format": "coupled.run.1",
        "name": settings["name"],
        "seed": settings["seed"],
        "settings": settings,
        "settings_sha256": settings_sha256,
        "image_set": {"name": settings["image_set"]["name"], "classes": classes, **digests},
        "world_size": group.world_size,
        "placement": placed,
        "threads": torch.get_num_threads(),
        "launch": {"name": group.launch.name, "agents": list(group.launch.agents)},
        "device": str(group.device.type),
        "precision": settings["precision"],
        **describe_code(),
    }


def announcement(
    run: Path,
    images: AnyImageSet,
    settings: Mapping[str, Any],
    step: int,
    peak_lr: float,
    group: ProcessGroup,
    arms: Arms,
) -> Iterator[str]:
    """What is about to run with the resolved `settings`, a line each, after `step` steps done."""
    epochs, size, given = settings["epochs"], settings["batch"]["size"], settings["arms"]
    yield (
        f"run {run}: {images.name}, {len(images)} images, {epochs} epochs of {len(images) // size} steps"
        + (f", continuing after step {step}" if step else "")
    )
    yield (
        f"global batch {size} = {group.data_size} x {size // group.data_size} images, {2 * size - 2} other images'"
        f" views as negatives of an anchor without labels; peak learning rate {peak_lr:.6g}"
    )
    for place, names in enumerate(arms.placed):
        where = f" (place {place} of {group.arms_size})" if group.arms_size > 1 else ""
        for name in names:
            more = controls(given[name])
            yield f"arm {name}{where}: {arms.objectives[name]}, {arms.sizes[name][0]:,} parameters{more}"
    yield arms.memory


def controls(arm: Mapping[str, Any]) -> str:
    """In what an arm of the settings departs from the others on purpose, as the end of its line."""
    moved, own = arm.get("perturb"), arm.get("own")
    said = [f"twin of {arm['twin']}"] if arm.get("twin") else []
    said += [f"a weight moved by {moved['ulps']} ulp at step {moved['step']}"] if moved else []
    said += [f"its own {', '.join(own)}"] if own else []
    return "".join(f"; {each}" for each in said)


def bytes_needed(arms: Arms, kept_epochs: Collection[int], epoch: int) -> int:
    """Bytes that a run writes after `epoch`, of which it keeps the snapshots of `kept_epochs`."""
    one = sum(bytes_ for _, bytes_ in arms.sizes.values())
    snapshots = sum(e > epoch or e == epoch == 0 for e in kept_epochs)
    # a resume state holds weights and up to two moments; a third generation is written before the oldest is dropped
    return one * (snapshots + 3 * (KEPT + 1))
