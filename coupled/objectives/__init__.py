"""Objectives: one file each, found by file name. An objective is a pure function from tensors to a `Loss`.

A file `<name>.py` defines:

* `needs(**options) -> Needs`: the outputs, heads and target network that the objective requires.
* `<name>(inputs, *, options) -> Loss`: the loss.
* `per_anchor(inputs, *, options)`, optional: the losses before the mean.
* `check(**options)`, optional: raises ValueError for an option that is out of range.
* `batch_sums(outputs, **options)` and `after_step(tensors, batch, step, **options)`, both optional, for an objective
  that sets weights or kept tensors by a rule. `batch_sums` returns sums over this process's part of the batch, by name.
  `after_step` is called after step `step` of the optimizer (the first is 1). `tensors` are the tensors of the network
  by name. `batch` has the sums over all processes and the gathered outputs of the step, by name, and the "labels" of
  the global batch [G]. It returns new values for some of the tensors.
* `PAPER_TEMPERATURE`, optional: the temperature of its paper; a run prints a line if an arm has the run's instead.

V views, B images of this process, G images of the global batch, A = V*B anchors of this process, M = V*G rows of the
global batch, P projection width, D embedding width, C classes. Anchor v*B+b is view v of image b of this process; row
v*G+n is view v of image n of the global batch. "Own" means: of this process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from coupled.objectives._parts import Head as Head
from coupled.objectives._parts import Kept as Kept
from coupled.objectives._ranges import check_labels_seen

LOCAL = "local_"  # prefix of outputs of local views
FEATURE_MAP, LOCATIONS = "feature_map", "locations"  # outputs with a row for each cell of the last feature map


@dataclass(frozen=True)
class Needs:
    """What an objective requires: network outputs, further heads, a target network, tensors kept between steps.

    With `target_decay` m the network has a target network, a copy of encoder, projector and `target_heads` with the
    outputs "target_projection" and "target_unnormalised", and "target_<output>" of each of these heads. After every
    step target <- m target + (1 - m) network. An output `local_<name>`, such as "local_projection", is computed from
    the local views (multi-crop); the run must then have local views.

    The last three change the labels that the objective sees; all is drawn by the seed of the run and the same in every
    epoch (`coupled.stream.known_labels`). With `label_noise` p each label is another class with probability p. With
    `label_groups` K the labels are those of K groups of classes. With `label_fraction` f the labels of a share f of the
    training images are known; all others are -1. The images of a smaller share are a subset of those of a larger one,
    and so are the replaced labels.

    Attributes:
        outputs: names of the outputs that the objective reads for the images of this process.
        gathered: names of the outputs that it reads for the global batch.
        heads: further heads of the network, by name.
        target_decay: decay of the target network per step; None: no target network.
        target_heads: names of the heads that the target network has, too.
        kept: tensors that are kept from step to step, by name.
        views: the only number of views that the objective takes; None: any number from 2.
        mixed_labels: whether the objective uses `partner_labels_B` of its inputs, and so takes MixUp and CutMix.
        label_fraction: share of the training images whose labels the objective knows, from 0 to 1.
        label_noise: probability with which a label is replaced by another class, from 0 to 1.
        label_groups: number of groups of classes, from 2; None: the labels are classes.
        least_cells: least number of cells of the feature map, by the option that asks for them.

    Raises:
        ValueError: if `label_fraction` or `label_noise` is not from 0 to 1, `label_groups` is below 2, or "locations"
            is read without a feature map.

    Example:
        >>> Needs(outputs=("projection",), gathered=("projection",)).local
        False
    """

    outputs: tuple[str, ...]
    gathered: tuple[str, ...] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)
    target_decay: float | None = None
    target_heads: tuple[str, ...] = ()
    kept: Mapping[str, Kept] = field(default_factory=dict)
    views: int | None = None
    mixed_labels: bool = False
    label_fraction: float = 1.0
    label_noise: float = 0.0
    label_groups: int | None = None
    least_cells: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the options of the labels, and that the places are those of the cells of a map."""
        check_labels_seen(self.label_fraction, self.label_noise, self.label_groups)
        if LOCATIONS in self.outputs and len(self.maps) < 2:
            raise ValueError(f"outputs: got {LOCATIONS} alone; name a feature map, whose cells have these places, too")

    @property
    def true_labels(self) -> bool:
        """Whether the objective sees the labels of the training images as they are."""
        return self.label_fraction == 1 and self.label_noise == 0 and self.label_groups is None

    @property
    def local(self) -> bool:
        """Whether the objective reads an output of local views."""
        return any(name.startswith(LOCAL) for name in self.outputs)

    def widths(self, classes: int) -> dict[str, int]:
        """Return the width of every output of a classifier or of prototypes by name, also of local views and target."""
        sized = {head.output: classes if head.per_class else head.width for head in self.heads.values()}
        prefixes = ("", LOCAL, "target_")
        return {f"{prefix}{name}": width for prefix in prefixes for name, width in sized.items() if width}

    @property
    def maps(self) -> frozenset[str]:
        """Names of the outputs with a row for each cell of the feature map, among those that the objective reads."""
        of_heads = {head.output for head in self.heads.values() if head.input == FEATURE_MAP}
        return frozenset({FEATURE_MAP, LOCATIONS, *of_heads} & {*self.outputs})

    @property
    def projects(self) -> bool:
        """Whether the objective reads an output of the projector."""
        read = {*(name.removeprefix(LOCAL) for name in self.outputs), *(head.input for head in self.heads.values())}
        return not read.isdisjoint(("unnormalised", "projection", "target_projection"))


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of an objective for one batch.

    `outputs` holds the outputs for the images of this process:

    * "embedding" [V, B, D];
    * "projection" [V, B, P], at unit norm;
    * "unnormalised" [V, B, P], the projection before normalisation;
    * "target_projection" [V, B, P], at unit norm and without gradient; "target_unnormalised", before normalisation;
    * "logits" [V, B, C], "prediction" [V, B, P] and "scores" [V, B, K] of K prototypes;
    * "feature_map" [V, B, Q, D], the Q cells of the encoder's last feature map in the order of rows, and "locations"
      [V, B, Q, 2], the places of their centres in the image: row and column in pixels;
    * "local_projection" and other local outputs, with the number of local views in place of V.

    `gathered` holds outputs of the global batch [V, G, ...] under the same names, with gradients. With one process
    these are the same tensors. Image b of this process is image `first` + b of the global batch.

    With MixUp or CutMix each view of an image is mixed with a view of another image, its partner. The loss of such a
    view is `own_weight_VB` times that of the own label, and the rest times that of the partner's.

    Attributes:
        outputs: outputs for the images of this process by name, [V, B, width], of maps [V, B, Q, width].
        gathered: outputs of the global batch by name, [V, G, width], of maps [V, G, Q, width].
        labels_B: labels of the images of this process, int64; -1 for an unknown label.
        labels_G: labels of the global batch, int64.
        first: position of the first image of this process in the global batch.
        partner_labels_B: labels of the partners, int64; None if images are not mixed.
        own_weight_VB: weights of the own labels, float32 in [0, 1]; None if images are not mixed.
        kept: the kept tensors of `Needs.kept` as they are before this step, by name; without gradient.

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
    partner_labels_B: Tensor | None = None
    own_weight_VB: Tensor | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def views(self) -> int:
        """The number of views V of every image."""
        return len(next(iter(self.outputs.values())))


class Loss(NamedTuple):
    """The loss of this process: the mean over its counted anchors, and the numbers of anchors counted and left out.

    `mean` is float32 (float64 for float64 inputs). If no anchor is counted, it is 0 with zero gradient. The loss over
    several processes is the sum of mean * counted, divided by the sum of counted.

    Attributes:
        mean: the loss, a scalar with gradient.
        counted: number of anchors of this process in the mean, an int64 scalar.
        skipped: number of anchors of this process that were left out, an int64 scalar.

    Example:
        >>> import torch
        >>> Loss(torch.tensor(0.5), torch.tensor(8), torch.tensor(0)).mean
        tensor(0.5000)
    """

    mean: Tensor
    counted: Tensor
    skipped: Tensor
