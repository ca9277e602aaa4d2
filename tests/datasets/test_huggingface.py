"""Datasets of Hugging Face, saved locally: no test needs a network."""

import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from support import tiny

from coupled.cli import main
from coupled.datasets.huggingface import load

CLASSES = ["cat", "dog", "fish"]


def rows(images: int, seed: int) -> datasets.Dataset:
    """Random pictures, 12 x 8 px, with the classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 8, 12, 3), dtype=np.uint8)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    labels = [number % len(CLASSES) for number in range(images)]
    return datasets.Dataset.from_dict({"img": list(pixels), "label": labels}, features=features)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two splits, as `save_to_disk` writes them."""
    datasets.DatasetDict({"train": rows(30, 0), "validation": rows(9, 1)}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet"])
def test_rows_are_central_squares_with_the_names_of_their_classes(
    saved: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both local forms; the pixels of a picture that needs no resizing are its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if kind == "parquet":
        for name, split in datasets.load_from_disk(str(saved)).items():
            split.to_parquet(str(tmp_path / f"parquet/{name}-00000-of-00001.parquet"))
    path = str(saved if kind == "save_to_disk" else tmp_path / "parquet")
    train, test = (load(split, path=path, image_size=8, test_split="validation") for split in ("train", "test"))
    for found, images, seed in ((train, 30, 0), (test, 9, 1)):
        pixels = np.stack([np.asarray(each) for each in rows(images, seed)["img"]])[:, :, 2:10]
        assert torch.equal(found.images_N3HW, torch.from_numpy(pixels).permute(0, 3, 1, 2))
        assert found.labels_N.tolist() == [number % 3 for number in range(images)]
        assert found.class_names == tuple(CLASSES)
    expected = train.images_N3HW.numpy().mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(train.mean, expected, rtol=1e-12)
    assert test.mean == train.mean


def test_a_run_trains_on_it(saved: Path, tmp_path: Path) -> None:
    """From the settings to the digest of the images in run.json."""
    dataset = {"name": "huggingface", "path": str(saved), "image_size": 8, "test_split": "validation"}
    arms = {"cl": "dcl", "nscl": "nscl"}
    made = tiny.train(tmp_path / "run", dataset=dataset, batch={"size": 15}, epochs=1, arms=arms)
    assert made.images.class_names == tuple(CLASSES)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("dataset.test_split=test", "dataset.path: cannot load split 'test' of .* it has train, validation"),
        ("dataset.label_column=kind", "dataset.label_column: got kind; the columns are img, label"),
        ("dataset.path=/nowhere/at/all", "dataset.path: cannot load split 'train' of '/nowhere/at/all'"),
        ("dataset.test_split=train", "dataset.test_split: got 'train', which is trained on"),
        ("dataset.image_size=null", "dataset.image_size: missing"),
    ],
)
def test_what_is_not_there_is_one_line(
    saved: Path, tmp_path: Path, changed: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """The key and what there is; nothing is downloaded to find out."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    given = ["dataset={name: huggingface, path: " + str(saved) + ", image_size: 8, test_split: validation}", changed]
    assert main(["train", "demo", "--run-dir", str(tmp_path / "run"), *given, "batch.size=6"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
