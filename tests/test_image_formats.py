"""Every dataset, in each format in which it is published, trains with the program."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest
import torch
from support import image_formats as formats
from torchvision.datasets import CIFAR10, CIFAR100

from coupled import prepare_data, train
from coupled.analysis import alignment, verify
from coupled.storage.dataset_record import ACCEPT

CONFIG = """
epochs: 1
device: cpu
batch: {size: 20}
encoder: {name: resnet18, width_multiplier: 0.0625}
projector: {hidden_dim: 16, output_dim: 8}
optimizer: {name: sgd, warmup_epochs: 0}
arms: {cl: dcl, nscl: nscl}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a temporary folder as the default data folder, and restore torch's switches."""
    monkeypatch.chdir(tmp_path)
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def _cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.cifar(CIFAR10, root, patch)


def _cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.cifar(CIFAR100, root, patch)


def _svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.svhn(root / "svhn", patch)


def _tiny_imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.write_files(root / "tiny-imagenet-200", formats.tiny_imagenet_files())


def _tiny_imagenet_archive(root: Path, patch: pytest.MonkeyPatch) -> None:
    archive = formats.write_zip(root / "tiny.zip", formats.tiny_imagenet_files(), "tiny-imagenet-200/")
    assert prepare_data.main(["tiny_imagenet", str(archive)]) == 0


def _tiny_imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_data.main(["tiny_imagenet", str(formats.write_parquet(root / "hub"))]) == 0


def _mini_imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.write_files(root / "mini-imagenet", formats.mini_imagenet_files())


def _mini_imagenet_archive(root: Path, patch: pytest.MonkeyPatch) -> None:
    archive = formats.write_tar(root / "mini.tar.gz", formats.mini_imagenet_files(), "mini-imagenet/")
    assert prepare_data.main(["mini_imagenet", str(archive)]) == 0


def _mini_imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    source = formats.write_parquet(root / "hub", size=(100, 90))
    assert prepare_data.main(["mini_imagenet", str(source)]) == 0


def _imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.write_files(root / "imagenet", formats.imagenet_files())


def _imagenet_archives(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_data.main(["imagenet", *map(str, formats.imagenet_archives(root / "archives"))]) == 0


def _imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_data.main(["imagenet", str(formats.write_parquet(root / "hub", size=(100, 90)))]) == 0


FORMATS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], int, str, str]] = {
    "cifar10": (_cifar10, 32, "cifar", "cifar"),
    "cifar100": (_cifar100, 32, "cifar", "cifar"),
    "svhn": (_svhn, 32, "cifar", "cifar"),
    "stl10": (formats.stl10, 96, "imagenet", "imagenet"),
    "tiny_imagenet": (_tiny_imagenet, 64, "cifar", "cifar"),
    "tiny_imagenet, archive": (_tiny_imagenet_archive, 64, "cifar", "cifar"),
    "tiny_imagenet, parquet": (_tiny_imagenet_parquet, 64, "cifar", "cifar"),
    "mini_imagenet": (_mini_imagenet, 84, "imagenet", "imagenet"),
    "mini_imagenet, archive": (_mini_imagenet_archive, 84, "imagenet", "imagenet"),
    "mini_imagenet, parquet": (_mini_imagenet_parquet, 84, "imagenet", "imagenet"),
    "imagenet": (_imagenet, 224, "imagenet", "imagenet"),
    "imagenet, archive": (_imagenet_archives, 224, "imagenet", "imagenet"),
    "imagenet, parquet": (_imagenet_parquet, 224, "imagenet", "imagenet"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_dataset_in_its_published_format_trains_one_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that users have are read as they are, at the dataset's image size."""
    make, size, stem, preset = FORMATS[name]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data", monkeypatch)
    description = run_steps(name.split(",")[0])
    assert description["settings"]["dataset"]["image_size"] == size
    assert description["settings"]["encoder"]["stem"] == stem
    assert description["settings"]["augmentation"]["preset"] == preset
    assert not list(tmp_path.rglob("*.partial"))


def test_every_program_uses_the_chosen_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a run has three classes, an analysis of all classes would silently measure something else."""
    formats.cifar(CIFAR10, tmp_path / "data", monkeypatch)
    named = run_steps("cifar10", "dataset.classes=[3, 5, 7]")
    assert named["dataset"]["classes"] == ["thing 3", "thing 5", "thing 7"]
    assert alignment.main(["--run-dir", "runs/try", "--layers", "h", "--metrics", "cka"]) == 0
    rows = pandas.read_csv("runs/try/analysis/test_alignment.csv")
    assert set(rows["num_images"]) == {6}
    drawn = run_steps("cifar10", "dataset.classes=3", "seed=1")["dataset"]
    assert drawn["classes"] == sorted(set(drawn["classes"]))
    assert len(drawn["classes"]) == 3
    assert drawn["train_digest"] != named["dataset"]["train_digest"]
    assert run_steps("cifar10", "dataset.classes=3", "seed=1")["dataset"] == drawn


def test_a_dataset_on_disk_is_trained_on_and_measured(tmp_path: Path) -> None:
    """Worker processes, a stop within an epoch, a choice of classes; the analysis uses the run's pictures or stops."""
    formats.write_files(tmp_path / "data" / "imagenet", formats.imagenet_files())
    options = ["batch.size=4", "dataset.image_size=32", f"dataset.classes=[2, {formats.WORDNET_IDS[0]}]"]
    alone = run_steps("imagenet", *options)
    steps = Path("runs/try/steps.csv").read_text()
    assert alone["dataset"]["classes"] == [formats.WORDNET_IDS[2], formats.WORDNET_IDS[0]]
    weights = Path("runs/try/snapshots/cl/epoch_0001.safetensors").read_bytes()
    again = ["--config", "try.yaml", "dataset.name=imagenet", *options, "dataset.num_workers=1"]
    assert train.main([*again, "--overwrite", "--max-steps", "2"]) == 0
    assert len(pandas.read_csv("runs/try/steps.csv")) == 2 < len(steps.splitlines()) - 1
    assert train.main([*again, "--resume"]) == 0
    assert Path("runs/try/steps.csv").read_text() == steps
    assert Path("runs/try/snapshots/cl/epoch_0001.safetensors").read_bytes() == weights
    assert alignment.main(["--run-dir", "runs/try", "--layers", "h", "--metrics", "cka"]) == 0
    assert set(pandas.read_csv("runs/try/analysis/test_alignment.csv")["num_images"]) == {4}


def test_a_picture_that_does_not_decode_stops_the_run_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found after a week, it would cost the run; pictures that were checked once are not decoded again."""
    formats.write_files(tmp_path / "data" / "imagenet", formats.imagenet_files())
    folders = [tmp_path / "data/imagenet" / part / formats.WORDNET_IDS[1] for part in ("train", "val")]
    bad = [next(folder.iterdir()) for folder in folders]
    whole = [path.read_bytes() for path in bad]
    for path in bad:
        path.write_bytes(path.read_bytes()[:-200])
    Path("try.yaml").write_text(CONFIG)
    start = ["--config", "try.yaml", "dataset.name=imagenet", "batch.size=4", "dataset.image_size=32"]
    assert train.main(start) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    for text in ("2 images cannot be decoded: ", *(f"{path}: not a readable image" for path in bad)):
        assert text in told.err
    assert "checking that 32 of 32 images decode" in told.out
    assert not Path("runs/try").exists()
    for path, data in zip(bad, whole, strict=True):
        path.write_bytes(data)
    assert train.main([*start, "--max-steps", "1", "dataset.num_workers=1"]) == 0
    assert "checking that 2 of 32 images decode" in capsys.readouterr().out
    monkeypatch.setattr("coupled.storage.image_check.faults", lambda *_: pytest.fail("decoded again"))
    assert train.main([*start, "--resume", "--max-steps", "2"]) == 0
    assert "24 train, 8 test images, 4 classes; 1 epoch of 6 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_changed_images_are_refused_unless_accepted_by_option(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A repaired picture must neither end a run or its analysis, nor remain unnoticed."""
    formats.write_files(tmp_path / "data", formats.imagenet_files())
    Path("try.yaml").write_text(CONFIG)
    start = ["--config", "try.yaml", f"dataset.name={name}", "dataset.root=data", "batch.size=4"]
    start += ["dataset.image_size=32"]
    assert train.main([*start, "--max-steps", "3"]) == 0
    before = json.loads(Path("runs/try/run.json").read_text())["dataset"]
    assert verify.main(["--run-dir", "runs/try"]) == 0
    changed = "train/n01629819/n01629819_train_2.JPEG"
    (tmp_path / "data" / changed).write_bytes(formats.jpeg(77, 20, 20))
    (tmp_path / "data/val/n01629819/n01629819_val_1.JPEG").rename(tmp_path / "data/val/n01629819/other.JPEG")
    capsys.readouterr()
    assert train.main([*start, "--resume"]) == 2
    told = capsys.readouterr().err
    renamed = "test new: val/n01629819/other.JPEG; gone: val/n01629819/n01629819_val_1.JPEG"
    for text in ("dataset: the images have changed", f"train changed: {changed}", "continue with", ACCEPT):
        assert text in told
    assert (renamed in told) == (name == "imagenet")  # pixels in memory have no names
    assert told.count("\n") == 1
    measure = ["--run-dir", "runs/try", "--layers", "h", "--metrics", "cka", "--split", "train", "--epochs", "0"]
    assert alignment.main(measure) == 2
    assert f"train changed: {changed}; restore the original images, or measure" in capsys.readouterr().err
    assert alignment.main([*measure, ACCEPT]) == 0
    assert f"train changed: {changed}; the images are measured as they are" in capsys.readouterr().err
    assert train.main([*start, ACCEPT]) == 2
    assert train.main([*start, "--resume", ACCEPT]) == 0
    after = json.loads(Path("runs/try/run.json").read_text())
    assert after["dataset"]["train_digest"] != before["train_digest"]
    assert after["earlier_images"] == [{"until_step": 3, "dataset": before}]
    capsys.readouterr()
    assert alignment.main(measure) == 0
    assert "changed" not in capsys.readouterr().err
    rows = pandas.read_csv("runs/try/analysis/train_alignment.csv")
    assert set(rows["images_digest"]) == {after["dataset"]["train_digest"][:16]}
    Path("runs/try/images.jsonl").write_text("[]\n")
    assert verify.main(["--run-dir", "runs/try"]) == 1
    assert "images.jsonl: damaged: expected digest" in capsys.readouterr().out


def test_equal_splits_and_skipped_files_are_reported_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A test split equal to the train split makes every score look good."""
    formats.write_files(tmp_path / "data", formats.imagenet_files())
    shutil.rmtree(tmp_path / "data/val")
    shutil.copytree(tmp_path / "data/train", tmp_path / "data/val")
    (tmp_path / "data/val" / formats.WORDNET_IDS[0] / "a.gif").write_bytes(b"")
    Path("try.yaml").write_text(CONFIG)
    for name, shown in (("folder", " of 64 px"), ("imagenet", "")):
        options = [f"dataset.name={name}", "dataset.root=data", "batch.size=4", "dataset.image_size=64"]
        assert train.main(["--config", "try.yaml", "--overwrite", "dataset.classes=[3, 0]", "epochs=0", *options]) == 0
        told = capsys.readouterr().out
        assert f"{name}, 12 train, 12 test images{shown}, 2 classes; 0 epochs of 3 steps\n" in told
        assert "classes: n01644900, n01443537\n" in told
        assert "warning: dataset: the test images of " in told
        assert "dataset: test: ignored 1 .gif; images are files that end in .jpg," in told
        looked = " that were looked at" if name == "imagenet" else ""
        total = 12 if name == "imagenet" else 24  # a folder counts the images of all classes
        assert told.count(f"dataset.image_size: {total} of {total} train images{looked} are enlarged to 64 px") == 1
        assert told.count("enlarged") == 1


def run_steps(name: str, *overrides: str) -> dict:
    """Train the dataset `name` for an epoch of one step or a few; run.json."""
    Path("try.yaml").write_text(CONFIG)
    arguments = ["--config", "try.yaml", "--overwrite", f"dataset.name={name}", *overrides]
    assert train.main(arguments) == 0
    assert len(pandas.read_csv("runs/try/steps.csv")) >= 1
    return json.loads(Path("runs/try/run.json").read_text())
