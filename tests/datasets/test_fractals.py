"""The procedural fractals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coupled.datasets import _ifs
from coupled.datasets.fractals import POINTS_AT_ONCE, draw, load

SMALL = {"classes": 3, "image_size": 16, "train_per_class": 4, "test_per_class": 2}


def test_the_fractals_never_change(tmp_path: Path) -> None:
    """The dataset is defined by its code only: if a pixel changes, it is another dataset and FORMAT must be raised."""
    assert load("train", root=tmp_path, **SMALL).digest() == "da1f4552406f18fafcb89814d8426f9f"
    assert load("test", root=tmp_path, **SMALL).digest() == "bb90b3b91b63a8b90871bd46f9596f56"


def test_a_class_and_an_image_do_not_depend_on_the_size_of_the_dataset() -> None:
    """A sweep over the number of classes must add classes, not exchange them."""
    few = draw("train", classes=2, per_class=3, size=16, seed=0).reshape(2, 3, 3, 16, 16)
    many = draw("train", classes=4, per_class=5, size=16, seed=0).reshape(4, 5, 3, 16, 16)
    assert torch.equal(many[:2, :3], few)


def test_drawing_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks bound the memory; they must not change pixels."""
    whole = draw("test", classes=1, per_class=7, size=16, seed=0)
    monkeypatch.setattr("coupled.datasets.fractals.POINTS_AT_ONCE", POINTS_AT_ONCE // 300)
    assert torch.equal(draw("test", classes=1, per_class=7, size=16, seed=0), whole)


def test_seed_split_class_and_image_each_change_the_picture() -> None:
    """Two equal pictures would mean that a random stream is used twice."""
    pictures = [
        draw(split, classes=3, per_class=4, size=16, seed=seed) for split in ("train", "test") for seed in (0, 1)
    ]
    distinct = {bytes(picture.numpy().tobytes()) for picture in torch.cat(pictures)}
    assert len(distinct) == 2 * 2 * 3 * 4


def test_images_of_a_class_resemble_each_other_in_shape_but_not_in_colour() -> None:
    """Otherwise there is nothing to learn from the dataset, or only the colour.

    Shape: which pixels differ from the background colour (the most frequent one). Chance level for ten classes is .1.
    """
    train, test = (draw(split, classes=10, per_class=20, size=24, seed=0) for split in ("train", "test"))
    labels = np.repeat(np.arange(10), 20)
    assert _nearest_class_mean(_shape(train), _shape(test), labels) > 0.9
    assert _nearest_class_mean(_colours(train), _colours(test), labels) < 0.2


def test_every_class_fills_a_reasonable_part_of_its_picture() -> None:
    """A class that is a dot, or a full square, could not be recognised."""
    pictures = draw("train", classes=40, per_class=4, size=24, seed=5)
    filled = _shape(pictures).reshape(40, -1).mean(axis=1)
    assert 0.1 < filled.min() < filled.max() < 0.8


def test_every_map_contracts_after_the_widest_jitter() -> None:
    """A map that expands would send points to infinity and all others into one pixel."""
    numbers = np.random.default_rng(0).random((2000, _ifs.NUMBERS))
    maps_IM6 = _ifs.systems(numbers)
    norms_IM = np.linalg.norm(maps_IM6[..., :4].reshape(-1, 4, 2, 2), ord=2, axis=(2, 3))
    assert _ifs.NARROWEST <= norms_IM.min() < norms_IM.max() <= _ifs.WIDEST + 1e-12
    corners = np.random.default_rng(1).integers(0, 2, (2000, _ifs.MAPS * 6))
    jittered_IM6 = _ifs.jittered(maps_IM6[norms_IM.max(axis=1).argmax()], corners)
    assert np.linalg.norm(jittered_IM6[..., :4].reshape(-1, 4, 2, 2), ord=2, axis=(2, 3)).max() < 1


def test_the_walk_visits_the_attractor_of_a_known_system() -> None:
    """Four maps that halve towards the corners of a square fill it evenly: the chaos game's textbook case."""
    half = [0.5, 0, 0, 0.5]
    square_1M6 = np.array([[[*half, e, f] for e in (0.0, 0.5) for f in (0.0, 0.5)]])
    choices_TW = _ifs.choices(np.ones(4), np.random.Philox(key=3), 16)
    counts_MSS = _ifs.visits(square_1M6, choices_TW, 16)[0]
    assert counts_MSS.sum() == 6 * 16**2
    assert (counts_MSS.sum(axis=0) > 0).mean() > 0.95
    for each, (rows, columns) in enumerate(
        (rows, columns) for columns in (slice(0, 9), slice(7, 16)) for rows in (slice(0, 9), slice(7, 16))
    ):
        assert counts_MSS[each, rows, columns].sum() == counts_MSS[each].sum()


def test_a_second_load_reads_the_file_and_leaves_it_untouched(tmp_path: Path) -> None:
    """Generating a large dataset at every start would take minutes."""
    load("train", root=tmp_path, **SMALL)
    (path,) = tmp_path.iterdir()
    before = path.stat()
    load("test", root=tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == [path]
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("harm", ["bit", "cut", "foreign", "renamed", "no metadata"])
def test_a_damaged_file_is_an_error_that_names_it(harm: str, tmp_path: Path) -> None:
    """Damaged pixels must neither be trained on nor be silently replaced."""
    load("train", root=tmp_path, **SMALL)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if harm == "bit":
        content[-5] ^= 4
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-20])
    elif harm == "foreign":
        path.write_text("not a file of tensors, and long enough to be mistaken for one")
    elif harm == "renamed":
        load("train", root=tmp_path, **SMALL, seed=1)
        other = next(each for each in tmp_path.iterdir() if each != path)
        other.replace(path)
    else:
        save_file(load_file(path), path)
    with pytest.raises(ValueError, match="delete it, it will be generated again") as raised:
        load("train", root=tmp_path, **SMALL)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("classes", 1, "2 to 1000"),
        ("classes", 1001, "2 to 1000"),
        ("image_size", 7, "8 to 1024"),
        ("train_per_class", 0, "1 or more"),
        ("test_per_class", 0, "1 or more"),
        ("seed", -1, "0 to 18446744073709551615"),
    ],
)
def test_an_option_out_of_range_is_refused(option: str, value: int, allowed: str, tmp_path: Path) -> None:
    """The message names the option and the allowed values; nothing is written."""
    with pytest.raises(ValueError, match=rf"dataset.{option}: got {value}; allowed is {allowed}"):
        load("train", root=tmp_path, **{**SMALL, option: value})
    assert not list(tmp_path.iterdir())


def _shape(images_N3SS: torch.Tensor) -> np.ndarray:
    colours = images_N3SS.permute(0, 2, 3, 1).flatten(1, 2).numpy()
    shapes = []
    for pixels in colours:
        values, counts = np.unique(pixels, axis=0, return_counts=True)
        shapes.append((pixels != values[counts.argmax()]).any(axis=1))
    return np.array(shapes, dtype=np.float64)


def _colours(images_N3SS: torch.Tensor) -> np.ndarray:
    return images_N3SS.double().mean(dim=(2, 3)).numpy()


def _nearest_class_mean(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> float:
    means = np.array([train[labels == label].mean(axis=0) for label in np.unique(labels)])
    distances = ((test[:, None] - means) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == labels).mean())
