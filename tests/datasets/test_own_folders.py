"""Layouts of a user's folder: without labels, without splits, in memory or on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny

from coupled import train as program
from coupled.analysis import alignment, bounds, losses, quality
from coupled.config.by_name import known
from coupled.config.registry import find_objective, load_dataset
from coupled.datasets import ImageFiles, folder
from coupled.datasets._pillow import SUFFIXES
from coupled.stream.decoding import crops


def write_images(root: Path, *places: str, side: int = 12) -> None:
    rng = np.random.default_rng(5)
    for place in places:
        path = root / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def load(part: str, root: Path, seed: int = 0, **options: object) -> object:
    return load_dataset({"name": "folder", "root": str(root), "image_size": 12, **options}, part, seed)


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_the_test_split_may_have_any_usual_name(name: str, tmp_path: Path) -> None:
    """These are the names used in archives."""
    write_images(tmp_path, "train/a/1", "train/b/2", f"{name}/a/3", f"{name}/b/4")
    assert load("test", tmp_path).files_N == (f"{name}/a/3.png", f"{name}/b/4.png")


def test_one_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    """The splits together are the folder, both have every class, and only the seed decides."""
    write_images(tmp_path, *(f"{name}/{number:02d}" for name in ("a", "b", "c/in") for number in range(10)))
    parts = {part: load(part, tmp_path, split=0.8) for part in ("train", "test")}
    assert parts["train"].labels_N.bincount().tolist() == [8, 8, 8]
    assert parts["test"].labels_N.bincount().tolist() == [2, 2, 2]
    files = {part: set(each.files_N) for part, each in parts.items()}
    assert not files["train"] & files["test"]
    assert len(files["train"] | files["test"]) == 30
    assert load("test", tmp_path, split=0.8).digest() == parts["test"].digest()
    assert set(load("test", tmp_path, seed=1, split=0.8).files_N) != files["test"]
    assert "dataset.split: 0.8 of the images of each class for training, drawn with the seed" in parts["train"].notes
    write_images(tmp_path, "d/alone")
    with pytest.raises(ValueError, match=r"dataset\.split: class 'd' has 1 image; two are needed"):
        load("train", tmp_path, split=0.8)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_share_that_leaves_a_split_empty_is_refused(share: float, tmp_path: Path) -> None:
    """With 1.0 there would be no test image."""
    write_images(tmp_path, "a/1", "a/2")
    with pytest.raises(ValueError, match=f"dataset.split: got {share:g}; allowed is a share"):
        load("train", tmp_path, split=share)


def test_a_folder_with_splits_is_not_split_again(tmp_path: Path) -> None:
    """Its splits would be read as classes."""
    write_images(tmp_path, "train/a/1", "train/b/2", "test/a/3", "test/b/4")
    with pytest.raises(ValueError, match=r"dataset.split: got 0.9, but .* is already divided into train, test; use no"):
        load("train", tmp_path, split=0.9)


def test_folders_are_not_classes_without_labels(tmp_path: Path) -> None:
    """Pictures sorted by year have no classes."""
    write_images(tmp_path, *(f"{year}/{number}" for year in (2020, 2021) for number in range(5)))
    found = load("train", tmp_path, split=0.8, labels="none")
    assert (found.class_names, found.labels_N.tolist()) == ((), [-1] * 8)
    with pytest.raises(ValueError, match=r"dataset\.classes: got 2, but 'folder' has no labels"):
        load("train", tmp_path, split=0.8, labels="none", classes=2)


def test_images_on_disk_equal_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice affects memory use, but no measured value."""
    write_images(tmp_path, *(f"{name}/{number}" for name in ("a", "b") for number in range(4)))
    held = load("train", tmp_path, split=0.75)
    on_disk = load("train", tmp_path, split=0.75, in_memory=False)
    assert isinstance(on_disk, ImageFiles)
    for key in ("files_N", "class_names", "mean", "std"):
        assert getattr(on_disk, key) == getattr(held, key)
    assert torch.equal(on_disk.labels_N, held.labels_N)
    ((pixels_1N3SS,),) = crops(on_disk, [np.arange(6)], None, 12, 0)
    assert torch.equal(pixels_1N3SS[0], held.images_N3HW)
    monkeypatch.setattr(folder, "MOST_IN_MEMORY", 8 * 3 * 12 * 12 - 1)
    assert isinstance(load("test", tmp_path, split=0.75), ImageFiles)
    assert not isinstance(load("test", tmp_path, split=0.75, in_memory=True), ImageFiles)


LABELLED = {
    "cross_entropy",
    "n_pairs",
    "nscl",
    "supcon",
    "triplet",
    "hadsell",
    "margin_softmax",
    "moco_nscl",
    "moco_supcon",
}


def test_objectives_that_need_labels_are_detected() -> None:
    """By running them, so that a user-defined objective need not declare it."""
    from coupled.arms.sanity_checks import depends_on_labels

    names = known("coupled.objectives")
    assert {name for name in names if depends_on_labels(find_objective("x", name, {}, 0.5))} == LABELLED


def test_a_folder_without_labels_trains_objectives_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Arms and analysis that need labels are refused by name; the others work."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "own", *(f"train/{number}" for number in range(8)), *(f"test/{n}" for n in range(4)))
    Path("own.yaml").write_text(
        tiny.TINY_YAML.replace("{name: digits, image_size: 8}", "{name: folder, root: own, image_size: 12}")
        + "batch: {size: 4}\n"
    )
    assert program.main(["--config", "own.yaml"]) == 2
    told = capsys.readouterr().err
    assert "arms: nscl (nscl), scl (supcon), ce (cross_entropy) need labels, and the training images have none" in told
    arms = ["arms.nscl=vicreg", "arms.scl=null", "arms.ce=null"]
    assert program.main(["--config", "own.yaml", *arms, "batch.sampler=balanced"]) == 2
    assert "batch.sampler: got 'balanced', but the training images have no labels" in capsys.readouterr().err
    assert program.main(["--config", "own.yaml", *arms]) == 0
    told = capsys.readouterr().out
    assert "8 train, 4 test images of 12 px, no classes" in told
    assert "dataset: train: 8 images without labels in own" in told
    assert json.loads(Path("runs/own/run.json").read_text())["dataset"]["classes"] == []
    assert alignment.main(["--metrics", "cka", "--split", "test", "--epochs", "1"]) == 0
    for analysis in (losses, bounds):
        assert analysis.main(["--epochs", "1"]) == 2
        assert "the dataset of this run has no labels, which" in capsys.readouterr().err
    assert quality.main(["--epochs", "1", "--metrics", "knn"]) == 2
    assert "the dataset of this run has no labels, which knn needs" in capsys.readouterr().err
    assert quality.main(["--epochs", "1", "--arms", "cl"]) == 0
    assert "has no labels; metrics that need labels are left out: cdnv, " in capsys.readouterr().out


def test_the_start_lists_read_and_skipped_files_with_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Classes with images at any depth and every suffix; each file is counted as read or as skipped."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "own"
    write_images(root, *(f"{part}/{name}/deep/er/1" for part in ("train", "val", "validation") for name in "ab"))
    write_images(root, "train/loose", "train/.hidden/1", "extra/1")
    for number, suffix in enumerate(SUFFIXES):
        grey = (12, 12) if suffix == ".pgm" else (12, 12, 3)
        Image.fromarray(np.zeros(grey, np.uint8)).save(root / f"train/a/{number}{suffix}")
        Image.fromarray(np.zeros(grey, np.uint8)).save(root / f"train/b/{number}{suffix.upper()}")
    for name in ("train/a/.DS_Store", "train/b/deep/notes.txt", "train/readme.md", "val/a/Thumbs.db"):
        (root / name).touch()
    given = tiny.TINY_YAML.replace("{name: digits, image_size: 8}", "{name: folder, root: own, image_size: 12}")
    Path("own.yaml").write_text(given + "batch: {size: 20}\narms: {cl: dcl, nscl: nscl}\n")
    assert program.main(["--config", "own.yaml"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "dataset: train: 20 images in 2 class folders of own/train: a 10, b 10" in told
    assert "dataset: test: 2 images in 2 class folders of own/val: a 1, b 1" in told
    others = "1 .md beside the classes, 1 .png beside the classes, 1 .txt, 1 hidden, 1 hidden beside the classes"
    why = "images are files that end in .jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp"
    assert f"dataset: train: ignored {others}; {why}" in told
    assert f"dataset: test: ignored 1 .db; {why}" in told
    assert "dataset: own: ignored extra, validation; only train and val are read" in told
    (root / "train/c").mkdir()
    (root / "train/c/x.txt").touch()
    assert program.main(["--config", "own.yaml", "--run-dir", "other"]) == 2
    assert "own/train/c contains no image, but 1 .txt; put .jpg, " in capsys.readouterr().err
