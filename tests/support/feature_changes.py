"""Random changes of rows that leave some metrics unchanged, by the names of `INVARIANCES`. n rows, D width."""

from collections.abc import Callable

import torch
from torch import Tensor

CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "rotation": lambda x_nD, g: x_nD @ torch.linalg.qr(draw(x_nD.shape[1], x_nD.shape[1], g)).Q,
    "permutation": lambda x_nD, g: x_nD[:, torch.randperm(x_nD.shape[1], generator=g)],
    "scale": lambda x_nD, g: x_nD * draw(1, 1, g).exp(),
    "row_scale": lambda x_nD, g: x_nD * draw(len(x_nD), 1, g).exp(),
    "shift": lambda x_nD, g: x_nD + 3 * draw(1, x_nD.shape[1], g),
    "row_shift": lambda x_nD, g: x_nD + 3 * draw(len(x_nD), 1, g),
}


def draw(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return normal numbers in float64."""
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
