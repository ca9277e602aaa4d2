"""ImageNet, read from its folders; the pictures stay on disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import image_formats as formats

from coupled.datasets.imagenet import load

IDS = formats.WORDNET_IDS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    formats.write_files(tmp_path / "imagenet", formats.imagenet_files())
    return tmp_path / "imagenet"


def test_labels_follow_the_sorted_folder_names(root: Path) -> None:
    """As everywhere for ImageNet; val is the test split."""
    for split, folder in (("train", "train"), ("test", "val")):
        found = load(split, root=root)
        assert found.class_names == IDS
        assert len(found) == len(IDS) * (formats.IMAGES if split == "train" else formats.TEST_IMAGES)
        for name, label in zip(found.files_N, found.labels_N.tolist(), strict=True):
            assert name.startswith(f"{folder}/{IDS[label]}/")
            assert (root / name).is_file()
        assert list(found.files_N) == sorted(found.files_N)
        assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as torchvision's models


def test_the_digest_changes_with_a_file_a_size_or_a_label(root: Path) -> None:
    """run.json has it instead of a digest of the pixels, which would take an epoch to compute."""
    digests = {load("train", root=root).digest(), load("train", root=root).only([0, 1, 2]).digest()}
    assert len(digests) == 2
    digests.add(load("train", root=root).only([1, 0, 2]).digest())
    path = root / "train" / IDS[1] / f"{IDS[1]}_train_0.JPEG"
    path.write_bytes(path.read_bytes() + b"x")
    digests.add(load("train", root=root).digest())
    path.rename(path.with_name("other.JPEG"))
    digests.add(load("train", root=root).digest())
    assert len(digests) == 5
    moved = root.rename(root.with_name("elsewhere"))
    assert load("train", root=moved).digest() in digests


def test_a_choice_of_classes_has_exactly_their_files(root: Path) -> None:
    """An image with another class's label would be unnoticed noise."""
    some = load("train", root=root).only([3, 1])
    assert some.class_names == (IDS[3], IDS[1])
    assert len(some) == 2 * formats.IMAGES
    for name, label in zip(some.files_N, some.labels_N.tolist(), strict=True):
        assert name.startswith(f"train/{some.class_names[label]}/")


def _no_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def _no_class(root: Path) -> None:
    shutil.rmtree(root / "val" / IDS[2])


def _empty_class(root: Path) -> None:
    (root / "train" / "n09999999").mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_no_val, r"no ImageNet in .*: val/ is missing; fetch .* run 'coupled prepare-data imagenet"),
        (_no_class, f"train and val must have the same classes; only one of them has {IDS[2]}"),
        (_empty_class, "n09999999 contains no image"),
    ],
)
def test_an_incomplete_imagenet_is_refused(harm: Callable[[Path], None], message: str, root: Path) -> None:
    """Otherwise a run would train on another dataset."""
    harm(root)
    with pytest.raises(ValueError, match=message) as raised:
        load("train", root=root)
    assert "\n" not in str(raised.value)
