"""Options that speed up all arms alike and change the result of none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from torch import nn

ONE: dict[str, Any] = {"arms": {"cl": "dcl"}, "epochs": 1, "precision": "float64"}


def assert_nearly_equal(run: Path, other: Path) -> None:
    """Equal start bit for bit; equal end up to the order of sums."""
    for epoch, tolerance in ((0, 0.0), (1, 1e-6)):  # snapshots are float32
        one, two = tiny.tensors(run, "cl", epoch), tiny.tensors(other, "cl", epoch)
        assert list(one) == list(two)
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def test_the_memory_layout_changes_only_rounding(tmp_path: Path) -> None:
    """Snapshots are contiguous whatever the layout was during training."""
    (arm,) = tiny.train(tmp_path / "last", **ONE, channels_last=True).arms
    weights = [weight for weight in arm.trained if weight.dim() == 4 and weight.shape[2] > 1]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    tiny.train(tmp_path / "first", **ONE)
    assert_nearly_equal(tmp_path / "last", tmp_path / "first")


def test_a_compiled_network_has_equal_names_and_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced but not compiled here, which would take a minute: names and forward pass are what could go wrong."""
    compiled: list[str] = []
    usual: Callable[..., None] = nn.Module.compile

    def traced(module: nn.Module) -> None:
        compiled.append(type(module).__name__)
        usual(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    tiny.train(tmp_path / "plain", **ONE)
    assert compiled == []
    tiny.train(tmp_path / "compiled", **ONE, compile=True)
    assert compiled == ["Network"]
    assert_nearly_equal(tmp_path / "plain", tmp_path / "compiled")
