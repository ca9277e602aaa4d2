"""Activation checkpointing: activations are computed twice, and everything else is as if they were computed once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ranks, tiny
from torch import Tensor, nn

from coupled.models.encoders import build_encoder
from coupled.models.probe import probe
from coupled.models.stages import blocks, recompute_blocks

RUN: dict[str, Any] = {
    "batch": {"size": 360},  # 4 steps an epoch
    "epochs": 1,
    "encoder": {"name": "test_resnet", "stem": "imagenet"},
    "arms": {"byol": {"objective": "byol", "hidden_dim": 16}},  # with a target network
}


class Counting(nn.Module):
    """A block whose output depends on a buffer that it changes, on random numbers and on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Tanh(), nn.Linear(5, 5))
        self.register_buffer("calls", torch.ones(()))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.as_tensor(self.inner(x) * float(self.calls))


class Encoder(nn.Module):
    """Two stages: a sequence of blocks, and one block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(Counting(), Counting()), Counting()
        self.feature_info = [{"module": "first"}, {"module": "second"}]

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.second(self.first(x)))


def gradients_and_buffers(recomputed: bool) -> dict[str, Tensor]:
    """After a backward pass through two forward passes, as those of global and local views."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder()
        if recomputed:
            recompute_blocks(encoder)
        one, other = encoder(torch.randn(8, 5)), encoder(torch.randn(6, 5))
        torch.randn(3)  # the generator goes on before the backward pass
        (one.square().sum() + other.square().sum()).backward()
        after = torch.randn(1)
    found = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return {name: t.clone() for name, t in (found | dict(encoder.named_buffers()) | {"after": after}).items()}


def test_a_block_is_computed_again_from_the_same_buffers_and_random_numbers() -> None:
    """Gradients of other activations would be silently wrong, and averages that count a batch twice, too."""
    assert len(blocks(Encoder())) == 3
    kept, again = gradients_and_buffers(False), gradients_and_buffers(True)
    assert list(kept) == list(again)
    for name, tensor in kept.items():
        assert torch.equal(again[name], tensor), name
    assert float(again["second.calls"]) == 3


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "test_efficientnet"])
def test_the_stages_of_timm_keep_their_inputs_alone(name: str) -> None:
    """Stages that timm names but does not call as modules would keep everything, without a word."""
    encoder = build_encoder(name, stem="imagenet", image_size=32)
    calls = dict.fromkeys(blocks(encoder), 0)
    for block in calls:
        block.register_forward_pre_hook(lambda block, _: calls.update({block: calls[block] + 1}))
    inner = {next(block.children()): block for block in calls}
    again = dict.fromkeys(calls, 0)
    for child, block in inner.items():
        child.register_forward_pre_hook(lambda _, __, block=block: again.update({block: again[block] + 1}))
    recompute_blocks(encoder)
    encoder.train()(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert set(calls.values()) == {1}
    assert set(again.values()) == {2}


@contextmanager
def recomputations() -> Iterator[list[int]]:
    """Count how often a block is computed again."""
    from coupled.models import stages

    usual, counted = stages._with_buffers, [0]

    @contextmanager
    def counting(*arguments: Any) -> Iterator[None]:
        counted[0] += 1
        with usual(*arguments):
            yield

    stages._with_buffers = counting
    try:
        yield counted
    finally:
        stages._with_buffers = usual


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> int:
    with recomputations() as counted:
        tiny.train(run, **changed)
    return counted[0]


@pytest.mark.distributed
def test_a_run_has_the_same_bytes_with_and_without_activation_checkpointing(tmp_path: Path) -> None:
    """Weights and running statistics; on two ranks, whose batch norms gather in the second computation, too."""
    for name, changed in (("kept", {}), ("again", {"activation_checkpointing": True})):
        counted = ranks.run(2, train_on_a_rank, tmp_path / name, {**RUN, **changed})
        assert (min(counted) > 0) == (name == "again")
    kept, again = (tiny.snapshot_bytes(tmp_path / name) for name in ("kept", "again"))
    assert len(kept) == 2
    assert kept == again
    assert (tmp_path / "kept/steps.csv").read_bytes() == (tmp_path / "again/steps.csv").read_bytes()


def test_the_forecast_counts_the_inputs_and_the_largest_block() -> None:
    """A run that fits with activation checkpointing would be refused."""
    options = {"encoder": "resnet18", "image_size": 16}
    kept, again = (probe(torch.device("cpu"), "float32", each, **options) for each in (False, True))
    assert 0.2 < again.saved_an_image / kept.saved_an_image < 0.6
    assert again._replace(saved=0, saved_an_image=0) == kept._replace(saved=0, saved_an_image=0)


def test_what_cannot_be_computed_again_is_refused() -> None:
    """An encoder without stages, and a compiled network."""
    with pytest.raises(ValueError, match=r"no stages .* set activation_checkpointing=false"):
        recompute_blocks(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="activation_checkpointing: got true with compile: true"):
        tiny.tiny_settings(activation_checkpointing=True, compile=True)
    assert tiny.tiny_settings(activation_checkpointing=True).sha256() == tiny.tiny_settings().sha256()
