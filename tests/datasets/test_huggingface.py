"""Datasets of Hugging Face, saved locally: no test needs internet access."""

import json
import re
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from support import tiny

from coupled.cli import main
from coupled.datasets import _cache, huggingface
from coupled.datasets.huggingface import _decoded, load

CLASSES = ["cat", "dog", "fish"]


def rows(images: int, seed: int, high: int = 8) -> datasets.Dataset:
    """Random pictures, 12 px wide, with the classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, high, 12, 3), dtype=np.uint8)
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
    """Both local forms; pixels are unchanged if no resizing is needed."""
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


def test_a_run_trains_on_a_hugging_face_dataset(saved: Path, tmp_path: Path) -> None:
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
        ("dataset.test_split=train", "dataset.test_split: got 'train', which is the train split"),
    ],
)
def test_a_missing_dataset_split_or_column_is_one_line(
    saved: Path, tmp_path: Path, changed: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """The message lists what exists; nothing is downloaded for it."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    given = ["dataset={name: huggingface, path: " + str(saved) + ", image_size: 8, test_split: validation}", changed]
    assert main(["train", "demo", "--run-dir", str(tmp_path / "run"), *given, "batch.size=6"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_the_default_image_size_is_the_common_size_of_the_images(saved: Path, tmp_path: Path) -> None:
    """It is in run.json, so that other programs and a resumed run need no image to know it."""
    dataset = {"name": "huggingface", "path": str(saved), "test_split": "validation"}
    assert tiny.tiny_settings(dataset=dataset).resolved()["dataset"]["image_size"] == 8
    given = tiny.tiny_settings(dataset={**dataset, "image_size": 8})
    assert tiny.tiny_settings(dataset=dataset).sha256() == given.sha256()
    assert load("train", path=str(saved), image_size=8, test_split="validation").notes == ()
    assert load("train", path=str(saved), image_size=16, test_split="validation").notes == (
        "dataset.image_size: 30 of 30 train images are enlarged to 16 px; their shorter side is 8 px or more",
    )
    datasets.DatasetDict({"train": rows(6, 0), "test": rows(6, 0, high=9)}).save_to_disk(tmp_path / "mixed")
    with pytest.raises(ValueError, match=r"^dataset\.image_size: missing; .* shorter sides differ: 8 and 9 px$"):
        tiny.tiny_settings(dataset={"name": "huggingface", "path": str(tmp_path / "mixed")})
    with pytest.raises(ValueError, match=r"^dataset\.image_size: missing; set the side in pixels"):
        tiny.tiny_settings(dataset={**dataset, "streaming": True})  # would be read twice


@pytest.fixture
def parquet(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options that stream a folder of parquet files into a separate cache."""
    monkeypatch.setenv("COUPLED_CACHE", str(tmp_path / "decoded"))
    monkeypatch.setattr(_cache, "SMALLEST", 1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, split in datasets.load_from_disk(str(saved)).items():
        split.to_parquet(str(tmp_path / f"parquet/{name}-00000-of-00001.parquet"))
    return {"path": str(tmp_path / "parquet"), "image_size": 8, "test_split": "validation", "streaming": True}


def seen(**options: object) -> list[object]:
    """Return all that a run uses of both splits."""
    _decoded.cache_clear()
    both = [load(split, **options) for split in ("train", "test")]
    return [(each.digest(), each.labels_N.tolist(), each.class_names, each.mean, each.std) for each in both]


def squares(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record one number for each picture decoded later."""
    counts: list[int] = []
    real = huggingface._square
    monkeypatch.setattr(huggingface, "_square", lambda *given: (counts.append(1), real(*given))[1])
    return counts


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet"])
def test_a_streamed_dataset_is_decoded_once_and_equals_one_in_memory(
    parquet: dict, saved: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels, labels and statistics; the cache of `datasets` holds no copy."""
    options = parquet if kind == "parquet" else {**parquet, "path": str(saved)}
    counts = squares(monkeypatch)
    monkeypatch.setattr(_cache, "CHUNK", 7 * 3 * 8 * 8)  # several parts
    monkeypatch.setattr(huggingface, "MOST_IN_MEMORY", 1)  # which streaming has no need of
    first = seen(**options)
    assert len(counts) == 39
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert seen(**options) == first
    assert len(counts) == 39
    with pytest.raises(ValueError, match=r"dataset.path: the 30 images .* set dataset.streaming=true"):
        seen(**{**options, "streaming": False})
    monkeypatch.setattr(huggingface, "MOST_IN_MEMORY", 2**30)
    assert seen(**{**options, "streaming": False}) == first


@pytest.mark.parametrize("damage", ["interrupted", "images", "labels", "changed file"])
def test_an_incomplete_or_damaged_stream_is_read_again(
    parquet: dict, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incomplete dataset must not pass for a complete one."""
    expected = seen(**parquet)
    folder = _cache.cache_folder() / "decoded"
    (images, *_), (about, *_) = sorted(folder.glob("*.npy")), sorted(folder.glob("*.json"))
    counts = squares(monkeypatch)
    if damage == "interrupted":
        for path in folder.iterdir():
            path.unlink()
        monkeypatch.setattr(huggingface, "_square", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            seen(**parquet)
        assert [path.suffix for path in folder.iterdir()] == [".lock"]
        monkeypatch.undo()
        monkeypatch.setenv("COUPLED_CACHE", str(folder.parent))
        counts = squares(monkeypatch)
    elif damage == "images":
        data = bytearray(images.read_bytes())
        data[-3] ^= 1
        images.write_bytes(data)
    elif damage == "labels":
        content = json.loads(about.read_text())
        about.write_text(json.dumps({**content, "labels": content["labels"][::-1]}))
    else:
        rows(30, 5).to_parquet(f"{parquet['path']}/train-00000-of-00001.parquet")
    assert (seen(**parquet) == expected) == (damage != "changed file")
    assert len(counts) in ((39,) if damage in ("interrupted", "changed file") else (30, 9))


def test_a_run_trains_on_a_stream_and_names_a_cache_limit_that_is_too_small(
    parquet: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the settings; a limit that is too small is one line that names it."""
    given = ["train", "demo", "batch.size=6", "epochs=1", "encoder.width_multiplier=0.0625", "arms.ce=null"]
    given += [f"dataset={json.dumps({'name': 'huggingface', **parquet})}"]
    for limit, key in (
        ("0", "dataset.streaming: got true, but COUPLED_CACHE_GIB=0"),
        ("1e-6", "COUPLED_CACHE_GIB allows"),
    ):
        monkeypatch.setenv("COUPLED_CACHE_GIB", limit)
        assert main([*given, "--run-dir", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert key in error
    monkeypatch.delenv("COUPLED_CACHE_GIB")
    _decoded.cache_clear()
    assert main([*given, "--run-dir", str(tmp_path / "run"), "--max-steps", "1"]) == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["dataset"]["streaming"] is True


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_internet_access_or_a_missing_extra_is_one_line(
    streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset on the hub; the message says what to install."""
    options = {"path": "nobody/nothing", "image_size": 8, "streaming": streaming}
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"dataset.path: cannot load split 'train' of 'nobody/nothing': [^\n]+$"):
        load("train", **options)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        load("train", **options)


def test_a_stream_from_the_hub_is_identified_by_its_commit(parquet: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that changed on the hub is read again; here a local builder replaces the hub's."""
    stream = datasets.load_dataset(parquet["path"], split="train", streaming=True)
    real = datasets.load_dataset_builder

    def key(commit: str) -> str:
        def builder(path: str, config: str | None) -> object:
            found = real(parquet["path"], config)
            for files in found.config.data_files.values():
                files.origin_metadata = [(path, commit)]
            return found

        monkeypatch.setattr(datasets, "load_dataset_builder", builder)
        return huggingface._streaming_key(stream, "some/body", None, "train", 8, "img", "label")

    assert key("1" * 40) == key("1" * 40) != key("2" * 40)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_picture_that_does_not_decode_is_one_line_that_names_its_row(parquet: dict, streaming: bool) -> None:
    """Among a million rows it could not be found otherwise."""
    table = rows(30, 0).cast_column("img", datasets.Image(decode=False)).to_dict()
    table["img"][4] = {**table["img"][4], "bytes": table["img"][4]["bytes"][:60]}
    features = rows(1, 0).features
    datasets.Dataset.from_dict(table, features).to_parquet(f"{parquet['path']}/train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"dataset.path: cannot read row 4 of 'train' of '.*': .*\S"):
        seen(**{**parquet, "streaming": streaming})
