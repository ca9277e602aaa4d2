"""quality --dataset: an arm's quality on another dataset, in a separate table."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from coupled.analysis.quality import main
from coupled.analysis.report.tables import read_tables
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.config.by_name import find
from coupled.config.metric_registry import find_arm_metrics
from coupled.metrics.arm import Labelled

Read = Callable[[Path], list[dict[str, str]]]
METRICS = ["knn", "nccc", "linear_probe"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write train/ and test/ with 30 bright and 30 dark pictures each."""
    folder = tmp_path_factory.mktemp("squares")
    for seed, part in enumerate(("train", "test")):
        for name, least in (("bright", 120), ("dark", 0)):
            (folder / part / name).mkdir(parents=True)
            draws = np.random.Generator(np.random.Philox(seed)).integers(0, 120, (30, 8, 8, 3))
            for number, pixels in enumerate(draws):
                Image.fromarray((pixels + least).astype(np.uint8)).save(folder / part / name / f"{number:02d}.png")
    return folder


def test_transfer_scores_equal_the_metrics_on_embeddings_of_the_other_dataset(
    drifting_run: Path, squares: Path, tmp_path: Path, table: Read
) -> None:
    """Learned from its train images, scored on its test images, with the run's normalisation."""
    command = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "nscl", "--epochs", "2"]
    assert main([*command, "--layers", "h", "--metrics", *METRICS, "--dataset", str(squares)]) == 0
    rows = table(tmp_path / "transfer.csv")
    assert tuple(rows[0]) == SCHEMAS["transfer.csv"].columns
    assert {(r["dataset"], r["num_images"], r["num_train_images"]) for r in rows} == {(str(squares), "60", "60")}
    assert not (tmp_path / "quality.csv").exists()
    run = open_run(drifting_run)
    frame = run.quality(arms="nscl", epochs=2, layers="h", metrics=METRICS, dataset=squares)
    assert frame["value"].tolist() == [float(row["value"]) for row in rows]
    found = {split: run.embed("nscl", images=squares, split=split) for split in ("train", "test")}
    train, test = (
        Labelled(torch.from_numpy(rows_ND), torch.tensor([int(name == "dark") for name in images["label"]]))
        for rows_ND, images in found.values()
    )
    for metric in find_arm_metrics(METRICS):
        for variant, expected in metric.measured(train, test, run.settings.seed).items():
            (row,) = [r for r in rows if (r["metric"], r["variant"]) == (metric.name, variant.name)]
            assert float(row["value"]) == pytest.approx(expected.value, abs=0.02)


def test_tables_of_different_datasets_are_never_mixed(
    drifting_run: Path, squares: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of one do not count as finished for another; report and figures read quality.csv only."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path / "analysis"), "--arms", "ce", "--epochs", "2"]
    base += ["--layers", "h", "--metrics", "nccc", "--num-images", "60"]
    for dataset in (["--dataset", "fractals"], ["--dataset", str(squares)], [], ["--dataset", "fractals"]):
        assert main([*base, *dataset]) == 0
    said = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines() if "new rows" in line]
    assert said == ["1 new rows, 1 in all", "1 new rows, 2 in all", "1 new rows, 1 in all", "0 new rows, 2 in all"]
    assert [r["dataset"] for r in table(tmp_path / "analysis/transfer.csv")] == ["fractals", str(squares)]
    assert "dataset" in SCHEMAS["transfer.csv"].place
    assert {*read_tables(tmp_path, ["ce"])} == {"quality.csv"}
    assert len(table(tmp_path / "analysis/quality.csv")) == 1


def test_a_folder_has_one_dataset_name_in_both_spellings(
    drifting_run: Path, squares: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a path, or as root of the dataset `folder`; otherwise one folder would be measured as two datasets."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "ce", "--epochs", "2"]
    base += ["--layers", "h", "--metrics", "nccc"]
    assert main([*base, "--dataset", "folder", "--dataset-root", str(squares)]) == 0
    assert main([*base, "--dataset", str(squares)]) == 0
    assert "0 new rows, 1 in all" in capsys.readouterr().out
    assert [r["dataset"] for r in table(tmp_path / "transfer.csv")] == [str(squares)]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--dataset", "cifar11"], "--dataset: no folder 'cifar11', and unknown dataset 'cifar11'; did you mean"),
        (["--dataset-root", "x"], "--dataset-root: needs --dataset with the name of a dataset"),
        (
            ["--dataset", "cifar10", "--dataset-root", "x"],
            "--dataset cifar10: dataset.root: no complete, undamaged CIF",
        ),
        (["--dataset", ".", "--dataset-root", "x"], "--dataset-root: got 'x' with --dataset ., which is a folder"),
        (["--dataset", "."], "--dataset .: dataset.root: no folder"),
        (["--dataset", "huggingface"], "--dataset-root: missing; --dataset huggingface needs the name or folder of"),
        (["--dataset", "none.py:f"], "--dataset: got 'none.py:f'; no file"),
        (
            ["--dataset", "digits", "--accept-changed-images"],
            "--accept-changed-images: not used with --dataset, whose images are not the run's; drop it",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    """The line names the option, the value and what is allowed, and no table is begun."""
    monkeypatch.chdir(tmp_path)
    assert main(["--run-dir", str(drifting_run), "--output", "out", "--metrics", "nccc", *arguments]) == 2
    error = capsys.readouterr().err
    assert "dataset.split" not in error  # a setting, and no option of this program
    assert error.startswith(f"coupled quality: {part}")
    assert error.count("\n") == 1
    assert "download" not in error
    assert not list(tmp_path.glob("out/*.csv"))


def test_a_dataset_named_on_the_command_line_needs_no_allow_code(drifting_run: Path, tmp_path: Path) -> None:
    """The user who names it on the command line permits its import; a run folder does not name it."""
    file = tmp_path / "own.py"
    file.write_text(
        "from coupled.datasets.fractals import load\n\ndef own(split):\n    return load(split, image_size=8)\n"
    )
    options = {"arms": "ce", "epochs": 2, "layers": "h", "metrics": ["nccc"]}
    frame, fractals = (open_run(drifting_run).quality(**options, dataset=name) for name in (f"{file}:own", "fractals"))
    assert frame["value"].tolist() == fractals["value"].tolist()
    assert {*frame["dataset"]} == {f"{file}:own"}


def small_fractals(split: str) -> object:
    """A user-defined dataset."""
    return find("coupled.datasets", "fractals").load(split, image_size=8)


def test_a_dataset_may_be_a_function(drifting_run: Path) -> None:
    """From Python, a callable may be passed instead of a name."""
    run = open_run(drifting_run)
    frame = run.quality(arms="ce", epochs=2, layers="h", metrics=["nccc"], dataset=small_fractals)
    assert frame["dataset"].str.endswith("test_transfer.py:small_fractals").all()
    one, other = (run.embed("ce", images=images, split="test", num_images=9) for images in (small_fractals, "fractals"))
    assert np.array_equal(one[0], other[0])


def test_a_dataset_of_hugging_face_is_named_by_its_folder(drifting_run: Path, tmp_path: Path) -> None:
    """`--dataset-root` is the name on the hub or a local folder; tables state dataset and root."""
    fractals = find("coupled.datasets", "fractals").load
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=[*map(str, range(10))]))
    saved = datasets.DatasetDict()
    for split in ("train", "test"):
        images = fractals(split, image_size=8)
        every = slice(None, 60 * (len(images) // 60), len(images) // 60)
        pictures = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images.images_N3HW[every]]
        rows = {"image": pictures, "label": images.labels_N[every].tolist()}
        saved[split] = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(tmp_path / "saved")
    frame = open_run(drifting_run).quality(
        arms="ce", epochs=2, layers="h", metrics=["nccc"], dataset="huggingface", dataset_root=tmp_path / "saved"
    )
    assert {*frame["dataset"]} == {f"huggingface:{tmp_path / 'saved'}"}
    assert frame["num_images"].tolist() == [60]
