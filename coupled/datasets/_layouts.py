"""Recognise known datasets whose folder does not have one folder per class, and say what to do."""

from collections import Counter
from pathlib import Path

from coupled.datasets._files import folders, loose_images

KAGGLE = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")  # below what Kaggle's archive of ILSVRC unpacks to


def check_layout(root: Path, name: str) -> None:
    """Raise ValueError if `root`, read as the dataset `name`, is Kaggle's ILSVRC or Tiny ImageNet as published."""
    if (root / "val" / "images").is_dir() and (root / "val" / "val_annotations.txt").is_file():
        raise ValueError(
            f"dataset.root: {root.resolve()} is Tiny ImageNet, whose validation images are in one folder; use"
            " dataset.name=tiny_imagenet"
        )
    for inner in KAGGLE:
        if not (root / "train").is_dir() and (root / inner / "train").is_dir():
            raise ValueError(f"dataset.root: got {root}; the image folders are below it: use {root / inner}")
    if name == "folder" and (root / "train").is_dir() and not folders(root / "train"):
        return  # images without labels, in all splits
    for part in ("val", "test") if name == "folder" else ("val",):
        loose: Counter[str] = Counter()
        if (root / part).is_dir() and not folders(root / part, loose) and loose_images(loose):
            listed = root.parents[2] / "LOC_val_solution.csv" if len(root.parents) > 2 else Path("LOC_val_solution.csv")
            sort = f"{listed} lists their classes; " if listed.is_file() and part == "val" else ""
            rename = "rename it and put the validation images in val/<class>/" if part == "test" else ""
            raise ValueError(
                f"dataset.root: {(root / part).resolve()} contains {loose_images(loose)} images outside class folders,"
                f" as Kaggle's copy of ILSVRC does; {sort}{rename or 'sort them into one folder per class'}"
            )
