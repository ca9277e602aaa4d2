"""The formats of `coupled export`: functions that turn an encoder into files, returned as bytes by file name.

Each function loads the weights as the target does and compares the outputs with the encoder's. It raises ValueError if
the target does not support the network.
"""

import importlib
import io
import json
import math
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from coupled.config.encoder_settings import EncoderSettings
from coupled.models.encoders import encoder_width, timm_options

WEIGHTS, LOADER = "model.safetensors", "load.py"
TOLERANCE = 1e-4  # allowed difference of the outputs, as a share of the largest output
PROBE = 3  # images of the comparison
TORCHVISION = (  # ResNets with the same names and tensors in timm and torchvision
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
PROGRAM = '''"""The encoder of arm {arm} of the run {run} after {epoch} epochs. Needs {needs}.

    from load import load_encoder
    embeddings = load_encoder()(images)  # images [B, 3, {size}, {size}]: (value in [0, 1] - MEAN) / STD per channel
"""

from pathlib import Path

{imports}

MEAN = {mean}
STD = {std}
IMAGE_SIZE = {size}


def load_encoder() -> nn.Module:
    """Return the encoder with its weights, in evaluation mode."""
{lines}
    encoder.load_state_dict(load_file(Path(__file__).with_name("{weights}")), strict=True)
    return encoder.eval()
'''


class Source(NamedTuple):
    """An encoder in evaluation mode, its settings, and its metadata: run, arm, epoch, mean, std, ..."""

    encoder: nn.Module
    settings: EncoderSettings
    image_size: int
    about: dict[str, Any]

    def probe(self) -> Tensor:
        """Noise-like images [3, 3, S, S] with values from -2 to 2, without a random number generator."""
        shape = PROBE, 3, self.image_size, self.image_size
        return torch.arange(math.prod(shape)).double().square().mul(0.618).sin().mul(2).float().view(shape)


def to_timm(source: Source) -> dict[str, bytes]:
    """For timm: the weights, and load.py, which calls `timm.create_model` and loads them strictly.

    If timm cannot build the stem (for small images or another width), load.py replaces it.
    """
    name, options, stem = _timm_model(source, "timm")
    model = timm.create_model(name, num_classes=0, **options)
    lines = [f"encoder = timm.create_model({', '.join([repr(name), 'num_classes=0', *_keywords(options)])})"]
    if stem is not None:
        small = isinstance(source.encoder.get_submodule("maxpool"), nn.Identity)
        sizes = stem.out_channels, stem.kernel_size[0], stem.stride[0], int(stem.padding[0])
        text = "nn.Conv2d(3, {}, kernel_size={}, stride={}, padding={}, bias=False)".format(*sizes)
        model.add_module("conv1", nn.Conv2d(3, sizes[0], *sizes[1:], bias=False))
        lines.append(f"encoder.conv1 = {text}  # a stem that timm cannot build")
        if small:
            model.add_module("maxpool", nn.Identity())
            lines.append("encoder.maxpool = nn.Identity()")
    return _loadable(source, model, ["timm"], lines)


def to_torchvision(source: Source) -> dict[str, bytes]:
    """For torchvision: the weights, and load.py, which loads them strictly into a ResNet without `fc`."""
    settings, text = source.settings, "--format torchvision: torchvision has no"
    other = "; use --format timm or onnx"
    if settings.name not in TORCHVISION:
        raise ValueError(f"{text} '{settings.name}' with timm's tensors (it has {', '.join(TORCHVISION)}){other}")
    if settings.width_multiplier != 1:
        raise ValueError(f"{text} {settings.name} with encoder.width_multiplier {settings.width_multiplier:g}{other}")
    if settings.stem != "imagenet":
        raise ValueError(f"{text} {settings.name} with encoder.stem {settings.stem}{other}")
    import torchvision.models

    model = torchvision.models.get_model(settings.name, weights=None)
    model.fc = nn.Identity()
    lines = [f"encoder = models.{settings.name}()", "encoder.fc = nn.Identity()"]
    return _loadable(source, model, ["torchvision"], lines, imported="from torchvision import models")


def to_huggingface(source: Source) -> dict[str, bytes]:
    """For Hugging Face's hub: config.json and the weights, as timm reads them from "hf-hub:" and "local-dir:"."""
    name, options, stem = _timm_model(source, "huggingface")
    if stem is not None:
        raise ValueError(
            f"--format huggingface: timm cannot build {name} with encoder.stem {source.settings.stem} and"
            f" encoder.width_multiplier {source.settings.width_multiplier:g}; use --format timm, which writes a load.py"
            " that can, or onnx"
        )
    size, was = source.image_size, getattr(source.encoder, "pretrained_cfg", {})
    kept = {key: was[key] for key in ("fixed_input_size", "first_conv", "classifier") if key in was}
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder_width(source.encoder),
        "model_args": options,
        "pretrained_cfg": {
            **kept,
            "num_classes": 0,
            "input_size": [3, size, size],
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": source.about["mean"],
            "std": source.about["std"],
        },
    }
    files = {"config.json": (json.dumps(config, indent=2) + "\n").encode(), WEIGHTS: _weights(source)}
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            (Path(folder) / file).write_bytes(data)
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    _compare(source, "huggingface", model.eval())
    return files


def to_onnx(source: Source) -> dict[str, bytes]:
    """For ONNX: a graph from images [B, 3, S, S] to embeddings [B, D] for any B, checked with onnxruntime."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(module)
        except ImportError:
            raise ValueError(f"--format onnx needs {module}: pip install onnx onnxscript onnxruntime") from None
    import onnxruntime

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch warns about its own code
        program = torch.onnx.export(
            source.encoder,
            (source.probe(),),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (found,) = session.run(["embeddings"], {"images": images.numpy()})
        return torch.from_numpy(found)

    _compare(source, "onnx", run)
    return {"model.onnx": data}


TARGETS: dict[str, Callable[[Source], dict[str, bytes]]] = {
    "timm": to_timm,
    "torchvision": to_torchvision,
    "onnx": to_onnx,
    "huggingface": to_huggingface,
}


def _timm_model(source: Source, target: str) -> tuple[str, dict[str, Any], nn.Conv2d | None]:
    """The name and options of timm's model, and the stem that replaces its own. Raises ValueError."""
    settings = source.settings
    if not timm.is_model(settings.name):
        raise ValueError(f"--format {target}: the encoder '{settings.name}' is not a timm model; use --format onnx")
    options, replaces = timm_options(
        settings.name, settings.width_multiplier, settings.stem, source.image_size, settings.timm_options
    )
    stem = source.encoder.get_submodule("conv1") if replaces else None
    assert stem is None or isinstance(stem, nn.Conv2d)
    return settings.name, options, stem


def _loadable(
    source: Source, model: nn.Module, libraries: list[str], lines: list[str], imported: str = ""
) -> dict[str, bytes]:
    """The weights and load.py; `lines` are its code that builds `model`, in which the weights are tested."""
    model.load_state_dict(source.encoder.state_dict(), strict=True)
    _compare(source, libraries[0], model.eval())
    imports = [imported or f"import {libraries[0]}", "from safetensors.torch import load_file", "from torch import nn"]
    text = PROGRAM.format(
        **{key: source.about[key] for key in ("run", "arm", "epoch", "mean", "std")},
        needs=", ".join(["torch", *libraries, "safetensors"]),
        size=source.image_size,
        imports="\n".join(sorted(imports, key=lambda line: (not line.startswith("import"), line))),
        lines="\n".join(f"    {line}" for line in lines),
        weights=WEIGHTS,
    )
    return {WEIGHTS: _weights(source), LOADER: text.encode()}


def _weights(source: Source) -> bytes:
    tensors = {name: tensor.contiguous() for name, tensor in source.encoder.state_dict().items()}
    return save(tensors, metadata={"format": "pt", "coupled": json.dumps(source.about, sort_keys=True)})


def _keywords(options: dict[str, Any]) -> list[str]:
    return [f"{name}={value!r}" for name, value in options.items()]


@torch.no_grad()
def _compare(source: Source, target: str, loaded: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError if the outputs of the loaded model differ from those of the encoder."""
    images = source.probe()
    expected, found = source.encoder(images), loaded(images)
    difference = (found - expected).abs().max().item() if found.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * expected.abs().max().item():
        name = source.settings.name
        raise ValueError(
            f"--format {target}: the outputs of the exported {name} differ from the encoder's by up to {difference:g};"
            f" allowed is {TOLERANCE:g} of the largest output"
        )
