"""A run small enough for tests: digits at 8 px, a ResNet of four blocks with a few channels, 5 steps per epoch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from coupled.config.load import resolve
from coupled.config.schema import Settings
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import process_group

REPOSITORY = Path(__file__).parents[2]

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "epochs": 2,
    "device": "cpu",
    "num_threads": 1,
    "dataset": {"name": "digits", "image_size": 8},
    "batch": {"size": 256},
    "augmentation": {"crop_scale": [0.5, 1.0], "hflip_prob": 0.0},
    "encoder": {"name": "resnet18", "width_multiplier": 0.0625, "timm_options": {"layers": [1, 1, 1, 1]}},
    "projector": {"hidden_dim": 32, "output_dim": 16},
    "optimizer": {"name": "sgd", "base_lr": 0.06, "warmup_epochs": 0},
    "arms": {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"},
}

# 288 train images instead of 1 440, and 5 steps per epoch as before: a training takes half as long
FEW_IMAGES: dict[str, Any] = {
    "dataset": {"name": "digits", "image_size": 8, "classes": [0, 1]},
    "batch": {"size": 52},
}

TINY_YAML = """
epochs: 1
device: cpu
dataset: {name: digits, image_size: 8}
augmentation: {crop_scale: [0.5, 1.0], hflip_prob: 0.0}
encoder: {name: resnet18, width_multiplier: 0.0625, timm_options: {layers: [1, 1, 1, 1]}}
projector: {hidden_dim: 32, output_dim: 16}
optimizer: {name: sgd, base_lr: 6e-2, warmup_epochs: 0}
"""


def tiny_settings(**changed: Any) -> Settings:
    """Return the settings of the tiny run with some top-level keys replaced."""
    return resolve({**TINY, **changed})


def train(
    run: Path, resume: bool = False, overwrite: bool = False, max_steps: int | None = None, **changed: Any
) -> Coordinator:
    """Train the tiny run into `run` in this process and return the coordinator.

    A changed key may end with an underscore: `resume_` is the section `resume`.
    """
    settings = tiny_settings(**{key.rstrip("_"): value for key, value in changed.items()})
    with process_group(settings.device, settings.timeout_seconds, settings.parallel.arm_groups) as group:
        coordinator = Coordinator(settings, group, run)
        coordinator.outcome = coordinator.train(resume, overwrite, max_steps)  # for the test to look at
        for arm in coordinator.arms:
            arm.replica = arm.network  # torch 2.11: deleting a DDP after its process group may hang
    return coordinator


def snapshot_bytes(run: Path) -> dict[str, bytes]:
    """Return the bytes of every snapshot file of a run, by its path below the snapshot folder."""
    folder = run / "snapshots"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def program(*arguments: str | Path, cwd: Path, launcher: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of the repository in a subprocess, as a user does."""
    launcher = launcher or [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=environment, timeout=300
    )


def tensors(run: Path, arm: str, epoch: int) -> dict[str, Tensor]:
    """Return the tensors of a snapshot."""
    return load_file(run / f"snapshots/{arm}/epoch_{epoch:04d}.safetensors")
