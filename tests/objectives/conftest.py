"""Every known objective with every option it can choose, found by itself, and batches of outputs for them.

A new objective is tested by all tests that take `objective`, without a line here.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from support.objectives import PROTOTYPES, small_options
from torch import Tensor

from coupled.config import by_name
from coupled.config.registry import Objective, find_objective
from coupled.models.heads import kept_of_one_width
from coupled.objectives import Inputs, Loss

TAU = 0.5
CELLS = 4  # of a feature map


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The values of an option that are another formula, not another number."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return {bool: (False, True), int | None: (2,), float | None: (None,)}.get(kind, ())


def every_choice() -> Iterator[tuple[str, Objective]]:
    """Every objective with its defaults, and with each other choice of one option."""
    for name in by_name.known("coupled.objectives"):
        function = getattr(by_name.find("coupled.objectives", name), name)
        hints = get_type_hints(function)
        small = small_options(name)
        yield name, find_objective("test", name, small, TAU)
        for option, parameter in inspect.signature(function).parameters.items():
            for value in choices_of(hints[option]):
                if value != parameter.default:
                    given = {option: value} if value == "v3" else {**small, option: value}  # MoCo v3 has no queue
                    yield f"{name} {option}={value}", find_objective("test", name, given, TAU)


def with_kept(objective: Objective) -> Objective:
    """The objective with its kept tensors as at the start of a run, in the type and on the device of the outputs."""
    if not objective.needs.kept:
        return objective

    def function(inputs: Inputs, **options: Any) -> Loss:
        output = next(iter(inputs.outputs.values()))
        dtype = torch.promote_types(output.dtype, torch.float32)
        kept = kept_of_one_width(objective.needs, output.shape[-1], dtype)
        on_device = {name: each.to(output.device) for name, each in kept.items()}
        return objective.function(replace(inputs, kept=on_device), **options)

    return objective._replace(function=function)


OBJECTIVES = {name: with_kept(each) for name, each in every_choice()}
# those that see only own unit projections against all, so inner products and nothing else
CONTRASTIVE = {name: each for name, each in OBJECTIVES.items() if each.needs.outputs == ("projection",)}


def bound(objective: Objective) -> Callable[[Inputs], Loss]:
    return lambda inputs: objective.function(inputs, **objective.options)


@pytest.fixture(scope="session")
def kept_filled_in() -> Callable[[Objective], Objective]:
    """A function: the objective with its kept tensors as at the start of a run."""
    return with_kept


@pytest.fixture(params=OBJECTIVES)
def chosen(request: pytest.FixtureRequest) -> Objective:
    """Every objective in turn, with what it needs."""
    return OBJECTIVES[request.param]


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Callable[[Inputs], Loss]:
    """Every objective in turn, its options bound."""
    return bound(OBJECTIVES[request.param])


@pytest.fixture(params=CONTRASTIVE)
def contrastive(request: pytest.FixtureRequest) -> Callable[[Inputs], Loss]:
    """Every objective of projections in turn, its options bound."""
    return bound(OBJECTIVES[request.param])


def _outputs(images: int = 6, views: int = 2, width: int = 5, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    random = [torch.randn(views, images, size, generator=rng, dtype=torch.float64) for size in (width, 4, width, width)]
    return {
        "projection": F.normalize(random[0], dim=-1),
        "logits": random[1],
        "unnormalised": 1.2 * random[0] + 0.3,
        "prediction": random[2],
        "target_projection": F.normalize(random[3], dim=-1),
        "target_unnormalised": 1.1 * random[3] - 0.2,
        **{
            name: F.normalize(torch.randn(size, images, PROTOTYPES, generator=rng, dtype=torch.float64), dim=-1)
            for name, size in (("scores", views), ("target_scores", views), ("local_scores", 3))
        },
        "map_projection": torch.randn(views, images, CELLS, width, generator=rng, dtype=torch.float64),
        "locations": 8 * torch.rand(views, images, CELLS, 2, generator=rng, dtype=torch.float64),
    }


def _whole_batch(outputs: dict[str, Tensor], labels: Tensor | list[int]) -> Inputs:
    labels_N = torch.as_tensor(labels)
    return Inputs(outputs, outputs, labels_N, labels_N)


@pytest.fixture(scope="session")
def random_outputs() -> Callable[..., dict[str, Tensor]]:
    """A function: random float64 unit projections [views, images, width], others of any length, logits of 4 classes."""
    return _outputs


@pytest.fixture(scope="session")
def whole_batch() -> Callable[[dict[str, Tensor], Tensor | list[int]], Inputs]:
    """A function: the inputs of a single process that holds the whole batch."""
    return _whole_batch


@pytest.fixture(scope="session")
def rotation() -> Tensor:
    """An orthogonal float64 matrix for projections of width 5."""
    rng = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64))[0]


@pytest.fixture
def assert_same_gradients() -> Callable[[Tensor, Tensor, list[Tensor]], None]:
    """Assert that two losses and their gradients by `leaf` are equal, and that some gradient is not zero."""

    def check(first: Tensor, second: Tensor, leaf: list[Tensor]) -> None:
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
        gradients = [torch.autograd.grad(loss, leaf, allow_unused=True) for loss in (first, second)]
        for of_first, of_second in zip(*gradients, strict=True):
            torch.testing.assert_close(of_first, of_second, rtol=0, atol=1e-12)
        assert any(gradient is not None and gradient.abs().sum() > 0.01 for gradient in gradients[1])

    return check
