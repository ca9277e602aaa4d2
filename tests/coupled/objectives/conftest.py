"""Batches of outputs for the tests of the objectives, and the list of all objectives with their options."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Inputs, Loss, cross_entropy, dcl, nscl, nt_xent, supcon

TAU = 0.5
OBJECTIVES: dict[str, Callable[[Inputs], Loss]] = {
    "nt_xent": partial(nt_xent.nt_xent, temperature=TAU),
    "dcl": partial(dcl.dcl, temperature=TAU),
    "dcl+positive": partial(dcl.dcl, temperature=TAU, positive_in_denominator=True),
    "nscl": partial(nscl.nscl, temperature=TAU),
    "nscl+positive": partial(nscl.nscl, temperature=TAU, positive_in_denominator=True),
    "supcon out": partial(supcon.supcon, temperature=TAU),
    "supcon in": partial(supcon.supcon, temperature=TAU, variant="in"),
    "cross_entropy": partial(cross_entropy.cross_entropy),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Callable[[Inputs], Loss]:
    """Every objective in turn, its options bound."""
    return OBJECTIVES[request.param]


@pytest.fixture(params=[name for name in OBJECTIVES if name != "cross_entropy"])
def contrastive(request: pytest.FixtureRequest) -> Callable[[Inputs], Loss]:
    """Every objective of projections in turn, its options bound."""
    return OBJECTIVES[request.param]


def _outputs(images: int = 6, views: int = 2, width: int = 5, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    random = [torch.randn(views, images, size, generator=rng, dtype=torch.float64) for size in (width, 4)]
    return {"projection": F.normalize(random[0], dim=-1), "logits": random[1]}


def _whole_batch(outputs: dict[str, Tensor], labels: Tensor | list[int]) -> Inputs:
    labels_N = torch.as_tensor(labels)
    return Inputs(outputs, {"projection": outputs["projection"]}, labels_N, labels_N)


@pytest.fixture(scope="session")
def random_outputs() -> Callable[..., dict[str, Tensor]]:
    """A function: random float64 unit projections [views, images, width] and logits of 4 classes."""
    return _outputs


@pytest.fixture(scope="session")
def whole_batch() -> Callable[[dict[str, Tensor], Tensor | list[int]], Inputs]:
    """A function: the inputs of a single process that holds the whole batch."""
    return _whole_batch
