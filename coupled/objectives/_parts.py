"""What an objective adds to the network: heads, and tensors that are kept from step to step."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Head:
    """A further head of the network, which maps the output `input` to the output `output`.

    "linear" is a classifier with biases and one output per class. "cosine" is a classifier without bias, whose outputs
    are the cosines of its input and its rows. "prototypes" is a matrix without bias with `width` outputs; its rows
    start at unit norm. "cosine_prototypes" is the same matrix with rows of any norm, whose outputs are cosines. The
    predictors keep the width of their input:
    "linear_predictor" is one matrix without bias, "linear_bias_predictor" has a bias; "symmetric_predictor" and
    "symmetric_bias_predictor" start with a symmetric matrix; "mlp_predictor" is a linear layer of width `hidden_dim`,
    batch norm, ReLU and a linear layer. "two_layer_predictor" and "two_layer_bias_predictor" are the same with a batch
    norm without scale and shift, and with biases in none or both of the linear layers. "symmetric_two_layer_predictor"
    and "symmetric_two_layer_bias_predictor" start with the transposed weights of the first layer in the last.
    "map_projector" maps each cell of "feature_map" by three linear layers with batch norm over all cells and ReLU
    between them, of widths `hidden_dim`, `hidden_dim` and `width`. A head with `trained=False` gets no gradient.

    Attributes:
        kind: "linear", "cosine", "prototypes", "mlp_predictor", "map_projector", or the name of a linear predictor.
        input: name of the output that the head takes as its input.
        output: name of the output that the head computes.
        hidden_dim: width of the hidden layers of an "mlp_predictor", of two layers or of a "map_projector".
        trained: whether the optimizer updates the head.
        width: number of outputs of "prototypes", "cosine_prototypes" or a "map_projector".
        logit_scale: factor of the outputs of "cosine" in the softmax; the outputs themselves are the cosines.
        frozen_steps: number of first steps in which the optimizer does not update the head.

    Example:
        >>> Head("linear", input="projection", output="logits").trained
        True
    """

    kind: str
    input: str
    output: str
    hidden_dim: int = 0
    trained: bool = True
    width: int = 0
    logit_scale: float = 1.0
    frozen_steps: int = 0

    @property
    def per_class(self) -> bool:
        """Whether the head has one output per class."""
        return self.kind in ("linear", "cosine")


@dataclass(frozen=True)
class Kept:
    """A tensor that is kept from step to step, such as a queue. Every process has the same.

    Its name in the network is `kept.<name>`. The objective reads it in `Inputs.kept`, `after_step` changes it. It is a
    part of every checkpoint.

    Attributes:
        shape: sizes of the tensor; the name of an output means its width.
        start: "zeros"; "unit_rows": rows of random directions, drawn by the seed of the run; or "no_class": -1, the
            label of no class, in int64.
        snapshot: whether it is a part of the snapshots.

    Example:
        >>> Kept((4096, "projection"), start="unit_rows", snapshot=False).shape
        (4096, 'projection')
    """

    shape: tuple[str | int, ...]
    start: Literal["zeros", "unit_rows", "no_class"] = "zeros"
    snapshot: bool = True
