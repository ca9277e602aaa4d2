"""Distributed runs train the same networks for any number of ranks and arm groups; differences stop the run."""

import json
import os
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from safetensors.torch import load_file
from support import ranks, tiny
from torch import Tensor

from coupled.arms.arm import Arm
from coupled.parallel.failure_broadcast import RunError
from coupled.stream.batches import Batch

pytestmark = pytest.mark.distributed

SMALL: dict[str, Any] = {  # timm's smallest ResNet, because each of its 15 batch norms synchronises all ranks
    "batch": {"size": 72},  # 20 steps
    "epochs": 1,
    "encoder": {"name": "test_resnet", "stem": "imagenet"},
}
OWN_SECTIONS = {"objective": "nscl", "projector": {"output_dim": 24}, "augmentation": {"brightness": 0.8}}
FEW: dict[str, Any] = {**SMALL, "batch": {"size": 360}, "epochs": 2}  # 4 steps an epoch


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> None:
    tiny.train(run, **changed)


def train(world_size: int, run: Path, **changed: Any) -> Path:
    ranks.run(world_size, train_on_a_rank, run, changed)
    return run


def vectors(run: Path, step: int) -> dict[str, Tensor]:
    """All parameters of an arm as one vector and all running statistics as another, in their precision."""
    parts: dict[str, list[Tensor]] = {}
    for path in sorted((run / f"checkpoints/step_{step:08d}").glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            if name.startswith("network/") and tensor.is_floating_point():
                kind = "statistics" if ".running_" in name else "parameters"
                parts.setdefault(f"{path.stem} {kind}", []).append(tensor.double().flatten())
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "encoder", "base_lr", "arms", "world_sizes", "tolerance"),
    [
        ("float32", "test_efficientnet", 0.02, {"cl": "dcl"}, (1, 4), 1e-5),
        ("float64", "test_resnet", 0.06, {"scl": "supcon"}, (1, 2, 4), 1e-10),
    ],
)
def test_one_two_and_four_ranks_run_the_same_experiment(
    precision: str,
    encoder: str,
    base_lr: float,
    arms: dict[str, str],
    world_sizes: tuple[int, ...],
    tolerance: float,
    tmp_path: Path,
) -> None:
    """The number of processes must not be a hidden setting of the experiment.

    The float32 case has an encoder without ReLU. At the kink of ReLU a rounding error can change the gradient by an
    unpredictable amount. `test_arm.py` compares the gradients of every objective.
    """
    optimizer = {**tiny.TINY["optimizer"], "base_lr": base_lr}
    changed = {
        **SMALL,
        "precision": precision,
        "arms": arms,
        "optimizer": optimizer,
        "encoder": {**SMALL["encoder"], "name": encoder},
    }
    runs = {w: train(w, tmp_path / str(w), **changed) for w in world_sizes}
    inputs = {w: pandas.read_csv(run / "steps.csv")["inputs_digest"].tolist() for w, run in runs.items()}
    assert all(digests == inputs[1] for digests in inputs.values())
    assert len(inputs[1]) == 20
    start, one = vectors(runs[1], 0), vectors(runs[1], 20)
    for world_size in world_sizes[1:]:
        for name, found in vectors(runs[world_size], 20).items():
            difference, moved = relative(found, one[name]), relative(start[name], one[name])
            print(f"W={world_size} {precision} {name}: differ by {difference:.1e}, moved by {moved:.1e}")
            assert difference < tolerance, name
            assert moved > 50 * tolerance, name


@pytest.mark.slow
def test_arms_on_separate_ranks_have_the_bytes_of_one_rank(tmp_path: Path) -> None:
    """Weights, manifest and log do not depend on the rank that trains an arm; one of three ranks has two arms."""
    arms = {"cl": "dcl", "nscl": OWN_SECTIONS, "scl": "supcon", "ce": "cross_entropy"}
    one = train(1, tmp_path / "one", **FEW, arms=arms)
    several = train(3, tmp_path / "several", **FEW, arms=arms, parallel={"arm_groups": 3})
    assert_same_run(one, several)


def assert_same_run(one: Path, other: Path) -> None:
    assert tiny.snapshot_bytes(other) == tiny.snapshot_bytes(one)
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        assert (other / file).read_bytes() == (one / file).read_bytes()
    timeless = [
        pandas.read_csv(run / "epochs.csv").drop(columns=["seconds", "images_per_second"]) for run in (one, other)
    ]
    pandas.testing.assert_frame_equal(*timeless, check_exact=True)
    assert [path.name for path in (one / "checkpoints").iterdir()] == [
        path.name for path in (other / "checkpoints").iterdir()
    ]


@pytest.mark.slow
def test_arms_and_data_on_four_ranks_equal_data_on_two(tmp_path: Path) -> None:
    """On a 2 x 2 mesh, each half trains its arms bit for bit like two ranks that train all arms."""
    arms = {"cl": "dcl", "nscl": OWN_SECTIONS, "ce": "cross_entropy"}
    two = train(2, tmp_path / "two", **FEW, arms=arms)
    four = train(4, tmp_path / "four", **FEW, arms=arms, parallel={"arm_groups": 2})
    assert_same_run(two, four)
    placed = json.loads((four / "run.json").read_text())["placement"]
    assert sorted(map(len, placed)) == [1, 2]


@pytest.mark.slow
def test_a_run_can_be_resumed_with_its_arms_on_other_ranks(tmp_path: Path) -> None:
    """A checkpoint names arms, not ranks. The run starts on one rank, continues on two and ends on one."""
    changed = {**FEW, "arms": {"cl": "dcl", "nscl": "nscl"}}
    whole = train(1, tmp_path / "whole", **changed)
    cut, apart = tmp_path / "cut", {**changed, "parallel": {"arm_groups": 2}}
    ranks.run(1, until, cut, changed, 2)
    ranks.run(2, until, cut, apart, 3)
    ranks.run(2, stopped_after_an_epoch, cut, apart)
    ranks.run(1, until, cut, changed, None)
    assert_same_run(whole, cut)


def until(run: Path, changed: dict[str, Any], step: int | None) -> None:
    tiny.train(run, resume=True, max_steps=step, **changed)


@pytest.mark.slow
def test_a_run_resumed_on_four_ranks_has_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    """On three or more ranks the order of a sum over ranks could depend on their start times."""
    changed = {**FEW, "arms": {"cl": "dcl"}}
    whole = train(4, tmp_path / "whole", **changed)
    for step in (3, None):
        ranks.run(4, until, tmp_path / "cut", changed, step)
    assert_same_run(whole, tmp_path / "cut")


def elsewhere(run: Path) -> str:
    """Resume while rank 1 sees another folder, as on machines without a shared file system."""
    own = run if os.environ["RANK"] == "0" else run.with_name("other")
    with pytest.raises(RunError, match="must see the same folder") as error:
        tiny.train(own, resume=True, **FEW, arms={"cl": "dcl"})
    return str(error.value)


def test_ranks_with_different_run_folders_are_rejected(tmp_path: Path) -> None:
    """One rank would start a run and another would resume it, and they would wait for each other for ever."""
    ranks.run(2, until, tmp_path / "run", {**FEW, "arms": {"cl": "dcl"}}, 4)
    for said in ranks.run(2, elsewhere, tmp_path / "run"):
        assert said.startswith("rank 1 finds no run.json in")


def stopped_after_an_epoch(run: Path, changed: dict[str, Any]) -> None:
    def gradients(arm: Arm, batch: Batch) -> Tensor:
        if (batch.epoch, batch.number) == (2, 1):
            raise KeyboardInterrupt
        return usual(arm, batch)

    usual, Arm.gradients = Arm.gradients, gradients
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny.train(run, resume=True, **changed)
    finally:
        Arm.gradients = usual


NUDGED = {
    "weight": "encoder.layer1.0.conv1.weight",
    "buffer": "encoder.bn1.running_mean",
    "queue": "kept.queue",  # in no snapshot; DDP averages its effect on the gradients away
}


def drifting(run: Path, how: str) -> str:
    """Train with a fault on one rank or in the arm; return the message that stopped the run."""
    usual, made = Arm.gradients, Arm.__init__

    def nudged(arm: Arm, batch: Batch) -> Tensor:
        result = usual(arm, batch)
        if how in NUDGED and os.environ["RANK"] == "1" and batch.number == 2 and arm.name == "ce":
            with torch.no_grad():
                arm.tensors()[NUDGED[how]][3] += 1e-6
        return result

    def bypassed(arm: Arm, *arguments: Any, **options: Any) -> None:
        made(arm, *arguments, **options)
        if how == "bypassed" and arm.name == "ce":
            arm.replica = arm.network

    Arm.gradients, Arm.__init__ = nudged, bypassed
    try:
        large = {"objective": "moco", "queue_size": 4096}  # no step replaces its row 3
        tiny.train(run, **FEW, arms={"cl": "dcl", "ce": large if how == "queue" else "cross_entropy"})
    except RunError as error:
        return str(error)
    finally:
        Arm.gradients, Arm.__init__ = usual, made
    return "no alarm"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("weight", "arm 'ce': tensor 'encoder.layer1.0.conv1.weight' on rank 1 differs"),
        ("buffer", "arm 'ce': tensor 'encoder.bn1.running_mean' on rank 1 differs"),
        ("queue", "arm 'ce': tensor 'kept.queue' on rank 1 differs"),
        ("bypassed", "arm 'ce': tensor 'encoder.conv1.0.weight' on rank 1 differs"),
        ("in step", "no alarm"),
    ],
)
def test_a_difference_between_ranks_stops_the_run(how: str, message: str, tmp_path: Path) -> None:
    """A changed weight on one rank, or a forward pass that bypasses DDP, would train different networks."""
    for said in ranks.run(2, drifting, tmp_path / "run", how):
        assert said.startswith(message)
    assert (tmp_path / "run/snapshots/ce/epoch_0001.safetensors").exists() == (how == "in step")


def refused(run: Path, changed: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=r"batch\.size|parallel") as error:
        tiny.train(run, **changed)
    return str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"batch": {"size": 71}},
            "batch.size: got 71 for 2 processes that share it; use a multiple of 2: 70 or 72",
        ),
        ({"parallel": {"arm_groups": 3}}, "parallel.arm_groups: got 3 for 2 processes; it must divide them: 1, 2"),
        (
            {"parallel": {"arm_groups": 5}},
            "settings: parallel.arm_groups: got 5 with 4 arms; at most one group per arm",
        ),
    ],
)
def test_impossible_layouts_are_rejected(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message lists the possible values."""
    assert ranks.run(2, refused, tmp_path / "run", changed) == [message, message]
    assert not (tmp_path / "run").exists()


ONE_EPOCH: dict[str, Any] = {
    "epochs": 1,
    "arms": {"cl": "dcl", "ce": "cross_entropy"},
    "optimizer": {
        **tiny.TINY["optimizer"],
        "base_lr": 0.01,
    },  # at higher rates rounding changes the loss by 2 %
}


def in_bfloat16(run: Path) -> list[float]:
    coordinator = tiny.train(run, **ONE_EPOCH, precision="bfloat16")
    assert {p.dtype for arm in coordinator.arms for p in arm.network.parameters()} == {torch.float32}
    return [float(value) for value in pandas.read_csv(run / "steps.csv").iloc[-1][["cl_loss", "ce_loss"]]]


def test_bfloat16_trains_close_to_float32_on_any_number_of_ranks(tmp_path: Path) -> None:
    """Autocast applies to the networks only. Weights, losses and statistics are float32 and equal on all ranks."""
    exact = pandas.read_csv(train(1, tmp_path / "exact", **ONE_EPOCH) / "steps.csv")
    for world_size in (1, 2):
        found = ranks.run(world_size, in_bfloat16, tmp_path / str(world_size))[0]
        assert found == pytest.approx(exact.iloc[-1][["cl_loss", "ce_loss"]].astype(float).tolist(), rel=0.02)
        assert found != exact.iloc[-1][["cl_loss", "ce_loss"]].tolist()


def test_bfloat16_on_a_cpu_is_rejected_where_its_gradients_are_wrong(tmp_path: Path) -> None:
    """oneDNN leaves memory uninitialised in the gradient of a strided 3x3 convolution on a 1x1 feature map."""
    with pytest.raises(ValueError, match=r"precision: got bfloat16; on a CPU .* 'layer3\.0\.conv2', .*=float32"):
        tiny.train(tmp_path / "run", **FEW, precision="bfloat16")
