"""CIFAR-100: 50 000 train and 10 000 test images of 32 px, 100 fine classes in 20 coarse classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), https://www.cs.toronto.edu/~kriz/cifar.html;
no licence is stated there. Read from torchvision's folder, as the archive for Python unpacks. The coarse classes are
the superclasses of that page.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torchvision.datasets import CIFAR100

from coupled.datasets import ImageDataset
from coupled.datasets._cifar import load_cifar

SIZE = 32
ADDED = ("labels",)  # options that are recorded only if they do not have their default
COARSE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


def load(
    split: str, *, root: Path | None = None, download: bool = False, labels: Literal["fine", "coarse"] = "fine"
) -> ImageDataset:
    """CIFAR-100 below `root` (default data); `download` downloads it if it is missing.

    `labels` selects the 100 fine or the 20 coarse classes of the same images, for training and analysis. To measure a
    run that was trained on the fine classes with the coarse ones: `coupled quality --dataset labels=coarse`.
    Raises ValueError if the files are missing, damaged, or cannot be downloaded.
    """
    fine = load_cifar("cifar100", CIFAR100, split, root, download)
    if labels == "fine":
        return fine
    return replace(fine, labels_N=coarse_of_fine()[fine.labels_N], class_names=tuple(COARSE))


def coarse_of_fine() -> torch.Tensor:
    """The number of the coarse class of each of the 100 fine classes, whose numbers follow the order of their names."""
    coarse_of = {name: number for number, names in enumerate(COARSE.values()) for name in names.split()}
    return torch.tensor([coarse_of[name] for name in sorted(coarse_of)])
