"""Write the encoder of one arm as files that other programs load: timm, torchvision, ONNX or Hugging Face.

Before anything is written, the weights are loaded as the target loads them, and the outputs must equal those of the
run's encoder. A network that the target does not support is an error. README.md and metadata.json name the run, arm,
epoch, mean, std and image size.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coupled.analysis import output_parsers
from coupled.analysis.driver import run_program
from coupled.analysis.export_formats import TARGETS, Source
from coupled.analysis.output_parsers import FORMATS
from coupled.analysis.representations.other_images import normalisation
from coupled.analysis.run import Run, open_run
from coupled.analysis.selection import choices, select_snapshot
from coupled.models.encoders import encoder_width
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import write_durably
from coupled.stream.seeds import determinism

FORMAT = "coupled.export.1"
USAGE = {
    "timm": "from load import load_encoder  # load.py in this folder\n\nencoder = load_encoder()",
    "torchvision": "from load import load_encoder  # load.py in this folder\n\nencoder = load_encoder()",
    "huggingface": 'import timm\n\nencoder = timm.create_model("local-dir:THIS_FOLDER", pretrained=True).eval()',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
    '(embeddings,) = session.run(["embeddings"], {"images": images})',
}
README = """{front}# Encoder of arm `{arm}` of the run `{run}`

After {epoch} epochs on {dataset}. It maps images [B, 3, {size}, {size}] to embeddings [B, {width}].

```python
{usage}
```

Images: RGB, the largest central square resized to {size} x {size} pixels, values in [0, 1], then
(value - mean) / std per channel, with

* mean: {mean}
* std: {std}

`metadata.json` has the same information and the digest of the snapshot. Written by `coupled export --format {format}`.
"""
FRONT = "---\nlibrary_name: timm\ntags:\n- image-feature-extraction\n---\n"


def write(run: Run, folder: Path | str, format: str, arm: str | None = None, *, epoch: int | None = None) -> list[Path]:
    """Write the encoder of one arm as files that another program loads.

    Args:
        run: the run.
        folder: a folder that is new or empty.
        format: "timm", "torchvision", "onnx" or "huggingface".
        arm: the arm (default: the run's only arm).
        epoch: number of epochs trained (default: the last that has a snapshot).

    Returns:
        The paths of the files.

    Raises:
        ValueError: for an unknown arm, epoch or format, a folder that is not empty, a damaged snapshot, a network that
            the target does not support, or a missing library.

    Example:
        >>> sorted(path.name for path in write(run, "exported/nscl", "timm", arm="nscl"))
        ['README.md', 'load.py', 'metadata.json', 'model.safetensors']
    """
    (format,) = choices("format", format, FORMATS)
    arm, epoch = select_snapshot(run, arm, epoch)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"DIR: '{folder}' is not empty; choose a new folder")
    settings, encoder = run.settings, run.encoder(arm, epoch)
    mean, std = normalisation(run)
    about = {
        "format": FORMAT,
        "run": run.name,
        "arm": arm,
        "epoch": epoch,
        "dataset": settings.dataset.name,
        "image_size": settings.image_size,
        "mean": list(mean),
        "std": list(std),
        "num_features": encoder_width(encoder),
        "encoder": settings.encoder.model_dump(mode="json"),
        "settings_sha256": run.description["settings_sha256"],
        "snapshot_digest": run.snapshots.entry(arm, epoch).digest,
    }
    with determinism(True, None):
        files = TARGETS[format](Source(encoder, settings.encoder, settings.image_size, about))
    files["metadata.json"] = (json.dumps(about, indent=2) + "\n").encode()
    files["README.md"] = _readme(format, about).encode()
    for name, data in files.items():
        write_durably(folder / name, data)
    return [folder / name for name in files]


def _readme(format: str, about: dict[str, Any]) -> str:
    front = FRONT if format == "huggingface" else ""
    size, width = about["image_size"], about["num_features"]
    return README.format(**{**about, "format": format}, front=front, usage=USAGE[format], size=size, width=width)


def export(options: Namespace) -> None:
    """Write the files and print their paths."""
    for path in write(
        open_run(options.run, options.allow_code), options.folder, options.format, options.arm, epoch=options.epoch
    ):
        say(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(export, output_parsers.export(), arguments)
