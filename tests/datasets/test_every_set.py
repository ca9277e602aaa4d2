"""Properties that every dataset has, whatever its source."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import image_formats as formats
from torchvision.datasets import CIFAR10, CIFAR100

from coupled.config import by_name
from coupled.datasets import SPLITS, ImageDataset, channel_statistics

ON_DISK = ("imagenet", "huggingface")  # have tests of their own
NAMES = [name for name in by_name.known("coupled.datasets") if name not in ON_DISK]


@pytest.fixture
def options(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """Options that make each dataset small; a new dataset must be added here."""
    formats.cifar(CIFAR10, tmp_path, monkeypatch)
    formats.cifar(CIFAR100, tmp_path, monkeypatch)
    formats.svhn(tmp_path / "svhn", monkeypatch)
    formats.stl10(tmp_path, monkeypatch)
    formats.write_files(tmp_path / "tiny", formats.tiny_imagenet_files())
    formats.write_files(tmp_path / "mini", formats.mini_imagenet_files())
    return {
        "cifar10": {"root": tmp_path},
        "cifar100": {"root": tmp_path},
        "digits": {},
        "folder": {"root": pictures, "image_size": 24},
        "fractals": {"root": tmp_path, "classes": 3, "train_per_class": 4, "test_per_class": 2, "image_size": 16},
        "mini_imagenet": {"root": tmp_path / "mini"},
        "stl10": {"root": tmp_path},
        "svhn": {"root": tmp_path / "svhn"},
        "tiny_imagenet": {"root": tmp_path / "tiny"},
    }


@pytest.mark.parametrize("name", NAMES)
def test_images_are_bytes_and_labels_count_from_zero(name: str, options: dict) -> None:
    """Augmentation needs uint8 pictures and losses need int64 classes 0..C-1; other types would fail elsewhere."""
    for split in SPLITS:
        found = by_name.find("coupled.datasets", name).load(split, **options[name])
        assert (found.name, found.split) == (name, split)
        assert found.images_N3HW.dtype == torch.uint8
        assert found.images_N3HW.shape[:2] == (len(found), 3)
        assert found.labels_N.dtype == torch.int64
        assert found.labels_N.shape == (len(found),)
        assert 0 <= found.labels_N.min() <= found.labels_N.max() < len(found.class_names)
        assert len(set(found.class_names)) == len(found.class_names)


@pytest.mark.parametrize("name", NAMES)
def test_both_splits_are_normalised_by_the_train_images(name: str, options: dict) -> None:
    """With other statistics, the network would get test images in other colours."""
    load = by_name.find("coupled.datasets", name).load
    train, test = (load(split, **options[name]) for split in SPLITS)
    pixels = train.images_N3HW.numpy() / 255
    np.testing.assert_allclose(train.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(train.std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)
    assert (test.mean, test.std) == (train.mean, train.std)
    assert train.digest() != test.digest()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_load_gives_the_same_bytes_and_leaves_the_global_generators_alone(name: str, options: dict) -> None:
    """Loading must neither draw random numbers from a global generator nor depend on its state."""
    load = by_name.find("coupled.datasets", name).load
    first = load("train", **options[name])
    np.random.rand(3)  # the state now differs from that of a fresh process
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    second = load("train", **options[name])
    assert second.digest() == first.digest()
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_equal(np.random.get_state(), numpy_state)


@pytest.mark.parametrize("name", [*NAMES, *ON_DISK])
def test_an_unknown_split_is_refused(name: str) -> None:
    """A misspelled split must not be read as the test split."""
    needed = {"path": "x", "image_size": 8} if name == "huggingface" else {}
    with pytest.raises(ValueError, match="dataset split: got 'val'; allowed are train, test"):
        by_name.find("coupled.datasets", name).load("val", **needed)


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_of_classes_has_exactly_their_images(name: str, options: dict) -> None:
    """An image with another class's label would be unnoticed noise; both splits must choose alike."""
    load = by_name.find("coupled.datasets", name).load
    for split in SPLITS:
        whole = load(split, **options[name])
        classes = [len(whole.class_names) - 1, 0]
        some = whole.only(classes)
        expected = [row for row, label in enumerate(whole.labels_N.tolist()) if label in classes]
        assert torch.equal(some.images_N3HW, whole.images_N3HW[expected])
        assert [classes[label] for label in some.labels_N] == whole.labels_N[expected].tolist()
        assert some.class_names == (whole.class_names[-1], whole.class_names[0])
        assert (some.mean, some.std) == (whole.mean, whole.std)
        assert some.digest() != whole.digest()


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_declares_its_image_size(name: str, options: dict) -> None:
    """The network's input size follows from it; another size would silently blur or crop every image."""
    module = by_name.find("coupled.datasets", name)
    shown = {**options[name], "image_size": module.SIZE} if "image_size" in options[name] else options[name]
    assert module.load("train", **shown).images_N3HW.shape[2:] == (module.SIZE, module.SIZE)


FETCHED = ["cifar10", "cifar100", "imagenet", "mini_imagenet", "stl10", "svhn", "tiny_imagenet"]


@pytest.mark.parametrize("name", FETCHED)
def test_a_missing_dataset_names_its_source_and_its_folder(name: str, tmp_path: Path) -> None:
    """In one line. It is the first message that most users see."""
    with pytest.raises(ValueError, match=r"dataset\.root: no .*https?://") as raised:
        by_name.find("coupled.datasets", name).load("train", root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(raised.value)
    assert "download=true" in str(raised.value) or "coupled prepare-data" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_digest_notices_one_pixel_one_label_and_the_shape() -> None:
    """The digest in run.json must tell two datasets apart that differ anywhere."""
    images_N3HW, labels_N = torch.zeros(2, 3, 4, 6, dtype=torch.uint8), torch.tensor([0, 1])
    pixel_N3HW = images_N3HW.clone()
    pixel_N3HW[1, 2, 3, 5] = 1
    digests = {
        _image_set(images_N3HW, labels_N).digest(),
        _image_set(pixel_N3HW, labels_N).digest(),
        _image_set(images_N3HW, labels_N.flip(0)).digest(),
        _image_set(images_N3HW.reshape(2, 3, 6, 4), labels_N).digest(),
    }
    assert len(digests) == 4
    assert _image_set(images_N3HW.clone(), labels_N.clone()).digest() in digests


def test_mean_and_std_do_not_depend_on_the_chunks() -> None:
    """Sums of floats would differ with chunks, order and threads, and with them every view of a run."""
    images_N3HW = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (50, 3, 9, 9), dtype=np.uint8))
    whole = channel_statistics(images_N3HW)
    assert channel_statistics(images_N3HW, chunk=7) == whole
    assert channel_statistics(images_N3HW.flip(0), chunk=13) == whole


def test_a_constant_channel_has_a_std_above_0() -> None:
    """Otherwise pictures without any blue would be normalised to NaN."""
    images_N3HW = torch.full((3, 3, 4, 4), 200, dtype=torch.uint8)
    mean, std = channel_statistics(images_N3HW)
    assert mean == (200 / 255,) * 3
    assert std == (1 / 255,) * 3


def _image_set(images_N3HW: torch.Tensor, labels_N: torch.Tensor) -> ImageDataset:
    return ImageDataset("made", "train", images_N3HW, labels_N, ("a", "b"), (0.5,) * 3, (0.5,) * 3)
