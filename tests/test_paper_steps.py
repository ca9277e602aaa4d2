"""Every config of configs/paper takes one training step on small images in the genuine layout of its dataset.

Encoder, projector, batch and views are made small; objectives, augmentation, optimizer and sampler are the config's.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import image_formats as formats
from support.published import FILES, settings_of
from torchvision.datasets import CIFAR10, CIFAR100

from coupled.arms import build, sanity_checks
from coupled.config.load import resolve
from coupled.config.schema import Settings
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import ProcessGroup, process_group

IMAGES = 8  # of a batch
SIDE = 16  # of a view
FEWEST = 4  # classes; fewer have too few images
CLASSES = {"mini_imagenet": 4, "tiny_imagenet": 4, "imagenet": 4, "cifar100": 100}  # of the small datasets; others: 10


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The folder of a small version of each dataset."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sanity_checks, "LOOKED_THROUGH", 0)  # small batches of one class are likely in 1 200 epochs
        patch.setattr(build, "outline", lambda *_, **__: None)  # a forecast of memory, slow on torch's meta device
        formats.cifar(CIFAR10, folder / "cifar10", patch)
        formats.cifar(CIFAR100, folder / "cifar100", patch)
        formats.svhn(folder / "svhn", patch)
        formats.unlabelled_stl10(folder / "stl10", patch)
        formats.write_files(folder / "tiny_imagenet", formats.tiny_imagenet_files())
        formats.write_files(folder / "mini_imagenet", formats.mini_imagenet_files())
        formats.write_files(folder / "imagenet", formats.imagenet_files())
        yield {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def group() -> Iterator[ProcessGroup]:
    """One process for all runs of this file."""
    with process_group("cpu", 60.0, 1) as only:
        yield only


def small(settings: Settings, roots: dict[str, Path]) -> Settings:
    """Return the settings with a small encoder, projector, batch and views, on the small dataset."""
    tree = settings.resolved()
    dataset, encoder, projector = tree["dataset"], tree["encoder"], tree["projector"]
    dataset |= {"image_size": SIDE, "num_workers": 0}
    if dataset["name"] in roots:
        dataset["root"] = str(roots[dataset["name"]])
    if isinstance(dataset.get("classes"), int):
        dataset["classes"] = max(FEWEST, min(dataset["classes"], CLASSES.get(dataset["name"], 10)))
    if "resnet" in encoder["name"]:
        encoder |= {"name": "resnet18", "width_multiplier": 1 / 16}  # the whole depth: test_paper_configs.py
        encoder["timm_options"] = {**encoder.get("timm_options", {}), "layers": [1, 1, 1, 1]}
    if encoder["name"].startswith("vit"):
        encoder["timm_options"] = {**encoder.get("timm_options", {}), "depth": 1, "embed_dim": 24}
    projector |= {key: 8 for key in ("hidden_dim", "output_dim") if projector[key] is not None}
    if "hidden_dims" in projector:
        projector["hidden_dims"] = [8] * len(projector["hidden_dims"])
    changed: dict[str, Any] = {"device": "cpu", "num_threads": 1, "compile": False, "activation_checkpointing": False}
    changed |= {"name": "small", "seed": 0, "batch": {**tree["batch"], "size": IMAGES}}
    return resolve({**tree, **changed})


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_takes_a_step(path: Path, roots: dict[str, Path], group: ProcessGroup, tmp_path: Path) -> None:
    """A config that fails at its first step would be found after the dataset is fetched; of a sweep, the last point."""
    settings = small(settings_of(path)[-1], roots)
    run = Coordinator(settings, group, tmp_path / "run")
    run.train(max_steps=1)
    for arm in run.arms:
        arm.replica = arm.network  # torch 2.11: deleting a DDP after its process group may hang
    with (tmp_path / "run/steps.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    losses = {arm: float(row[f"{arm}_loss"]) for arm in settings.arms}
    assert all(math.isfinite(loss) and loss != 0 for loss in losses.values()), losses
