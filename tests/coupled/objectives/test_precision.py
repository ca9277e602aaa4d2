"""Precision and device: float32 whatever surrounds the objective, extreme temperatures, no wait for the device."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coupled.objectives import Inputs, cross_entropy, dcl, nscl, nt_xent, supcon

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
EXTREMES = [0.01, 0.02, 100.0]


def cast(inputs, dtype):
    """The same inputs with all outputs in `dtype`; one tensor for own and gathered, as in a single process."""
    outputs = {name: value.to(dtype) for name, value in inputs.outputs.items()}
    return replace(inputs, outputs=outputs, gathered={"projection": outputs["projection"]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_neither_the_dtype_nor_the_value(random_outputs, whole_batch, objective, dtype):
    """Under bfloat16 training the similarities would keep 3 digits, and exp(1/0.07) overflows float16."""
    inputs = cast(whole_batch(random_outputs(width=64), LABELS), dtype)
    expected = objective(inputs).mean
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(inputs).mean
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_float64_stays_float64(random_outputs, whole_batch, objective):
    """The comparisons to 1e-12 would otherwise be of float32 numbers."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective(whole_batch(random_outputs(), LABELS)).mean.dtype == torch.float64


@pytest.mark.parametrize("tau", EXTREMES)
@pytest.mark.parametrize("objective", [nt_xent.nt_xent, dcl.dcl, nscl.nscl, supcon.supcon])
def test_extreme_temperatures_are_finite_and_right_in_float32(random_outputs, whole_batch, objective, tau):
    """exp(1/0.01) is inf in float32: without logsumexp the loss or its gradient is."""
    exact = whole_batch(random_outputs(width=16), LABELS)
    inputs = cast(exact, torch.float32)
    projections = inputs.outputs["projection"].requires_grad_()
    loss = objective(inputs, temperature=tau).mean
    assert torch.autograd.grad(loss, projections)[0].isfinite().all()
    assert loss.item() == pytest.approx(objective(exact, temperature=tau).mean.item(), abs=1e-5)


@pytest.mark.parametrize("tau", [0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("module", [nt_xent, dcl, nscl, supcon], ids=lambda module: module.__name__)
def test_a_temperature_out_of_range_is_refused_in_one_line(module, tau):
    """A negative temperature would train the opposite without a word."""
    with pytest.raises(ValueError, match=r"^temperature: .* is not allowed; give a finite number above 0$"):
        module.check(temperature=tau)
    module.check(temperature=0.5)


def test_no_objective_waits_for_the_device_or_leaves_it(random_outputs, objective):
    """A value read back stalls the GPU once an arm and step; a mask made on the CPU stops the run.

    Fake tensors of a GPU refuse both, and need none.
    """
    with FakeTensorMode():
        labels = torch.zeros(6, dtype=torch.int64, device="cuda")
        outputs = {"projection": torch.zeros(2, 6, 5, device="cuda"), "logits": torch.zeros(2, 6, 4, device="cuda")}
        loss = objective(Inputs(outputs, {"projection": outputs["projection"]}, labels, labels))
        assert {value.device.type for value in loss} == {"cuda"}


class Sizes(TorchDispatchMode):
    """Records how many numbers every tensor made inside holds."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.sizes.extend(value.numel() for value in tree_leaves(made) if isinstance(value, torch.Tensor))
        return made


def test_no_tensor_of_a_shard_exceeds_anchors_times_rows(random_outputs, contrastive):
    """All rows against all rows on each of 8 processes is 8 times the memory, forward or backward."""
    outputs = random_outputs(images=32)
    own = {"projection": outputs["projection"][:, 8:12].requires_grad_()}
    labels = torch.arange(32) % 4
    with Sizes() as made:
        contrastive(Inputs(own, {"projection": outputs["projection"]}, labels[8:12], labels, first=8)).mean.backward()
    assert max(made.sizes) == (2 * 4) * (2 * 32)


def test_needs_name_what_is_read():
    """The network builds heads and the arm gathers by these names; a missing one stops the first step."""
    for module in (nt_xent, dcl, nscl, supcon):
        needs = module.needs(temperature=0.5)
        assert (needs.outputs, needs.gathered, dict(needs.heads)) == (("projection",), ("projection",), {})
    for source in ("projection", "embedding"):
        needs = cross_entropy.needs(input=source)
        (head,) = needs.heads.values()
        assert (needs.outputs, needs.gathered) == (("logits",), ())
        assert (head.kind, head.input, head.output) == ("linear", source, "logits")
