"""Objectives: one file each, found by file name; every one is a pure function from tensors to a `Loss`.

A file `<name>.py` holds `needs(**options) -> Needs`, what it asks of the network; the function
`<name>(inputs, *, options) -> Loss`; `per_anchor(inputs, *, options)`, the losses before the mean; and
`check(**options)`, which raises ValueError, if an option has a range. One that sets weights by a rule of its own has
also `batch_sums(outputs, **options)`, sums over this process's part of the batch, by name, and
`after_step(tensors, sums, step, **options)`, which is called after the optimizer's step `step` (1 is the first) with
the tensors of the network by their names in a snapshot and with the sums over all processes, and returns new values of
some of the tensors.

V views, B own images, G images of the global batch, A = V*B own anchors, M = V*G rows of the global batch,
P projection width, D embedding width, C classes. Anchor v*B+b is view v of own image b; row v*G+n is view v of image n.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

LOCAL = "local_"  # begins the name of an output of local views


@dataclass(frozen=True)
class Head:
    """A head that an objective asks the network to carry: `kind` maps the output `input` to the output `output`.

    "linear" has an output a class, and biases. A predictor keeps the width: "linear_predictor" has no bias,
    "mlp_predictor" is linear, batch norm, ReLU of width `hidden_dim`, linear. One not `trained` gets no gradient.

    Attributes:
        kind: "linear", "linear_predictor" or "mlp_predictor".
        input: name of the output that the head takes.
        output: name of the output that it gives.
        hidden_dim: width of the hidden layer of an "mlp_predictor".
        trained: whether the optimizer changes it.

    Example:
        >>> Head("linear", input="projection", output="logits").trained
        True
    """

    kind: str
    input: str
    output: str
    hidden_dim: int = 0
    trained: bool = True


@dataclass(frozen=True)
class Needs:
    """Names of the network outputs an objective reads, of those it reads over the global batch, and further heads.

    With `target_decay` m the network carries a target, a copy of encoder and projector that follows them after every
    step, target <- m target + (1 - m) network, and gives the output "target_projection". `kept` are tensors that the
    objective keeps from step to step, zeros at first, called "kept.<name>": by name the outputs whose widths are their
    shape. `views` is the only number of views of an image that the objective takes; None: any from 2 on. An output
    "local_<name>", such as "local_projection", is that of the local views (multi-crop); it asks the run for them.

    Attributes:
        outputs: names of the outputs of this process's part of the batch that the objective reads.
        gathered: names of those that it reads over the global batch.
        heads: further heads of the network, by name.
        target_decay: decay of the target network per step; None: no target network.
        kept: tensors that the objective keeps, by name: the outputs whose widths are their shape.
        views: the only number of views that the objective takes; None: any from 2 on.

    Example:
        >>> Needs(outputs=("projection",), gathered=("projection",)).local
        False
    """

    outputs: tuple[str, ...]
    gathered: tuple[str, ...] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)
    target_decay: float | None = None
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    views: int | None = None

    @property
    def local(self) -> bool:
        """Whether an output of local views is among those that are read."""
        return any(name.startswith(LOCAL) for name in self.outputs)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an objective sees of one batch.

    `outputs` are this process's own: "embedding" [V, B, D], "projection" [V, B, P] of unit norm, "unnormalised"
    [V, B, P], the projection before that, "target_projection" [V, B, P] of unit norm and without gradient, "logits"
    [V, B, C], "prediction" [V, B, P]; "local_projection" and so on have the local views in place of V.
    `gathered` holds, under the same names, those of the global batch [V, G, ...], with gradients; in a single process
    it holds the same tensors. `labels_B` and `labels_G` are int64; own image b is image `first` + b of the global
    batch.

    Attributes:
        outputs: own outputs by name, [V, B, width].
        gathered: outputs of the global batch by name, [V, G, width].
        labels_B: labels of the own images, int64; -1 without labels.
        labels_G: labels of the global batch.
        first: place of the first own image in the global batch.

    Example:
        >>> import torch
        >>> z, labels = torch.zeros(2, 4, 8), torch.tensor([0, 0, 1, 1])
        >>> Inputs({"projection": z}, {"projection": z}, labels, labels).views
        2
    """

    outputs: Mapping[str, Tensor]
    gathered: Mapping[str, Tensor]
    labels_B: Tensor
    labels_G: Tensor
    first: int = 0

    @property
    def views(self) -> int:
        """V, the number of views of every image."""
        return len(next(iter(self.outputs.values())))


class Loss(NamedTuple):
    """The mean over the counted own anchors, and how many were counted and left out (int64 scalars).

    `mean` is float32 (float64 for float64 inputs); it is 0 with zero gradient if no anchor is counted. The mean over
    several processes is the sum of mean * counted over the sum of counted.

    Attributes:
        mean: the loss, a scalar with gradient.
        counted: number of own anchors in the mean.
        skipped: number of own anchors that were left out.

    Example:
        >>> import torch
        >>> Loss(torch.tensor(0.5), torch.tensor(8), torch.tensor(0)).mean
        tensor(0.5000)
    """

    mean: Tensor
    counted: Tensor
    skipped: Tensor
