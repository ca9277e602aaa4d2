"""embed: rows equal the encoder's output in every format; which images are embedded, and which input is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from support import tiny

from coupled.analysis.embed import main
from coupled.analysis.representations.other_images import normalisation
from coupled.analysis.run import open_run
from coupled.config.by_name import find
from coupled.datasets import AnyImageDataset
from coupled.storage.run_description import write_run_json
from coupled.stream.augment import clean_views

NewRun = Callable[..., Path]
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]  # not those of the digits


@pytest.fixture(scope="module")
def run(drifting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a mean and a std in run.json that differ from those of all images used here."""
    folder = tmp_path_factory.mktemp("embed") / "run"
    shutil.copytree(drifting_run, folder)
    about = json.loads((folder / "run.json").read_text())
    write_run_json(folder, {**about, "dataset": {**about["dataset"], "mean": MEAN, "std": STD}})
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures outside class folders, one picture in a nested folder, and a file that is not a picture."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("b.png", "a.JPG", "cats/2020/c.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.Generator(np.random.Philox(number)).integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("none")
    return folder


def by_hand(run: Path, arm: str, epoch: int, images_N3HW: torch.Tensor, layer: str = "h") -> torch.Tensor:
    """Return the outputs of `run.encoder`, or of the network for z, for images normalised as in the run."""
    opened = open_run(run)
    mean, std = normalisation(opened)
    views_N3SS = clean_views(images_N3HW, 8, mean, std)
    with torch.no_grad():
        if layer == "h":
            return opened.encoder(arm, epoch)(views_N3SS)
        return opened.network(arm, epoch)(views_N3SS[None])["projection"][0]


def digits(split: str) -> AnyImageDataset:
    return find("coupled.datasets", "digits").load(split, image_size=8)


def test_rows_equal_the_encoder_applied_by_hand(run: Path) -> None:
    """The run's images, both splits, by default the last epoch, normalised with mean and std of run.json."""
    rows, about = open_run(run).embed("nscl")
    images = torch.cat([digits(split).images_N3HW for split in ("train", "test")])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, by_hand(run, "nscl", 2, images).numpy(), rtol=1e-4, atol=1e-5)
    assert about["split"].tolist() == ["train"] * 1440 + ["test"] * 357
    assert about["image"].tolist() == [*range(1440), *range(357)]
    assert about["label"].tolist()[1440:] == [str(label) for label in digits("test").labels_N.tolist()]
    assert about["file"].isna().all()


def test_every_format_has_the_same_rows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Floats are written in full; for .npy a CSV beside it lists the images."""
    expected, images = open_run(run).embed("ce", epoch=1, layer="z", split="test", num_images=20)
    hand = by_hand(run, "ce", 1, digits("test").images_N3HW[images["image"].tolist()], "z")
    np.testing.assert_allclose(expected, hand.numpy(), rtol=1e-4, atol=1e-5)
    base = ["--run-dir", str(run), "--arm", "ce", "--epoch", "1", "--layer", "z", "--split", "test"]
    for suffix in ("csv", "npy", "parquet"):
        assert main([*base, "--num-images", "20", "--output", str(tmp_path / f"rows.{suffix}")]) == 0
        assert "20 images, 8 dimensions" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "rows.csv", dtype={"label": str})
    assert list(table)[:6] == ["split", "image", "file", "label", "z_0", "z_1"]
    assert np.array_equal(table.filter(like="z_").to_numpy(np.float32), expected)
    assert np.array_equal(np.load(tmp_path / "rows.npy"), expected)
    parquet = pd.read_parquet(tmp_path / "rows.parquet")
    assert np.array_equal(np.stack(parquet["embedding"].to_list()), expected)
    columns = ["split", "image", "label"]
    for beside in (table, pd.read_csv(tmp_path / "rows.images.csv", dtype={"label": str}), parquet):
        assert beside[columns].to_dict("list") == images[columns].to_dict("list")


def test_a_folder_of_pictures_without_classes_is_embedded(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows follow the order of paths; the first folder is the label; skipped files are reported."""
    rows, about = open_run(run).embed("cl", epoch=1, images=photos)
    assert about["file"].tolist() == ["a.JPG", "b.png", "cats/2020/c.png"]
    assert about["label"].isna().tolist() == [True, True, False]
    assert about["label"][2] == "cats"
    assert "ignored 1 .txt" in capsys.readouterr().out
    squares = [np.asarray(Image.open(photos / name).convert("RGB"))[1:10] for name in about["file"]]  # 9 of 12 rows
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(rows, by_hand(run, "cl", 1, pixels).numpy(), rtol=0.02, atol=0.02)  # grey levels


def test_a_folder_with_train_and_validation_has_splits(run: Path, photos: Path, tmp_path: Path) -> None:
    """The label is the folder below the split; without --split both splits are embedded, train first."""
    for part in ("train", "val"):
        (tmp_path / part / "dogs").mkdir(parents=True)
        shutil.copy(photos / "b.png", tmp_path / part / "dogs" / f"{part}.png")
    rows, about = open_run(run).embed("cl", epoch=1, images=tmp_path)
    assert about[["split", "file", "label"]].to_numpy().tolist() == [
        ["train", "dogs/train.png", "dogs"],
        ["test", "dogs/val.png", "dogs"],
    ]
    assert np.array_equal(rows[0], rows[1])
    only, _ = open_run(run).embed("cl", epoch=1, images=tmp_path, split="test")
    assert len(only) == 1


def test_another_dataset_is_normalised_with_the_statistics_of_the_run(run: Path) -> None:
    """With another mean, the inputs would differ from those that the network was trained on."""
    images = find("coupled.datasets", "fractals").load("test", image_size=8)
    rows, about = open_run(run).embed("scl", epoch=2, images="fractals", split="test", num_images=30)
    chosen = about["image"].tolist()
    expected = by_hand(run, "scl", 2, images.images_N3HW[chosen])
    np.testing.assert_allclose(rows, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert about["label"][0] == images.class_names[int(images.labels_N[chosen[0]])]


def test_a_run_json_without_mean_and_std_uses_those_of_its_images(drifting_run: Path) -> None:
    """Older versions did not write them."""
    run = open_run(drifting_run)
    assert "mean" not in run.description["dataset"]
    assert normalisation(run) == (digits("train").mean, digits("train").std)


def test_run_json_and_every_snapshot_hold_mean_and_std(tmp_path: Path) -> None:
    """A snapshot alone must state how its inputs were normalised."""
    tiny.train(tmp_path / "run", epochs=0, arms={"cl": "dcl"})
    images = digits("train")
    about = json.loads((tmp_path / "run/run.json").read_text())["dataset"]
    with safe_open(tmp_path / "run/snapshots/cl/epoch_0000.safetensors", "pt") as file:
        header = json.loads(file.metadata()["coupled"])
    for record in (about, header):
        assert (record["mean"], record["std"]) == ([*images.mean], [*images.std])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--output: missing; give a file that ends in .parquet, .npy, .csv"),
        (["--output", "x.txt"], "--output: got 'x.txt'; it must end in .parquet, .npy, .csv"),
        (["--output", "x.csv"], "--arm: missing; the run has the arms cl, nscl, scl, ce"),
        (["--output", "x.csv", "--arm", "byol"], "--arm: the run has no arm 'byol' (arms: cl, nscl, scl, ce)"),
        (
            ["--output", "x.csv", "--arm", "cl", "--epoch", "7"],
            "--epoch: arm 'cl' has no snapshot of epoch 7 (epochs: 0-2",
        ),
        (["--arms", "cl", "--output", "x.csv"], "--arms: not used without --project; use --arm"),
        (["--project", "pca", "--epoch", "1"], "--epoch: not used with --project; use --epochs"),
        (["--project", "pca", "--output", "x.csv"], "--output: got 'x.csv'; with --project it must be a folder"),
        (
            ["--output", "x.csv", "--arm", "cl", "--images", "cifar11"],
            "--images: no folder 'cifar11', and unknown dataset 'cifar11'; did you mean 'cifar10'?",
        ),
        (
            ["--output", "x.csv", "--arm", "cl", "--images", "digits", "--dataset-root", "r"],
            "--dataset-root: got 'r', but the dataset 'digits' takes none; drop it",
        ),
        (
            ["--output", "x.csv", "--arm", "cl", "--dataset-root", "r"],
            "--dataset-root: needs --images with the name of a dataset",
        ),
        (
            ["--output", "x.csv", "--arm", "cl", "--images", "digits", "--accept-changed-images"],
            "--accept-changed-images: not used with --images, which are not the run's; drop it",
        ),
        (["--output", "x.csv", "--arm", "cl", "--images", "."], "--images: '.' holds no image"),
        (
            ["--output", "x.csv", "--arm", "cl", "--images", ".", "--split", "test"],
            "--split: got test, but '.' has no folders train and test",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    """The line names the option, the value and what is allowed; nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert main(["--run-dir", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled embed: {part}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pyarrow.parquet", ["--arm", "cl", "--output", "x.parquet"], "pip install pyarrow"),
        ("umap", ["--project", "umap", "--output", "maps"], "pip install umap-learn"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    arguments: list[str],
    extra: str,
    tmp_path: Path,
) -> None:
    """The check comes before minutes of computation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["--run-dir", str(run), *arguments]) == 2
    assert extra in capsys.readouterr().err


def test_a_damaged_picture_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No partial table is written."""
    (tmp_path / "bad.png").write_bytes(b"no picture")
    command = ["--run-dir", str(run), "--arm", "cl", "--images", str(tmp_path), "--output", str(tmp_path / "x.csv")]
    assert main(command) == 2
    assert f"{tmp_path}/bad.png: not a readable image" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_a_run_of_one_arm_needs_no_arm(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(epochs=(0,), arms=("nscl",))
    assert (
        main(["--run-dir", str(run), "--split", "test", "--num-images", "5", "--output", str(tmp_path / "x.npy")]) == 0
    )
    assert np.load(tmp_path / "x.npy").shape == (5, 32)
