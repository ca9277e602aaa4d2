"""How far the arms' weights have drifted from the reference arm's, layer by layer, at every snapshot.

python analysis/weight_gap.py --compare nscl scl ce [--reference cl] [--run DIR] [--epochs 0,10,20|0:100:10]
       [--output DIR]

Writes weight_gap.csv. Tensors are read by name, one at a time: no model, no image, no GPU. For each compared arm and
epoch there is a row for every floating tensor of the encoder and the projector, and three rows over the encoder's
`.weight` tensors (batch norm's scales among them; biases, running statistics and the projector not):
* `mean` and `sum`: of the columns gap, distance, norms and (mean only) cosine over those layers;
* `global`: of those layers taken as one long vector.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from math import nan, sqrt
from typing import Any, NamedTuple

from torch import Tensor

from analysis.command_line import parser, run_program, skipping
from analysis.run_folder import TidyCsv, select
from coupled.snapshots import BadSnapshotError, SnapshotStore

KEY = ("epoch", "reference", "arm", "layer")
COLUMNS = (*KEY, "kind", "parameters", "gap", "distance", "reference_norm", "arm_norm", "cosine")


class Gap(NamedTuple):
    """The last columns of a row."""

    parameters: int
    gap: float
    distance: float
    reference_norm: float
    arm_norm: float
    cosine: float


class Squares(NamedTuple):
    """Sums over the entries of two tensors; those of two layers add up to those of both taken together."""

    parameters: int
    distance: float
    reference: float
    arm: float
    product: float

    def gap(self) -> Gap:
        """||a - b|| / ((||a|| + ||b||) / 2), and what it is made of (arXiv 2510.08852).

        Two zero tensors have gap 0 and cosine 1; the cosine with one zero tensor is undefined, NaN.
        """
        distance, reference, arm = sqrt(self.distance), sqrt(self.reference), sqrt(self.arm)
        if reference == arm == 0:
            return Gap(self.parameters, 0.0, 0.0, 0.0, 0.0, 1.0)
        both = reference * arm
        cosine = max(-1.0, min(1.0, self.product / both)) if both > 0 else nan
        return Gap(self.parameters, distance / (0.5 * (reference + arm)), distance, reference, arm, cosine)


def squares(reference: Tensor, arm: Tensor) -> Squares:
    """The sums for two tensors of equal shape, in float64."""
    a, b = reference.double().reshape(-1), arm.double().reshape(-1)
    difference = a - b
    return Squares(a.numel(), *(float(x.dot(y)) for x, y in ((difference, difference), (a, a), (b, b), (a, b))))


def aggregates(layers: Sequence[Squares]) -> dict[str, Gap]:
    """`mean`, `sum` and `global` over layers; `parameters` is the number of entries in all three."""
    total = Gap(*map(sum, zip(*(layer.gap() for layer in layers), strict=True)))
    together = Squares(*map(sum, zip(*layers, strict=True)))
    return {
        "mean": Gap(total.parameters, *(column / len(layers) for column in total[1:])),
        "sum": total._replace(cosine=nan),  # a sum of cosines means nothing
        "global": together.gap(),
    }


def layer_kind(layer: str, dimensions: Mapping[str, int]) -> str:
    """conv, linear, norm_scale, norm_shift, running or other, by the name of a tensor and the dimensions of all."""
    module, _, name = layer.rpartition(".")
    of_weight = dimensions.get(f"{module}.weight", 0)
    if name.startswith("running_"):
        return "running"
    if name == "weight":
        return {1: "norm_scale", 2: "linear"}.get(of_weight, "conv" if of_weight > 2 else "other")
    return "norm_shift" if name == "bias" and of_weight == 1 else "other"


def shapes(snapshot: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the floating tensors of encoder and projector; no weight is read."""
    slices = {
        name: snapshot.get_slice(name)
        for name in sorted(snapshot.keys())
        if name.startswith(("encoder.", "projector."))
    }
    return {name: tuple(s.get_shape()) for name, s in slices.items() if s.get_dtype().startswith(("F", "BF"))}


def comparable_layers(reference: Mapping[str, Sequence[int]], arm: Mapping[str, Sequence[int]]) -> list[str]:
    """The layers both have. Raises ValueError naming a layer if the encoders or the shapes differ."""
    for layer in sorted(reference.keys() ^ arm.keys()):
        if layer.startswith("encoder."):
            raise ValueError(f"layer '{layer}' is in one of the two snapshots only: the encoders differ")
    shared = [layer for layer in reference if layer in arm]
    for layer in shared:
        if reference[layer] != arm[layer]:
            raise ValueError(f"layer '{layer}' has shape {reference[layer]} in the one and {arm[layer]} in the other")
    return shared


def rows(store: SnapshotStore, epoch: int, reference: str, arm: str) -> Iterator[tuple[object, ...]]:
    """The rows of one arm at one epoch: layers sorted by name, then the aggregates. Raises ValueError."""
    with store.open(reference, epoch) as ours, store.open(arm, epoch) as theirs:
        of_reference, of_arm = shapes(ours), shapes(theirs)
        try:
            layers = comparable_layers(of_reference, of_arm)
        except ValueError as error:
            place = f"{store.path(reference, epoch)} and {store.path(arm, epoch)}"
            raise BadSnapshotError(
                f"--compare: arms '{reference}' and '{arm}' at epoch {epoch}: {error} ({place})"
            ) from None
        dimensions = {layer: len(of_reference[layer]) for layer in layers}
        weights = []
        for layer in layers:
            sums = squares(ours.get_tensor(layer), theirs.get_tensor(layer))
            yield epoch, reference, arm, layer, layer_kind(layer, dimensions), *sums.gap()
            if layer.startswith("encoder.") and layer.endswith(".weight"):
                weights.append(sums)
    for name, gap in aggregates(weights).items():
        yield epoch, reference, arm, name, "aggregate", *gap


def weight_gap(options: Namespace) -> None:
    """Write the rows that weight_gap.csv does not have yet, epoch by epoch."""
    chosen = select(options)
    reference = chosen.reference
    table = TidyCsv(chosen.output / "weight_gap.csv", COLUMNS, KEY)
    for epoch in chosen.epochs:
        # `global` is the last of an arm's rows: a write that was cut short has not got there
        arms = [arm for arm in chosen.arms if not table.has(epoch, reference, arm, "global")]
        for arm in arms:
            with skipping(options.skip_bad):
                table.append(list(rows(chosen.store, epoch, reference, arm)))
    print(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(weight_gap, parser("weight_gap.py", "Distances between the arms' weights."), arguments)


if __name__ == "__main__":
    sys.exit(main())
