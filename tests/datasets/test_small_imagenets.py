"""Tiny ImageNet and mini-ImageNet from the layouts in common use."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import image_formats as formats

from coupled.datasets import mini_imagenet, tiny_imagenet
from coupled.datasets._pictures import read

IDS = formats.WORDNET_IDS
HELD_OUT = ["007", "010", "011"]  # of 18 images 000 .. 017 of class n01


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    formats.write_files(tmp_path / "tiny", formats.tiny_imagenet_files())
    return tmp_path / "tiny"


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    formats.write_files(tmp_path / "mini", formats.mini_imagenet_files())
    return tmp_path / "mini"


def test_the_validation_images_have_the_labels_of_their_list(tiny: Path) -> None:
    """They are in one folder, whose order is not that of the classes."""
    found = tiny_imagenet.load("test", root=tiny)
    assert found.class_names == IDS
    assert found.labels_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for row, name in ((0, "val_0"), (1, "val_10"), (6, "val_13"), (7, "val_3")):
        (alone_3HW,), _ = read([tiny / "val" / "images" / f"{name}.JPEG"], 64)
        assert torch.equal(found.images_N3HW[row], alone_3HW)


def test_validation_images_in_class_folders_are_the_same_dataset(tiny: Path) -> None:
    """Many users have sorted them into class folders."""
    before = tiny_imagenet.load("test", root=tiny).digest()
    for line in (tiny / "val/val_annotations.txt").read_text().splitlines():
        name, label = line.split("\t")[:2]
        (tiny / "val" / label / "images").mkdir(parents=True, exist_ok=True)
        (tiny / "val/images" / name).rename(tiny / "val" / label / "images" / name)
    (tiny / "val/images").rmdir()
    assert tiny_imagenet.load("test", root=tiny).digest() == before


def _no_image(root: Path) -> None:
    (root / "val/images/val_3.JPEG").unlink()


def _no_line(root: Path) -> None:
    path = root / "val/val_annotations.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def _no_columns(root: Path) -> None:
    (root / "val/val_annotations.txt").write_text("val_3.JPEG n01443537 0 0 1 1")


def _no_class(root: Path) -> None:
    shutil.rmtree(root / "train" / IDS[1])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_no_image, "val_3.JPEG: missing, but listed in .*; unpack it again"),
        (_no_line, "JPEG: no line in .*val_annotations.txt; unpack it again"),
        (_no_columns, "expected lines of image, class and box, found 'val_3.JPEG n01443537 0 0 1 1'"),
        (_no_class, f"wnids.txt and train/ differ in class {IDS[1]}; unpack it again"),
    ],
)
def test_an_incomplete_tiny_imagenet_is_refused(harm: Callable[[Path], None], message: str, tiny: Path) -> None:
    """Otherwise a run would train on another dataset."""
    harm(tiny)
    with pytest.raises(ValueError, match=message) as raised:
        tiny_imagenet.load("train", root=tiny)
    assert "\n" not in str(raised.value)


def test_all_classes_are_in_both_splits_and_no_image_is(mini: Path) -> None:
    """The lists split the classes; a classifier needs every class in both splits, and no test image in train."""
    files = mini_imagenet._files(mini)
    for name in IDS:
        train, test = files["train"][name], files["test"][name]
        assert len(test) == (formats.IMAGES + formats.TEST_IMAGES) // 6
        assert sorted(train + test) == sorted(map(str, (mini / "images").glob(f"{name}*")))
    assert mini_imagenet.load("train", root=mini).class_names == IDS


def test_the_split_never_changes() -> None:
    """Published numbers hold for these images; it depends only on file names, on any machine and in any folder."""
    files = {"n01": [Path(f"/somewhere/{number:03d}.jpg") for number in range(18)]}
    assert [path.stem for path in mini_imagenet._split(files)["test"]["n01"]] == HELD_OUT
    moved = {"n01": [Path(f"/elsewhere/{number:03d}.jpg") for number in reversed(range(18))]}
    assert [path.stem for path in mini_imagenet._split(moved)["test"]["n01"]] == HELD_OUT


def test_class_folders_give_the_same_split_as_the_lists(mini: Path, tmp_path: Path) -> None:
    """One layout for another must not give another split."""
    by_class, by_part = tmp_path / "by_class", tmp_path / "by_part"
    for number, name in enumerate(IDS):
        part = ("train", "train", "val", "test")[number]
        for path in (mini / "images").glob(f"{name}*"):
            formats.write(by_class / name / path.name, path.read_bytes())
            formats.write(by_part / part / name / path.name, path.read_bytes())
    for split in ("train", "test"):
        digests = {mini_imagenet.load(split, root=root, image_size=16).digest() for root in (mini, by_class, by_part)}
        assert len(digests) == 1


def test_an_existing_split_of_images_is_kept(tmp_path: Path) -> None:
    """Copies with every class in train and test are used as they are."""
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for name, content in formats.of_class(0, count):
            formats.write(tmp_path / part / IDS[0] / f"{part}_{name}", content)
    found = mini_imagenet._files(tmp_path)
    assert [len(found["train"][IDS[0]]), len(found["test"][IDS[0]])] == [3, 1]
    shutil.rmtree(tmp_path / "test")
    assert len(mini_imagenet._files(tmp_path)["test"][IDS[0]]) == 2


def _no_picture(root: Path) -> None:
    next((root / "images").iterdir()).unlink()


def _two_lists(root: Path) -> None:
    (root / "test.csv").unlink()


def _two_parts(root: Path) -> None:
    """As `prepare-data` leaves it when it is interrupted between two splits."""
    for number, name in enumerate(IDS[:-1]):
        for path in (root / "images").glob(f"{name}*"):
            formats.write(root / ("train", "train", "val")[number] / name / path.name, path.read_bytes())
    for path in root.glob("*.csv"):
        path.unlink()


def _other_list(root: Path) -> None:
    (root / "val.csv").write_text("image;class\n")


def _empty_list(root: Path) -> None:
    (root / "val.csv").write_text("")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_two_lists, "test.csv: not readable .*; unpack it again"),
        (_two_parts, "test: missing; train, val and test have different classes, .*; unpack it too"),
        (_no_picture, "jpg: missing, but listed in .*; unpack it again"),
        (_other_list, "val.csv: expected rows of filename,label, found image;class; use the original list"),
        (_empty_list, "val.csv: expected rows of filename,label, found ; use the original list"),
    ],
)
def test_an_incomplete_mini_imagenet_is_refused(harm: Callable[[Path], None], message: str, mini: Path) -> None:
    """Otherwise a run would train on another dataset."""
    harm(mini)
    with pytest.raises(ValueError, match=message) as raised:
        mini_imagenet.load("train", root=mini)
    assert "\n" not in str(raised.value)
