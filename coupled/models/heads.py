"""What an objective adds to the network: heads and kept tensors."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coupled.objectives import Head, Needs
from coupled.objectives._prediction import symmetrised
from coupled.stream.portable import portable_normal
from coupled.stream.seeds import random_uint32

LINEAR_PREDICTORS = ("linear_predictor", "linear_bias_predictor", "symmetric_predictor", "symmetric_bias_predictor")
TWO_LAYERS = tuple(f"{tied}two_layer{bias}_predictor" for tied in ("", "symmetric_") for bias in ("", "_bias"))


def build_head(head: Head, inputs: int, classes: int) -> nn.Module:
    """Build a head on an input with `inputs` features, drawn from torch's global generator."""
    if head.kind == "linear":
        return nn.Linear(inputs, classes)
    if head.kind == "cosine":
        return CosineClassifier(inputs, classes)
    if head.kind == "cosine_prototypes":
        return CosineClassifier(inputs, head.width)
    if head.kind == "prototypes":
        return Prototypes(inputs, head.width)
    if head.kind in LINEAR_PREDICTORS:
        return _symmetric(nn.Linear(inputs, inputs, bias=head.kind.endswith("_bias_predictor")), head.kind)
    if head.kind in TWO_LAYERS:
        bias, width = head.kind.endswith("_bias_predictor"), head.hidden_dim
        first, last = nn.Linear(inputs, width, bias=bias), nn.Linear(width, inputs, bias=bias)
        layers = nn.Sequential(first, nn.BatchNorm1d(width, affine=False), nn.ReLU(inplace=True), last)
        return _symmetric(layers, head.kind)
    if head.kind == "mlp_predictor":
        hidden = nn.Linear(inputs, head.hidden_dim, bias=False)  # no bias here: the batch norm has one
        return nn.Sequential(
            hidden, nn.BatchNorm1d(head.hidden_dim), nn.ReLU(inplace=True), nn.Linear(head.hidden_dim, inputs)
        )
    if head.kind == "map_projector":
        return MapProjector(inputs, head.hidden_dim, head.width)
    plain = ("linear", "cosine", "prototypes", "cosine_prototypes", "mlp_predictor", "map_projector")
    known = ", ".join((*plain, *TWO_LAYERS, *LINEAR_PREDICTORS))
    raise ValueError(f"head: got kind '{head.kind}'; allowed are {known}")


def _symmetric(predictor: nn.Module, kind: str) -> nn.Module:
    """Make the matrices of a predictor symmetric, if its kind is, as after every step."""
    tensors = {f"predictor.{name}": tensor for name, tensor in predictor.state_dict().items()}
    for name, tensor in symmetrised(tensors, kind).items():
        tensors[name].copy_(tensor)
    return predictor


class Prototypes(nn.Linear):
    """A matrix without bias whose rows start at unit norm."""

    def __init__(self, inputs: int, prototypes: int) -> None:
        super().__init__(inputs, prototypes, bias=False)
        with torch.no_grad():
            self.weight.copy_(functional.normalize(self.weight, dim=-1))

    def forward(self, input: Tensor) -> Tensor:
        """Return the inner products [..., K], in at least float32: bfloat16 has too few digits for softmax."""
        with torch.autocast(input.device.type, enabled=False):
            return functional.linear(input.to(torch.promote_types(input.dtype, self.weight.dtype)), self.weight)


class CosineClassifier(nn.Linear):
    """A matrix without bias: the cosines of its input and its rows, one per class. The rows are stored as drawn."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, classes, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the cosines [..., C], in at least float32: with a large scale bfloat16 has too few digits."""
        with torch.autocast(input.device.type, enabled=False):
            features = input.to(torch.promote_types(input.dtype, self.weight.dtype))
            return functional.linear(functional.normalize(features, dim=-1), functional.normalize(self.weight, dim=-1))


class MapProjector(nn.Sequential):
    """Three linear layers with batch norm and ReLU between them, for each cell of a feature map."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        first, second = (nn.Linear(width, hidden, bias=False) for width in (inputs, hidden))
        norms = nn.BatchNorm1d(hidden), nn.BatchNorm1d(hidden)
        last = nn.Linear(hidden, outputs, bias=False)
        super().__init__(first, norms[0], nn.ReLU(inplace=True), second, norms[1], nn.ReLU(inplace=True), last)

    def forward(self, input: Tensor) -> Tensor:
        """Return the projected cells [M, Q, R] of maps [M, Q, D]; batch norm sees the cells of all images."""
        projected: Tensor = super().forward(input.flatten(0, 1))
        return projected.unflatten(0, input.shape[:2])


def kept_at_start(needs: Needs, widths: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Return the kept tensors before the first step by name, each drawn from the seed stream "init/kept.<name>"."""
    found = {}
    for name, kept in needs.kept.items():
        shape = [size if isinstance(size, int) else widths[size] for size in kept.shape]
        found[name] = torch.full(shape, -1) if kept.start == "no_class" else torch.zeros(shape)
        if kept.start == "unit_rows":
            draws_2N = random_uint32(seed, f"init/kept.{name}", shape=(2, *shape)) * 2.0**-32
            rows = torch.from_numpy(portable_normal(*draws_2N)[0].astype(np.float32))
            found[name] = functional.normalize(rows, dim=-1)
    return found


def kept_of_one_width(needs: Needs, width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the kept tensors before the first step for outputs that all have one width, to try an objective."""
    return {name: each.to(dtype) for name, each in kept_at_start(needs, defaultdict(lambda: width), 0).items()}


def kept_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the kept tensors of a network by name, without the prefix `kept.`."""
    kept = getattr(network, "kept", None)
    return {} if kept is None else dict(kept.named_buffers())
