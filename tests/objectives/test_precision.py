"""Precision and device: float32 whatever surrounds the objective, extreme temperatures, no wait for the device."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import get_type_hints

import pytest
import torch
from support.objectives import small_options
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coupled.config import by_name
from coupled.config.registry import find_objective
from coupled.models.heads import build_head, kept_of_one_width
from coupled.objectives import Inputs, cross_entropy

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
EXTREMES = [0.01, 0.02, 100.0]
MODULES = {name: by_name.find("coupled.objectives", name) for name in by_name.known("coupled.objectives")}
WITH_TEMPERATURE = [
    name for name, module in MODULES.items() if "temperature" in inspect.signature(getattr(module, name)).parameters
]


def cast(inputs, dtype):
    """The same inputs with all outputs in `dtype`; one tensor for own and gathered, as in a single process."""
    outputs = {name: value.to(dtype) for name, value in inputs.outputs.items()}
    return replace(inputs, outputs=outputs, gathered=outputs)


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
@pytest.mark.parametrize("name", WITH_TEMPERATURE)
def test_extreme_temperatures_are_finite_and_right_in_float32(random_outputs, whole_batch, kept_filled_in, name, tau):
    """exp(1/0.01) is inf in float32: without logsumexp the loss or its gradient is."""
    found = kept_filled_in(find_objective("x", name, {**small_options(name), "temperature": tau}, 0.5))
    objective = partial(found.function, **found.options)
    exact = whole_batch(random_outputs(width=16), LABELS)
    inputs = cast(exact, torch.float32)
    name = next(name for name in ("prediction", "scores", "projection") if name in found.needs.outputs)
    trained = inputs.outputs[name].requires_grad_()
    loss = objective(inputs).mean
    assert torch.autograd.grad(loss, trained)[0].isfinite().all()
    assert loss.item() == pytest.approx(objective(exact).mean.item(), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("tau", [0, -0.5, float("nan"), float("inf"), 1e-300, 1e300])
@pytest.mark.parametrize("name", WITH_TEMPERATURE)
def test_a_temperature_out_of_range_is_refused_in_one_line(name, tau):
    """A negative temperature would silently train the opposite."""
    with pytest.raises(ValueError, match=r"^arms\.x\.temperature: .*(1e-06 to 1e\+06|finite numbers)$"):
        find_objective("x", name, {"temperature": tau}, 0.5)
    find_objective("x", name, {"temperature": 0.5}, 0.5)


@pytest.mark.parametrize("name", MODULES)
def test_every_numeric_option_refuses_minus_one(name):
    """A weight below 0 silently trains the opposite; an option without a range still needs a `check`."""
    kinds = get_type_hints(getattr(MODULES[name], name))
    for option in [key for key, kind in kinds.items() if kind in (int, float, int | None)]:
        with pytest.raises(ValueError, match=rf"^arms\.x\.{option}: -1.* is not allowed; give "):
            find_objective("x", name, {option: -1}, 0.5)


def test_float32_is_right_to_five_digits(random_outputs, whole_batch, chosen):
    """A difference of large sums would lose them."""
    exact = whole_batch(random_outputs(images=64, width=16), torch.arange(64) % 4)
    ours, expected = (chosen.function(inputs, **chosen.options).mean for inputs in (cast(exact, torch.float32), exact))
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_objective_waits_for_the_device_or_leaves_it(random_outputs, objective):
    """A value read back stalls the GPU once an arm and step; a mask made on the CPU stops the run.

    Fake tensors of a GPU refuse both, and need none.
    """
    shapes = {name: value.shape for name, value in random_outputs().items()}
    with FakeTensorMode():
        labels = torch.zeros(6, dtype=torch.int64, device="cuda")
        outputs = {name: torch.zeros(shape, device="cuda") for name, shape in shapes.items()}
        loss = objective(Inputs(outputs, outputs, labels, labels))
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
    own = {"projection": outputs["projection"].requires_grad_()[:, 8:12]}
    labels = torch.arange(32) % 4
    with Sizes() as made:
        contrastive(Inputs(own, outputs, labels[8:12], labels, first=8)).mean.backward()
    assert max(made.sizes) <= (2 * 4) * (2 * 32)


class Noted(Mapping):
    """A mapping that remembers which names were asked for."""

    def __init__(self, held):
        self.held, self.asked = held, set()

    def __getitem__(self, name):
        self.asked.add(name)
        return self.held[name]

    def __iter__(self):
        return iter(self.held)

    def __len__(self):
        return len(self.held)

    def values(self):
        """Any of them tells the number of views: that is no reading."""
        return self.held.values()


def test_needs_lists_exactly_the_outputs_that_are_read(random_outputs, chosen):
    """The network builds heads and the arm gathers by these names: a missing one stops the first step, one too many
    costs a collective a step.
    """
    needs, made, labels = chosen.needs, random_outputs(), torch.tensor([0, 1, 0, 2, 1, 0])
    own, gathered = (Noted({name: made[name] for name in names}) for names in (needs.outputs, needs.gathered))
    chosen.function(Inputs(own, gathered, labels, labels), **chosen.options)
    if chosen.batch_sums:
        chosen.batch_sums(own, **chosen.options)
    elif chosen.after_step and needs.gathered:
        tensors = {f"kept.{name}": each for name, each in kept_of_one_width(needs, 5, torch.float64).items()}
        for name, head in needs.heads.items():
            tensors |= {f"{name}.{key}": each for key, each in build_head(head, 5, 4).double().state_dict().items()}
        gathered.held["labels"] = labels  # always there
        chosen.after_step(tensors, gathered, 1, **chosen.options)
    assert gathered.asked - {"labels"} == set(needs.gathered)
    assert own.asked | gathered.asked - {"labels"} == set(needs.outputs)
    assert {head.output for head in needs.heads.values()} <= set(needs.outputs)


@pytest.mark.parametrize("source", ["projection", "embedding"])
def test_cross_entropy_asks_for_a_linear_classifier(source):
    """The option shapes the network, and nothing else does."""
    (head,) = cross_entropy.needs(input=source).heads.values()
    assert (head.kind, head.input, head.output) == ("linear", source, "logits")
