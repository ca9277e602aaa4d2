"""export: every format loads in its target library and gives the outputs of the run's encoder."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from support import tiny
from torch import nn

from coupled.analysis import export_formats
from coupled.analysis.export import main
from coupled.analysis.export_formats import Source, to_huggingface, to_onnx
from coupled.analysis.run import open_run
from coupled.config.encoder_settings import EncoderSettings
from coupled.models.encoders import build_encoder

IMAGES = torch.linspace(-2, 2, 4 * 3 * 8 * 8).view(4, 3, 8, 8).sin()


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one arm: an untrained full-width ResNet-18 with ImageNet's stem."""
    folder = tmp_path_factory.mktemp("full") / "run"
    tiny.train(folder, epochs=0, arms={"cl": "dcl"}, encoder={"name": "resnet18", "stem": "imagenet"})
    return folder


def outputs(run: Path, arm: str, epoch: int) -> torch.Tensor:
    with torch.no_grad():
        return open_run(run).encoder(arm, epoch)(IMAGES)


def loaded(folder: Path) -> nn.Module:
    """Return the model that the exported loading script builds."""
    return runpy.run_path(str(folder / "load.py"))["load_encoder"]()  # type: ignore[no-any-return]


@torch.no_grad()
def test_timm_loads_a_narrow_network_with_the_stem_of_small_images(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the script beside the weights, which does not import this package and has all that is needed for use."""
    folder = tmp_path / "out"
    command = ["--run-dir", str(drifting_run), "--arm", "nscl", "--epoch", "1", "--format", "timm", str(folder)]
    assert main(command) == 0
    assert f"{folder}/load.py" in capsys.readouterr().out
    assert torch.equal(loaded(folder)(IMAGES), outputs(drifting_run, "nscl", 1))
    assert "coupled" not in (folder / "load.py").read_text()
    about = json.loads((folder / "metadata.json").read_text())
    images = open_run(drifting_run).images("train")
    assert (about["run"], about["arm"], about["epoch"], about["image_size"]) == ("drift", "nscl", 1, 8)
    assert (about["mean"], about["std"]) == ([*images.mean], [*images.std])
    assert about["snapshot_digest"] == open_run(drifting_run).snapshots.entry("nscl", 1).digest
    readme = (folder / "README.md").read_text()
    assert "arm `nscl` of the run `drift`" in readme
    assert str([*images.mean]) in readme


@torch.no_grad()
def test_timm_and_torchvision_load_a_resnet_strictly(full_run: Path, tmp_path: Path) -> None:
    """Also without the script: the tensors have the libraries' names and shapes."""
    import torchvision

    run = open_run(full_run)
    for format, build in (
        ("timm", lambda: timm.create_model("resnet18", num_classes=0)),
        ("torchvision", torchvision.models.resnet18),
    ):
        run.export(tmp_path / format, format)
        model = build()
        if format == "torchvision":
            model.fc = nn.Identity()
        model.load_state_dict(load_file(tmp_path / format / "model.safetensors"), strict=True)
        for each in (model.eval(), loaded(tmp_path / format)):
            torch.testing.assert_close(each(IMAGES), outputs(full_run, "cl", 0))


@torch.no_grad()
def test_timm_loads_the_hugging_face_folder(full_run: Path, tmp_path: Path) -> None:
    """As from the hub: architecture, weights and normalisation of images."""
    run = open_run(full_run)
    run.export(tmp_path / "hub", "huggingface", "cl", epoch=0)
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    torch.testing.assert_close(model(IMAGES), outputs(full_run, "cl", 0))
    config = timm.data.resolve_model_data_config(model)
    about = run.description["dataset"]
    assert ([*config["input_size"]], [*config["mean"]], [*config["std"]]) == ([3, 8, 8], about["mean"], about["std"])
    assert (tmp_path / "hub/README.md").read_text().startswith("---\nlibrary_name: timm\n")


def test_the_hugging_face_folder_keeps_the_options_of_a_vision_transformer() -> None:
    """Patch size 4 and image size are in config.json; the exported function loads it back."""
    encoder = build_encoder("vit_tiny_patch16_224", stem="cifar", image_size=8).eval()
    settings = EncoderSettings(name="vit_tiny_patch16_224")
    files = to_huggingface(Source(encoder, settings, 8, {"mean": [0.5] * 3, "std": [0.2] * 3}))
    assert json.loads(files["config.json"])["model_args"] == {"patch_size": 4, "img_size": 8}


@pytest.mark.slow
def test_onnxruntime_gives_the_same_embeddings(drifting_run: Path, tmp_path: Path) -> None:
    """For any number of images."""
    import onnxruntime

    open_run(drifting_run).export(tmp_path / "out", "onnx", "scl", epoch=2)
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    for images in (IMAGES, IMAGES[:1]):
        (found,) = session.run(["embeddings"], {"images": images.numpy()})
        with torch.no_grad():
            expected = open_run(drifting_run).encoder("scl", 2)(images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--format", "torchvision", "out"],
            "--format torchvision: torchvision has no resnet18 with encoder.width_mult",
        ),
        (
            ["--format", "huggingface", "out"],
            "--format huggingface: timm cannot build resnet18 with encoder.stem cifar",
        ),
        (["--format", "timm", "full"], "DIR: 'full' is not empty; choose a new folder"),
        (["--format", "tf", "out"], "argument --format: invalid choice: 'tf' (choose from "),
        (["out"], "the following arguments are required: --format"),
        (["--format", "timm"], "the following arguments are required: DIR"),
        (["--format", "timm", "out", "--epoch", "5"], "--epoch: arm 'nscl' has no snapshot of epoch 5 (epochs: 0-2)"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_in_one_line(
    drifting_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    """Nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert main(["--run-dir", str(drifting_run), "--arm", "nscl", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled export: {part}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_export_to_torchvision_is_refused_for_a_network_it_does_not_have(full_run: Path) -> None:
    """By architecture name and by stem."""
    run = open_run(full_run)
    source = Source(run.encoder("cl", 0), run.settings.encoder, 8, {})
    for changed, part in (
        ({"name": "vit_tiny_patch16_224"}, "'vit_tiny_patch16_224'"),
        ({"stem": "cifar"}, "stem cifar"),
    ):
        settings = source.settings.model_copy(update=changed)
        with pytest.raises(ValueError, match=f"torchvision has no .*{part}"):
            export_formats.to_torchvision(source._replace(settings=settings))


def test_export_of_an_encoder_that_is_not_from_timm_is_refused(full_run: Path) -> None:
    source = Source(open_run(full_run).encoder("cl", 0), EncoderSettings(name="mine.py:encoder"), 8, {})
    with pytest.raises(
        ValueError, match=r"^--format timm: the encoder 'mine.py:encoder' is not a timm model; use --form"
    ):
        export_formats.to_timm(source)


def test_export_is_refused_if_the_target_network_computes_other_outputs(
    full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matching tensors are not enough: torchvision's ResNet with another epsilon would load without an error."""
    import torchvision

    run, build = open_run(full_run), torchvision.models.get_model

    def other(name: str, **options: object) -> nn.Module:
        model = build(name, **options)
        model.relu = nn.Identity()
        return model

    monkeypatch.setattr(torchvision.models, "get_model", other)
    source = Source(run.encoder("cl", 0), run.settings.encoder, 8, {})
    with pytest.raises(ValueError, match="the outputs of the exported resnet18 differ from the encoder's"):
        export_formats.to_torchvision(source)


def test_a_missing_onnx_library_is_named_with_its_extra(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", sys)
    source = Source(open_run(full_run).encoder("cl", 0), EncoderSettings(name="resnet18"), 8, {})
    with pytest.raises(ValueError, match="onnx needs onnxscript: pip install onnx onnxscript onnxruntime"):
        to_onnx(source)
