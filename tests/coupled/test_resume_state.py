"""Resume states: whole or absent, two kept, damage named."""

from pathlib import Path

import pytest
import torch

from coupled import resume_state
from coupled.optimizer import build_optimizer
from coupled.resume_state import ResumeState


def state(step: int) -> ResumeState:
    return ResumeState(
        step, step // 5, {"cl": {"network/w": torch.full((3,), float(step)), "optimizer/0/n": torch.tensor(2)}}
    )


def test_the_newest_state_is_read_and_two_are_kept(tmp_path: Path) -> None:
    """Sorted as numbers: step 100 is newer than step 95, and 5 is older than both."""
    for step in (5, 95, 100):
        resume_state.write(tmp_path, state(step))
    read = resume_state.read_newest(tmp_path)
    assert read is not None
    assert (read.step, read.epoch) == (100, 20)
    assert torch.equal(read.arms["cl"]["network/w"], torch.full((3,), 100.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000095", "step_00000100"]


def test_without_a_state_there_is_none(tmp_path: Path) -> None:
    """A run killed before its first state starts from the beginning."""
    assert resume_state.read_newest(tmp_path) is None


def test_a_half_written_generation_is_never_read(tmp_path: Path) -> None:
    """A process killed while writing leaves a temporary folder, which is not a state and is cleared by the next
    write.
    """
    resume_state.write(tmp_path, state(5))
    torn = tmp_path / ".step_00000010.tmp"
    torn.mkdir()
    (torn / "state.json").write_text("{")
    read = resume_state.read_newest(tmp_path)
    assert read is not None
    assert read.step == 5
    resume_state.write(tmp_path, state(10))
    assert not torn.exists()


def test_a_damaged_state_is_named_with_the_remedy(tmp_path: Path) -> None:
    """Falling back silently would hide a failing disk."""
    resume_state.write(tmp_path, state(5))
    path = tmp_path / "step_00000005" / "cl.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cl\.safetensors: damaged: .*delete .*step_00000005 to continue"):
        resume_state.read_newest(tmp_path)
    (tmp_path / "step_00000005" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"state\.json: expected format coupled\.resume\.1, found None"):
        resume_state.read_newest(tmp_path)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_an_optimizer_continues_exactly_from_its_tensors(name: str) -> None:
    """Momentum, second moments and AdamW's step count all matter to the next bit."""

    def trained(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            for group in optimizer.param_groups:
                group["lr"] = 0.1
            parameter.grad = torch.sin(torch.arange(6.0) + step).reshape(2, 3)
            optimizer.step()

    straight = torch.nn.Parameter(torch.ones(2, 3))
    trained(straight, build_optimizer([straight], name, momentum=0.9, weight_decay=0.01), range(6))

    stopped = torch.nn.Parameter(torch.ones(2, 3))
    before = build_optimizer([stopped], name, momentum=0.9, weight_decay=0.01)
    trained(stopped, before, range(3))
    after = build_optimizer([stopped], name, momentum=0.9, weight_decay=0.01)
    resume_state.load_optimizer_tensors(after, resume_state.optimizer_tensors(before))
    trained(stopped, after, range(3, 6))
    assert torch.equal(straight, stopped)
