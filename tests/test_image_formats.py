"""Every image set, in each format in which it is published, trains through the program."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import image_formats as formats
import pandas
import prepare_images
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from analysis import alignment
from coupled import train

CONFIG = """
epochs: 1
device: cpu
batch: {size: 20}
encoder: {name: resnet18, width: 0.0625}
projector: {hidden: 16, out: 8}
optimizer: {name: sgd, warmup_epochs: 0}
arms: {cl: dcl, nscl: nscl}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The images lie where they are looked for by default; the program's switches of torch are put back."""
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
    assert prepare_images.main(["tiny_imagenet", str(archive)]) == 0


def _tiny_imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_images.main(["tiny_imagenet", str(formats.write_parquet(root / "hub"))]) == 0


def _mini_imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.write_files(root / "mini-imagenet", formats.mini_imagenet_files())


def _mini_imagenet_archive(root: Path, patch: pytest.MonkeyPatch) -> None:
    archive = formats.write_tar(root / "mini.tar.gz", formats.mini_imagenet_files(), "mini-imagenet/")
    assert prepare_images.main(["mini_imagenet", str(archive)]) == 0


def _mini_imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    source = formats.write_parquet(root / "hub", size=(100, 90))
    assert prepare_images.main(["mini_imagenet", str(source)]) == 0


def _imagenet(root: Path, patch: pytest.MonkeyPatch) -> None:
    formats.write_files(root / "imagenet", formats.imagenet_files())


def _imagenet_archives(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_images.main(["imagenet", *map(str, formats.imagenet_archives(root / "archives"))]) == 0


def _imagenet_parquet(root: Path, patch: pytest.MonkeyPatch) -> None:
    assert prepare_images.main(["imagenet", str(formats.write_parquet(root / "hub", size=(100, 90)))]) == 0


FORMATS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], int, str, str]] = {
    "cifar10": (_cifar10, 32, "small", "small"),
    "cifar100": (_cifar100, 32, "small", "small"),
    "svhn": (_svhn, 32, "small", "small"),
    "stl10": (formats.stl10, 96, "standard", "large"),
    "tiny_imagenet": (_tiny_imagenet, 64, "small", "small"),
    "tiny_imagenet, archive": (_tiny_imagenet_archive, 64, "small", "small"),
    "tiny_imagenet, parquet": (_tiny_imagenet_parquet, 64, "small", "small"),
    "mini_imagenet": (_mini_imagenet, 84, "standard", "large"),
    "mini_imagenet, archive": (_mini_imagenet_archive, 84, "standard", "large"),
    "mini_imagenet, parquet": (_mini_imagenet_parquet, 84, "standard", "large"),
    "imagenet": (_imagenet, 224, "standard", "large"),
    "imagenet, archive": (_imagenet_archives, 224, "standard", "large"),
    "imagenet, parquet": (_imagenet_parquet, 224, "standard", "large"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_in_its_own_format_trains_one_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has on the disk is what the program reads, shown as suits the set."""
    make, size, stem, recipe = FORMATS[name]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data", monkeypatch)
    description = run_steps(name.split(",")[0])
    assert description["settings"]["encoder"]["image_size"] == size
    assert description["settings"]["encoder"]["stem"] == stem
    assert description["settings"]["views"]["recipe"] == recipe
    assert not list(tmp_path.rglob("*.partial"))


def test_every_program_sees_the_chosen_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An analysis of all classes, of a run with three, would measure something else and say nothing."""
    formats.cifar(CIFAR10, tmp_path / "data", monkeypatch)
    named = run_steps("cifar10", "image_set.classes=[3, 5, 7]")
    assert named["image_set"]["classes"] == ["thing 3", "thing 5", "thing 7"]
    assert alignment.main(["--run", "runs/try", "--layer", "h", "--metrics", "cka"]) == 0
    rows = pandas.read_csv("runs/try/analysis/test_alignment.csv")
    assert set(rows["samples"]) == {6}
    drawn = run_steps("cifar10", "image_set.classes=3", "seed=1")["image_set"]
    assert drawn["classes"] == sorted(set(drawn["classes"]))
    assert len(drawn["classes"]) == 3
    assert drawn["train_digest"] != named["image_set"]["train_digest"]
    assert run_steps("cifar10", "image_set.classes=3", "seed=1")["image_set"] == drawn


def test_pictures_on_the_disk_are_trained_on_and_measured(tmp_path: Path) -> None:
    """Worker processes, a stop in mid-epoch, a choice of classes; the analysis sees the run's pictures or refuses."""
    formats.write_files(tmp_path / "data" / "imagenet", formats.imagenet_files())
    options = ["batch.size=4", "encoder.image_size=32", f"image_set.classes=[2, {formats.WORDNET_IDS[0]}]"]
    alone = run_steps("imagenet", *options)
    steps = Path("runs/try/steps.csv").read_text()
    assert alone["image_set"]["classes"] == [formats.WORDNET_IDS[2], formats.WORDNET_IDS[0]]
    weights = Path("runs/try/snapshots/cl/epoch_0001.safetensors").read_bytes()
    again = ["--config", "try.yaml", "image_set.name=imagenet", *options, "batch.workers=1"]
    assert train.main([*again, "--overwrite", "--until-step", "2"]) == 0
    assert len(pandas.read_csv("runs/try/steps.csv")) == 2 < len(steps.splitlines()) - 1
    assert train.main([*again, "--resume"]) == 0
    assert Path("runs/try/steps.csv").read_text() == steps
    assert Path("runs/try/snapshots/cl/epoch_0001.safetensors").read_bytes() == weights
    assert alignment.main(["--run", "runs/try", "--layer", "h", "--metrics", "cka"]) == 0
    assert set(pandas.read_csv("runs/try/analysis/test_alignment.csv")["samples"]) == {4}
    picture = next((tmp_path / "data/imagenet/val" / formats.WORDNET_IDS[0]).iterdir())
    picture.write_bytes(formats.jpeg(5, 20, 20))
    assert alignment.main(["--run", "runs/try", "--output", "other"]) == 2


def run_steps(name: str, *overrides: str) -> dict:
    """Train the image set `name` for an epoch of one step or a few; run.json."""
    Path("try.yaml").write_text(CONFIG)
    arguments = ["--config", "try.yaml", "--overwrite", f"image_set.name={name}", *overrides]
    assert train.main(arguments) == 0
    assert len(pandas.read_csv("runs/try/steps.csv")) >= 1
    return json.loads(Path("runs/try/run.json").read_text())
