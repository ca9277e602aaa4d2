"""A synthetic run folder: random networks whose weights diverge by arm and epoch; nothing is trained."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from support.browser import chromium
from torch import Tensor

from coupled.analysis import verify
from coupled.analysis.run import open_store
from coupled.analysis.verification import snapshots
from coupled.config.by_name import find
from coupled.config.schema import from_resolved
from coupled.models.network import build_network, shared_tensors
from coupled.storage.run_description import write_run_json

DRIFT = {"cl": 0.0, "nscl": 0.01, "scl": 0.03, "ce": 0.05}
SETTINGS: dict[str, Any] = {
    "name": "drift",
    "seed": 5,
    "epochs": 3,
    "dataset": {"name": "digits", "image_size": 8},
    "batch": {"size": 64},
    "encoder": {"name": "resnet18", "width_multiplier": 0.0625},
    "projector": {"hidden_dim": 16, "output_dim": 8},
    "optimizer": {"warmup_epochs": 0},
    "arms": {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"},
}


def drifted(arm: str, epoch: int) -> dict[str, Tensor]:
    """Return the tensors of an arm: the shared start plus a drift in the arm's direction; `ce` has one more head."""
    settings = from_resolved(SETTINGS)
    network = build_network(
        encoder=settings.encoder.name,
        width_multiplier=settings.encoder.width_multiplier,
        image_size=settings.image_size,
        projector_hidden_dim=settings.projector.hidden_dim,
        projector_output_dim=settings.projector.output_dim,
        seed=settings.seed,
    )
    generator = torch.Generator().manual_seed(list(DRIFT).index(arm) + 1)
    tensors = {}
    for name, tensor in shared_tensors(network).items():
        step = 0.02 * epoch + DRIFT[arm] * epoch * torch.rand(tensor.shape, generator=generator)
        tensors[name] = tensor + step * (tensor.abs() + 0.01) if tensor.is_floating_point() else tensor + epoch
    if arm == "ce":
        tensors["classifier.weight"] = torch.randn(10, 8, generator=generator)
        tensors["classifier.bias"] = torch.randn(10, generator=generator)
    return tensors


def make_run(folder: Path, epochs: Sequence[int] = (0, 1, 2), arms: Sequence[str] = tuple(DRIFT)) -> Path:
    """Write a run folder with snapshots of `arms` at `epochs`."""
    settings = from_resolved(SETTINGS)
    load = find("coupled.datasets", "digits").load
    digests = {f"{split}_digest": load(split, image_size=8).digest() for split in ("train", "test")}
    content = {
        "name": settings.name,
        "settings": settings.resolved(),
        "settings_sha256": settings.sha256(),
        "dataset": {"name": "digits", "classes": [str(digit) for digit in range(10)], **digests},
    }
    write_run_json(folder, content)
    store = open_store(folder, content)
    for epoch in epochs:
        for arm in arms:
            store.write(arm, epoch, drifted(arm, epoch), step=epoch, metadata={})
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of the report's page; skipped where it is not installed."""
    with chromium() as running:
        yield running


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    """The programs switch torch to deterministic algorithms for their own process; other tests stay as they are."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def once(function: Callable[..., Any], key: Callable[..., object]) -> Callable[..., Any]:
    """Call the function once for each key of the arguments; a ValueError is raised again."""
    found: dict[str, Any] = {}

    def known(*arguments: Any) -> Any:
        name = repr(key(*arguments))
        if name not in found:
            try:
                found[name] = function(*arguments)
            except ValueError as error:
                found[name] = error
        if isinstance(found[name], ValueError):
            raise ValueError(str(found[name]))
        return found[name]

    return known


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """verify.py builds networks and images, which no damage changes, once for equal settings."""
    build, load = snapshots.expected_tensors, verify.load_images
    monkeypatch.setattr(snapshots, "expected_tensors", once(build, lambda *both: both))
    monkeypatch.setattr(verify, "load_images", once(load, lambda settings, *more: (settings.dataset, more)))


@pytest.fixture(scope="session")
def drifting_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests must not change; they pass --output."""
    return make_run(tmp_path_factory.mktemp("runs") / "drift")


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run for one test, under tmp_path/runs."""
    return lambda name="own", **changed: make_run(tmp_path / "runs" / name, **changed)


@pytest.fixture
def table() -> Callable[[Path], list[dict[str, str]]]:
    """Read a CSV file with every cell as text."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that `measured` makes, once for all processes of pytest-xdist; tests only read it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    done = folder / "measured.done"
    with FileLock(folder / "measured.lock"):
        if not done.exists():
            measured(folder / "measured")
            done.touch()
    return folder / "measured"


def measured(folder: Path) -> Path:
    """A run of 4 epochs on which every program has run, with few images."""
    from coupled.analysis import alignment, bounds, collapse, losses, quality, verify, weight_gap
    from coupled.analysis.representations import intervals
    from coupled.metrics.arm import few_shot, few_shot_two_way

    run = make_run(folder, epochs=(0, 1, 2, 3))
    steps = ["epoch,step,inputs_digest,lr", *(f"{epoch},{epoch},d,0.{epoch}" for epoch in (1, 2, 3))]
    (run / "steps.csv").write_text("\n".join([*steps, ""]))
    epochs = [f"{epoch},{arm},{3 - epoch / 4},0.1,1.5,{900 + epoch}" for epoch in (1, 2, 3) for arm in DRIFT]
    (run / "epochs.csv").write_text("\n".join(["epoch,arm,loss,lr,seconds,images_per_second", *epochs, ""]))
    base = ["--run-dir", str(run)]
    few = [*base, "--num-images", "64"]
    metrics = ["nccc", "cdnv", "root_cdnv", "directional_cdnv", "few_shot", "few_shot_two_way"]
    calls: list[tuple[Any, list[str]]] = [
        (verify, [*base, "--output", str(run / "analysis")]),
        (weight_gap, base),
        (alignment, [*few, "--metrics", "cka", "rsa", "--confidence", "20", "--layers", "stages", "--cross-layer"]),
        (quality, [*few, "--metrics", *metrics, "--epochs", "0,3", "--split", "test"]),
        (collapse, [*few, "--epochs", "0,3", "--split", "test"]),
        (losses, [*few, "--temperatures", "1"]),
        (bounds, [*few, "--split", "test"]),
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "BLOCKS", 4)  # each is a score more for every pair of layers
        for metric in (few_shot, few_shot_two_way):
            patched.setattr(metric, "REPEATS", 2)
        for program, arguments in calls:
            assert program.main(arguments) in (0, 1)  # verify finds that a made-up steps.csv has no losses
    return run
