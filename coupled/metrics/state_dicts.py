"""The weight gap of two state dicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coupled.metrics.weights import Gap, Place, all_squares, comparable_layers, gap_rows


def weight_gap(reference: Mapping[str, Any], arm: Mapping[str, Any]) -> pd.DataFrame:
    """Return distances and angles between the weights of two networks, layer by layer.

        gap = ||a - b|| / ((||a|| + ||b||) / 2)

    a and b are the same tensor of both networks, and ||.|| is the root of the sum of squares of its entries. Two zero
    tensors have gap 0, cosine 1 and angle 0.

    Values and rows are those of `coupled weight-gap` for one pair and epoch, without drifts and the cosine of updates,
    which need earlier snapshots. If no name starts with `encoder.`, all tensors belong to the encoder; else the tensors
    of encoder and projector are compared, except tensors of the projector that only one network has or that have
    another shape in the other. Integer tensors are ignored. Sums are float64.

    Args:
        reference: the state dict of a network: tensors or numpy arrays by name.
        arm: the state dict of another network whose encoder has the same names and shapes.

    Returns:
        One row per tensor, sorted by name, then `mean`, `sum` and `global` over the encoder's `.weight` tensors, for
        each stage and for the encoder: tensor, module, aggregate, kind, parameters (number of entries), gap (0 to 2),
        distance, reference_norm, arm_norm, cosine, angle (degrees). Cosine and angle are NaN if only one tensor is
        zero, and in `sum`.

    Raises:
        ValueError: if one is not a mapping, they have no floating-point tensor in common, a name is in only one
            encoder, shapes of encoders differ, or a weight is not finite.

    Example:
        >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> frame = weight_gap(a.state_dict(), b.state_dict())
        >>> list(frame.tensor)[:2], list(frame["aggregate"])[-1]
        (['bias', 'weight'], 'global')
        >>> bool((weight_gap(a.state_dict(), a.state_dict()).gap == 0).all())
        True

    Source: arXiv 2510.08852. The authors' README sums the gap over layers; their code takes the mean over the encoder's
    `.weight` tensors.
    """
    one, other = _floating_tensors(reference, "reference"), _floating_tensors(arm, "arm")
    prefix = "" if any(name.startswith("encoder.") for name in (*one, *other)) else "encoder."
    one, other = ({prefix + name: each for name, each in tensors.items()} for tensors in (one, other))
    shapes = [
        {n: tuple(t.shape) for n, t in sorted(tensors.items()) if n.startswith(("encoder.", "projector."))}
        for tensors in (one, other)
    ]
    layers = comparable_layers(*shapes)
    if not layers:
        raise ValueError("reference and arm have no floating-point tensor in common")
    pair = "reference", "arm"
    sums = {n: all_squares({pair[0]: [one[n]], pair[1]: [other[n].to(one[n].device)]}, [pair])[pair] for n in layers}
    found = gap_rows(sums, {layer: len(shapes[0][layer]) for layer in layers})
    columns = Gap._fields[: Gap._fields.index("reference_drift")]
    return pd.DataFrame(
        [(place.tensor.removeprefix(prefix), *place[1:], *gap[: len(columns)]) for place, gap in found],
        columns=[*Place._fields, *columns],
    )


def _floating_tensors(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        raise ValueError(f"{name}: expected a state dict (tensors by name), found {type(state).__name__}")
    for key, each in state.items():
        if not isinstance(each, Tensor | np.ndarray):
            raise ValueError(f"{name}: '{key}' is a {type(each).__name__}, not a tensor; pass the state dict itself")
    tensors = {key: each.detach() if isinstance(each, Tensor) else torch.tensor(each) for key, each in state.items()}
    floating = {key: each for key, each in tensors.items() if each.is_floating_point() and each.numel()}
    for key, tensor in floating.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name}: tensor '{key}' has a value that is not finite")
    return floating
