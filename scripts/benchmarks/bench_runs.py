"""Benchmark whole runs: start, four arms against four runs of one, an epoch of CIFAR-10, waiting for snapshots.

    python scripts/benchmarks/bench_runs.py [--device cuda] [--data FOLDER] [--seconds 120]

Runs that are compared are separate processes; their time includes the start. `--data` is a folder with
`cifar10.tar.xz` (train/<class>/*.jpg, test/<class>/*.jpg), which is unpacked and read as an image folder.
"""

import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_coupling import ARMS, bare_step, coordinator, passed
from PIL import Image
from rows import Case, Options, Row, fresh, in_turn, row, run, started

from coupled.storage.checkpoint_writer import CheckpointWriter

ROOT = Path(__file__).parents[2]


def start_rows(options: Options, data: Callable[[], str] | None = None) -> list[Row]:
    """Measure the first line and the first step of a run, against importing torch, torchvision and timm."""
    command = [sys.executable, str(ROOT / "coupled/train.py")]
    with tempfile.TemporaryDirectory() as folder:
        changed = [f"device={options.device}"]
        if data:
            changed += ["dataset.name=folder", f"dataset.root={data()}", "batch.size=1024"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, torchvision, timm"], check=True)
        imports = time.perf_counter() - began
        began = time.perf_counter()
        subprocess.run([*command, "--help"], check=True, capture_output=True)
        helped = time.perf_counter() - began
        began = time.perf_counter()
        config = ["--config", str(ROOT / "configs/demo.yaml"), "--run-dir", f"{folder}/run", "--max-steps", "1"]
        with started([*command, *config, *changed]) as child:
            assert child.stdout is not None
            child.stdout.readline()
            first_line = time.perf_counter() - began
            child.communicate()
        if child.returncode:
            raise RuntimeError(f"train.py ended with status {child.returncode}")
        first_step = time.perf_counter() - began
    what = "CIFAR-10, 50 000 JPEGs" if data else "the demo"
    return [
        row("train.py --help, against importing torch, torchvision and timm", helped, imports, "under 0.5 s"),
        row(f"{what}: first line of progress, against the same imports", first_line, imports, "under 1 s"),
        row(f"{what}: end of the first step of 4 arms, against the same imports", first_step, imports, "under 15 s"),
    ]


def four_runs(name: str, options: Options, root: str | None = None) -> Row:
    """Measure a run of four arms against four runs of one arm, each in a separate process."""
    arms = list(ARMS)[:2] if options.tiny else list(ARMS)
    taken = []
    for chosen in (arms, *([each] for each in arms)):
        began = time.perf_counter()
        peak = fresh(__file__, train, chosen, options.device, options.tiny, root, options=options)
        taken.append((time.perf_counter() - began, peak[0] or peak[1]))
    (ours, ours_mib), *alone = taken
    return row(name, ours, sum(s for s, _ in alone), 1.0, ours_mib=ours_mib, baseline_mib=max(mib for _, mib in alone))


def train(arms: list[str], device: str, tiny: bool, root: str | None) -> float:
    """Train these arms for two epochs in this process. Return the peak MiB of the GPU, 0 on a CPU."""
    import torch

    options = Options(device=device, tiny=tiny)
    changed: dict[str, Any] = {"epochs": 1 if tiny else 2, "arms": {name: ARMS[name] for name in arms}}
    if root:  # decoding costs more than these networks
        small = {"name": "resnet18", "width_multiplier": 0.0625}
        size = 32 if tiny else 224
        changed |= {
            "dataset": {"name": "imagenet", "root": root, "image_size": size},
            "batch": {"size": 64},
            "encoder": small,
        }
    with coordinator(options, **changed) as coupled, contextlib.redirect_stdout(io.StringIO()):
        coupled.train()
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0


def decoded_row(name: str, options: Options) -> Row:
    """Measure `four_runs` on images that are decoded while training."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        return four_runs(name, options, folder)


def write_pictures(root: Path) -> None:
    """Write JPEGs into ImageNet's folders. They are smooth, so the files are as large as those of photographs."""
    draws = np.random.Generator(np.random.Philox(key=0))
    for split, klass in ((split, klass) for split in ("train", "val") for klass in range(4)):
        folder = root / split / f"class{klass}"
        folder.mkdir(parents=True)
        for number in range(32 if split == "train" else 1):
            coarse = Image.fromarray(draws.integers(0, 256, (36, 48, 3), dtype=np.uint8))
            picture = coarse.resize((480, 360), Image.Resampling.BICUBIC)
            picture.save(folder / f"{number:04d}.JPEG", quality=90)


@contextlib.contextmanager
def timed_saves() -> Iterator[list[tuple[float, float]]]:
    """Yield a list of (beginning, end) of every call of `CheckpointWriter.save` in the block."""
    save, calls = CheckpointWriter.save, list[tuple[float, float]]()

    def timed(writer: CheckpointWriter, *arguments: Any, **named: Any) -> None:
        began = time.monotonic()
        save(writer, *arguments, **named)
        calls.append((began, time.monotonic()))

    setattr(CheckpointWriter, "save", timed)  # noqa: B010 - mypy refuses the plain assignment
    try:
        yield calls
    finally:
        setattr(CheckpointWriter, "save", save)  # noqa: B010


def epoch_rows(name: str, options: Options, data: Callable[[], str] | None = None) -> list[Row]:
    """Measure an epoch with its snapshots and checkpoint against the bare networks on as many ready batches."""
    changed: dict[str, Any] = {"epochs": 2 if options.tiny else 3}
    if data:
        changed["dataset"] = {"name": "folder", "root": data(), "image_size": 32}
    with coordinator(options, **changed) as coupled:
        ready, steps = next(passed(coupled)), coupled.steps_per_epoch
        bare = in_turn(lambda: bare_step(coupled.arms, ready), repeats=3)[0]
    quiet = contextlib.redirect_stdout(io.StringIO())
    with coordinator(options, **changed) as coupled, timed_saves() as calls, quiet:
        coupled.train()
    (_, before), (began, end) = calls[-2:]
    epoch, waited = end - before, end - began
    return [
        row(f"{name}, against the bare networks", epoch, bare * steps, 0.93),
        row(f"{name}: waiting for snapshots and checkpoint, against the epoch", waited, epoch, "under 1 %"),
    ]


@cache
def unpacked(archive: Path) -> tempfile.TemporaryDirectory[str]:
    """Unpack the archive once, into a folder that is removed when the program ends."""
    folder = tempfile.TemporaryDirectory()
    with tarfile.open(archive) as opened:
        opened.extractall(folder.name, filter="data")
    return folder


def cases(options: Options) -> list[Case]:
    """List the rows, the most important first."""
    lacks = "" if options.gpu else "no GPU"
    if options.data is None:
        lacks = lacks or "no --data"

    def cifar10() -> str:
        assert options.data is not None
        return unpacked(options.data / "cifar10.tar.xz").name

    found = [
        Case("epoch of CIFAR-10 (JPEG), 4 arms", partial(epoch_rows, "epoch of CIFAR-10", options, cifar10), lacks),
        Case("time to the first step, CIFAR-10 (JPEG)", partial(start_rows, options, cifar10), lacks),
    ]
    small = "epoch of 4 arms on the digits"
    found.append(Case(small, partial(epoch_rows, small, options)))
    runs = "run of 4 arms, against four runs of one"
    found.append(Case(runs, partial(four_runs, runs, options)))
    if not options.tiny:
        decoded = "run of 4 arms on images that are decoded, against four runs of one"
        found.append(Case("time to the first step, the demo", partial(start_rows, options)))
        found.append(Case(decoded, partial(decoded_row, decoded, options)))
    return found


if __name__ == "__main__":
    run(cases, __doc__ or "", {"train": train})
