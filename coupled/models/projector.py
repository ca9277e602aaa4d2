"""The projector on top of the encoder: built from its settings, and its settings read from the tensors of a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

BIASES = ("none", "hidden", "all")  # which linear layers have a bias
NORMS = ("batch", "batch_no_affine", "none")  # the norm after each hidden linear layer


def build_projector(
    inputs: int,
    hidden: int | None = None,
    out: int = 128,
    *,
    num_layers: int | None = None,
    hidden_dims: Sequence[int] | None = None,
    last_norm: bool = True,
    last_norm_scale: bool = True,
    bias: str = "none",
    norm: str = "batch",
) -> nn.Sequential:
    """Build linear layers with norm and ReLU between them, [M, inputs] -> [M, out].

    The default is Linear-BN-ReLU-Linear-BN. Its linear layers have no biases, and its last batch norm has a scale but
    no bias: the protocol of arXiv 2510.08852 and 2506.04411.

    Args:
        inputs: width of the embedding.
        hidden: width of all hidden layers; None for `inputs`. Ignored with `hidden_dims`.
        out: width of the projection.
        num_layers: number of linear layers; None for 2, or for that of `hidden_dims`. With 0 the projection is the
            embedding, or its batch norm with `last_norm`.
        hidden_dims: widths of the hidden layers.
        last_norm: whether a batch norm without bias follows the last linear layer.
        last_norm_scale: whether that batch norm has a trained scale.
        bias: which linear layers have a bias: "none", "hidden" (all but the last) or "all".
        norm: "batch" for a batch norm with scale and bias after each hidden linear layer, "batch_no_affine" for one
            without both, or "none".
    """
    assert bias in BIASES  # the settings refuse values that contradict each other
    assert norm in NORMS
    if hidden_dims is None:
        hidden_dims = [hidden or inputs] * ((2 if num_layers is None else num_layers) - 1)
    layers: list[nn.Module] = []
    if num_layers == 0 and out != inputs:
        raise ValueError(
            f"projector.output_dim: got {out} with num_layers: 0; the width of the projection is then that of the"
            f" embedding: set it to {inputs}"
        )
    for width in hidden_dims:
        layers.append(nn.Linear(inputs, width, bias=bias != "none"))
        layers += [nn.BatchNorm1d(width, affine=norm == "batch")] if norm != "none" else []
        layers.append(nn.ReLU(inplace=True))
        inputs = width
    if num_layers != 0:
        layers.append(nn.Linear(inputs, out, bias=bias == "all"))
    if last_norm:
        last = nn.BatchNorm1d(out, affine=last_norm_scale)
        last.register_parameter("bias", None)
        layers.append(last)
    return nn.Sequential(*layers)


def projector_width(projector: nn.Sequential, inputs: int) -> int:
    """Return the width of the projection of an embedding of width `inputs`."""
    return [inputs, *(layer.out_features for layer in projector if isinstance(layer, nn.Linear))][-1]


def linear_layers(shapes: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the positions of the linear layers of a projector with tensors of these shapes, such as [0, 3]."""
    names = [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2]
    return sorted(int(name) for name in names if name.isdecimal())


def projector_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the keys of the section `projector` that give a projector with these tensors, without default values.

    `hidden_dim` and `output_dim` are always there for two layers, `hidden_dims` and `output_dim` for more. Whether
    `build_projector` gives exactly these tensors remains to be checked.
    """
    linear = linear_layers({name: tensor.shape for name, tensor in tensors.items()})
    hidden, out = [len(tensors[f"{position}.weight"]) for position in linear[:-1]], linear[-1]
    found: dict[str, Any] = {"hidden_dim": hidden[0]} if len(hidden) == 1 else {"hidden_dims": hidden}
    found["output_dim"] = len(tensors[f"{out}.weight"])
    if f"{out + 1}.running_mean" not in tensors:
        found["last_norm"] = False
    elif f"{out + 1}.weight" not in tensors:
        found["last_norm_scale"] = False
    if any(f"{position}.bias" in tensors for position in linear):
        found["bias"] = "all" if f"{out}.bias" in tensors else "hidden"
    if hidden and "1.running_mean" not in tensors:
        found["norm"] = "none"
    elif hidden and "1.weight" not in tensors:
        found["norm"] = "batch_no_affine"
    return found
