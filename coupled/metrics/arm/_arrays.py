"""Labelled rows for the arm metrics from numpy arrays, torch tensors, or blocks. Shape letters: N images, D width."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.metrics.arm import Labelled
from coupled.metrics.pair._arrays import Matrix, all_rows, parts_of, tensor_of

Labels: TypeAlias = Tensor | NDArray[Any] | Iterable[Any]  # [N], or an iterable of blocks [b]


def labelled(x: Matrix, labels: Labels, name: str = "x", labels_name: str = "labels", least: int = 2) -> Labelled:
    """Return the rows with their labels. Raises ValueError if either is invalid or their numbers differ."""
    rows_ND, labels_N = rows_on_cpu(x, name, least), _label_vector(labels, labels_name)
    if len(labels_N) != len(rows_ND):
        raise ValueError(f"{labels_name}: {len(labels_N)} labels for the {len(rows_ND)} rows of {name}")
    return Labelled(rows_ND, labels_N)


def train_and_test(train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels) -> tuple[Labelled, Labelled]:
    """Return both splits. Raises ValueError if one is invalid or their widths differ."""
    learned = labelled(train, train_labels, "train", "train_labels")
    scored = labelled(test, test_labels, "test", "test_labels", least=1)
    widths = learned.rows_ND.shape[1], scored.rows_ND.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(f"test: {widths[1]} columns, train has {widths[0]}")
    return learned, scored


def rows_on_cpu(x: Matrix, name: str, least: int = 2) -> Tensor:
    """Return the rows [N, D], float32 or float64. Raises ValueError if `x` is invalid or on another device."""
    rows_ND = all_rows(x, name, least)
    _check_device(rows_ND, name)
    return rows_ND if rows_ND.dtype == torch.float64 else rows_ND.float()


def _label_vector(labels: Labels, name: str) -> Tensor:
    parts = []
    for part in parts_of(labels, name):
        if part.ndim != 1:
            raise ValueError(f"{name}: expected one label per row [n], found {part.ndim}-D")
        vector = part if isinstance(part, Tensor) else tensor_of(part)
        if vector.is_floating_point() or vector.is_complex():
            raise ValueError(f"{name}: expected integers, found {str(vector.dtype).removeprefix('torch.')}")
        _check_device(vector, name)
        parts.append(vector.long())
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def _check_device(tensor: Tensor, name: str) -> None:
    if tensor.device.type != "cpu":
        raise ValueError(f"{name}: is on {tensor.device}; this metric is computed on the CPU; pass {name}.cpu()")
