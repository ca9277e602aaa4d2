"""Micro-batches: the encoder sees parts of the batch, and the steps are those of the whole batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ranks, tiny
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from coupled.coordinator import Coordinator
from coupled.models.encoders import build_encoder
from coupled.models.micro_batches import use_micro_batches
from coupled.models.stages import recompute_blocks
from coupled.parallel.process_group import process_group

PART = 8
RUN: dict[str, Any] = {
    "batch": {"size": 44},  # on two ranks 22 images, in parts of 8, 8 and 6
    "encoder": {"name": "test_vit", "stem": "imagenet"},
    "dataset": {"name": "digits", "image_size": 16},
    "augmentation": {**tiny.TINY["augmentation"], "views": 3},
    "arms": {
        "cl": "dcl",
        "ce": {"objective": "cross_entropy", "input": "embedding"},
        "vicreg": "vicreg",  # a loss of the whole batch
        "byol": {"objective": "byol", "hidden_dim": 16},  # a predictor with batch norm, and a target network
        "direct": {"objective": "directpred", "freq": 2},  # sums over the batch
    },
}


def states_on_a_rank(folder: Path, changed: dict[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """All tensors of all arms after two steps, and the largest number of views that an encoder saw at a time."""
    settings = tiny.tiny_settings(**{**RUN, **changed})
    seen, found = [0], {}
    with process_group("cpu") as group:
        coordinator = Coordinator(settings, group, folder / "run")
        batches = coordinator.step_batches(1)
        two = [next(batches)[""], next(batches)[""]]
        for arm in coordinator.arms:
            for name in ("encoder", "target.encoder"):
                if any(name == path for path, _ in arm.network.named_modules()):
                    first = arm.network.get_submodule(f"{name}.patch_embed")
                    first.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
            reduced = reductions(arm.replica) if group.data_size > 1 else []
            for step, batch in enumerate(two, 1):
                reduced.clear()
                arm.gradients(batch)
                assert len(reduced) == len({*reduced}), "a gradient is reduced once"
                arm.update(0.1, step)
            found |= {f"{arm.name}/{name}": tensor.numpy() for name, tensor in arm.state().items()}
            arm.replica = arm.network
    return found, max(seen)


def reductions(replica: nn.Module) -> list[int]:
    """The list to which the replica adds the number of each bucket that it reduces."""
    reduced: list[int] = []

    def hook(group: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        reduced.append(bucket.index())
        return allreduce_hook(group, bucket)

    replica.register_comm_hook(None, hook)  # type: ignore[operator]
    return reduced


@pytest.fixture(scope="module")
def of_the_whole_batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """By precision, what one process has after its steps with the whole batch."""
    found = {}
    for precision in ("float64", "float32"):
        found[precision], seen = states_on_a_rank(tmp_path_factory.mktemp(precision), {"precision": precision})
        assert seen == 44 * 3
    return found


@pytest.mark.parametrize(
    ("precision", "world_size", "tolerance"),
    [("float64", 1, 1e-12), pytest.param("float64", 2, 1e-12, marks=pytest.mark.distributed), ("float32", 1, 4e-6)],
)
def test_steps_equal_those_of_the_whole_batch(
    precision: str,
    world_size: int,
    tolerance: float,
    of_the_whole_batch: dict[str, dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    """Every negative is in the gradient, and every rule of an objective sees the whole batch. In float32 the momentum
    of the whole batch is itself 3e-6 from that in float64.
    """
    whole = of_the_whole_batch[precision]
    arms = RUN["arms"] if world_size == 1 else {"byol": RUN["arms"]["byol"], "cl": RUN["arms"]["cl"]}
    changed = {"precision": precision, "batch": {"size": 44, "micro_batch": PART}, "arms": arms}
    alone = [states_on_a_rank(tmp_path, changed)] if world_size == 1 else []
    for parts, seen in alone or ranks.run(world_size, states_on_a_rank, tmp_path, changed):
        assert seen == PART * 3
        for arm in arms:
            for kind in ("network", "optimizer"):
                found, wanted = (vector(each, f"{arm}/{kind}/") for each in (parts, whole))
                error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
                print(f"{precision} W={world_size} {arm} {kind}: {error:.1e}")
                assert error < tolerance


def vector(tensors: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    return np.concatenate([each.ravel() for name, each in tensors.items() if name.startswith(prefix)])


class Shared(nn.Module):
    """An encoder that centres the batch, counts batches, or does neither."""

    num_features = 48

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(48, 48)
        self.register_buffer("batches", torch.zeros(()))
        self.batches: Tensor

    def forward(self, images_M3SS: Tensor) -> Tensor:
        rows = self.layer(images_M3SS.flatten(1))
        if self.kind == "counts":
            self.batches += 1
        return torch.as_tensor(rows - rows.mean(0) if self.kind == "centres" else rows)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (lambda: build_encoder("test_resnet", stem="imagenet"), "batch norm 'conv1.1' of the encoder normalises over"),
        (lambda: nn.Sequential(Shared("plain"), nn.Dropout(0.1)), "the encoder draws random numbers, such as dropout"),
        (lambda: Shared("counts"), "the encoder changes its buffer 'batches' with every batch"),
        (lambda: Shared("centres"), "the embedding of an image depends on the other images of the batch"),
    ],
)
def test_an_encoder_that_mixes_the_images_of_a_batch_is_refused(encoder: Any, reason: str) -> None:
    """The gradient would be another one, without a word."""
    mixing, plain, frozen = encoder().train(), Shared("plain"), build_encoder("test_resnet", stem="imagenet").eval()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"^batch\.micro_batch: got 8, but {reason}.*; set it to null"):
        use_micro_batches(mixing, 8, 2, 4)
    use_micro_batches(plain, 8, 2, 4)
    use_micro_batches(frozen, 8, 2, 32)  # normalises with its running averages
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiled_encoder_in_parts_is_refused() -> None:
    """One line; and without micro-batches the digest of the settings is that of runs made before there were any."""
    with pytest.raises(ValueError, match=r"batch\.micro_batch: got 8 with compile: true"):
        tiny.tiny_settings(batch={"size": 44, "micro_batch": 8}, compile=True)
    assert "micro_batch" not in tiny.tiny_settings().resolved()["batch"]
    digests = {tiny.tiny_settings(batch={"size": 44, "micro_batch": size}).sha256() for size in (8, 9, None)}
    assert len(digests) == 3


def test_micro_batches_and_activation_checkpointing_go_together() -> None:
    """Blocks are then computed three times, with the same gradient; of two passes of two sizes, as with local views."""
    found = []
    for together in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = build_encoder("test_vit", stem="imagenet", image_size=16).double()
            if together:
                recompute_blocks(encoder)
                use_micro_batches(encoder, 3, 1, 16)
            one, other = (encoder(torch.randn(images, 3, 16, 16).double()) for images in (7, 4))
            (one.square().sum() + other.square().sum()).backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
