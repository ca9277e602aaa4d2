"""Distances and angles between two arms' weights, from sums over the entries of a tensor; sums of layers add up."""

from collections.abc import Mapping, Sequence
from math import atan2, degrees, nan, sqrt
from typing import NamedTuple

from torch import Tensor

PART = 2**14  # entries


class Gap(NamedTuple):
    """The columns of weight_gap.csv after `kind`."""

    parameters: int
    gap: float
    distance: float
    reference_norm: float
    arm_norm: float
    cosine: float
    angle: float  # degrees
    reference_drift: float
    arm_drift: float
    update_cosine: float


class State(NamedTuple):
    """One tensor of an arm, float64: as it is, and how it came there."""

    now: Tensor
    drift: float  # squared distance from epoch 0; NaN if the run has no such snapshot
    update: Tensor | None  # what the last snapshot lacks to it; None if it is the first


def state(now: Tensor | None, start: Tensor | None = None, before: Tensor | None = None) -> State:
    """The state of a tensor of any floating type whose earlier values are given."""
    assert now is not None
    now = now.double()
    # converted first: torch subtracts tensors of two types many times more slowly
    moved, update = (None if earlier is None else now - earlier.double() for earlier in (start, before))
    return State(now, nan if moved is None else _product(moved, moved), update)


class Squares(NamedTuple):
    """Sums over the entries of two tensors; those of two layers add up to those of both taken together."""

    parameters: int
    distance: float
    reference: float
    arm: float
    product: float
    reference_drift: float
    arm_drift: float
    reference_update: float
    arm_update: float
    update_product: float

    def gap(self) -> Gap:
        """||a - b|| / ((||a|| + ||b||) / 2), and what it is made of (arXiv 2510.08852).

        Two zero tensors have gap 0, cosine 1 and angle 0; with one zero tensor cosine and angle are undefined, NaN, as
        is the cosine of the updates where one of them is zero.
        """
        distance, reference, arm = sqrt(self.distance), sqrt(self.reference), sqrt(self.arm)
        drifts = sqrt(self.reference_drift), sqrt(self.arm_drift)
        both_updates = sqrt(self.reference_update) * sqrt(self.arm_update)
        update_cosine = self.update_product / both_updates if both_updates > 0 else nan
        if reference == arm == 0:
            return Gap(self.parameters, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, *drifts, update_cosine)
        both = reference * arm
        cosine = max(-1.0, min(1.0, self.product / both)) if both > 0 else nan
        return Gap(
            parameters=self.parameters,
            gap=distance / (0.5 * (reference + arm)),
            distance=distance,
            reference_norm=reference,
            arm_norm=arm,
            cosine=cosine,
            angle=angle(distance, reference, arm) if both > 0 else nan,
            reference_drift=drifts[0],
            arm_drift=drifts[1],
            update_cosine=update_cosine,
        )


def angle(distance: float, one: float, other: float) -> float:
    """Degrees between two vectors of norms `one`, `other` > 0 at `distance`; exact for small angles too.

    By the half-angle form of the law of cosines (Kahan 2014, "Miscalculating area and angles of a needle-like
    triangle"); acos of the cosine would lose half of the digits.
    """
    opposite = (distance - (one - other)) * (distance + (one - other))
    adjacent = (one + other - distance) * (one + other + distance)
    return degrees(2 * atan2(sqrt(max(0.0, opposite)), sqrt(max(0.0, adjacent))))


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


def squares(reference: State, arm: State) -> Squares:
    """The sums for two tensors of equal shape."""
    a, b = reference.now, arm.now
    updates = (nan, nan, nan)
    if reference.update is not None and arm.update is not None:
        u, v = reference.update, arm.update
        updates = _product(u, u), _product(v, v), _product(u, v)
    difference = a - b
    products = _product(difference, difference), _product(a, a), _product(b, b), _product(a, b)
    return Squares(a.numel(), *products, reference.drift, arm.drift, *updates)


def all_squares(
    tensors: Mapping[str, Sequence[Tensor | None]], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Squares]:
    """The sums of pairs of arms whose tensor, now, at the start and before, is given.

    Part by part, so that what is in float64 stays in the processor's cache: twice as fast as tensor by tensor.
    """
    flat = {arm: [None if each is None else each.reshape(-1) for each in history] for arm, history in tensors.items()}
    parts: dict[tuple[str, str], list[Squares]] = {pair: [] for pair in pairs}
    for first in range(0, max(len(each) for history in flat.values() for each in history if each is not None), PART):
        part = slice(first, first + PART)
        states = {arm: state(*(None if each is None else each[part] for each in h)) for arm, h in flat.items()}
        for reference, arm in pairs:
            parts[reference, arm].append(squares(states[reference], states[arm]))
    return {pair: Squares(*map(sum, zip(*found, strict=True))) for pair, found in parts.items()}


def aggregates(layers: Sequence[Squares]) -> dict[str, Gap]:
    """`mean`, `sum` and `global` over layers; `parameters` is the number of entries in all three."""
    total = Gap(*map(sum, zip(*(layer.gap() for layer in layers), strict=True)))
    together = Squares(*map(sum, zip(*layers, strict=True)))
    return {
        "mean": Gap(total.parameters, *(column / len(layers) for column in total[1:])),
        "sum": total._replace(cosine=nan, angle=nan, update_cosine=nan),  # sums of these mean nothing
        "global": together.gap(),
    }


class Place(NamedTuple):
    """What a row of gaps is about: a tensor, or an aggregate over the `.weight` tensors of a module ("": all)."""

    tensor: str
    module: str
    aggregate: str
    kind: str


def gap_rows(sums: Mapping[str, Squares], dimensions: Mapping[str, int]) -> list[tuple[Place, Gap]]:
    """The gap of each tensor, then the aggregates of each stage and of the encoder, whose `global` is the last.

    There are no aggregates without a `.weight`.
    """
    rows = [(Place(t, module_of(t), "", layer_kind(t, dimensions)), total.gap()) for t, total in sums.items()]
    stages: dict[str, list[Squares]] = {}
    for tensor, total in sums.items():
        if tensor.startswith("encoder.") and tensor.endswith(".weight"):
            stages.setdefault(stage(tensor), []).append(total)
    whole = [total for of_stage in stages.values() for total in of_stage]
    for module, of_module in [*stages.items(), *([("", whole)] if whole else [])]:
        rows += [(Place("", module, name, ""), gap) for name, gap in aggregates(of_module).items()]
    return rows


def layer_kind(layer: str, dimensions: Mapping[str, int]) -> str:
    """conv, linear, norm_scale, norm_shift, running or other, by the name of a tensor and the dimensions of all."""
    module, _, name = layer.rpartition(".")
    of_weight = dimensions.get(f"{module}.weight", 0)
    if name.startswith("running_"):
        return "running"
    if name == "weight":
        return {1: "norm_scale", 2: "linear"}.get(of_weight, "conv" if of_weight > 2 else "other")
    return "norm_shift" if name == "bias" and of_weight == 1 else "other"


def module_of(tensor: str) -> str:
    """The module of a tensor, an encoder's as alignment.py calls it; "" for a tensor of the encoder itself."""
    module = tensor.rpartition(".")[0]
    return "" if module == "encoder" else module.removeprefix("encoder.")


def stage(layer: str) -> str:
    """The stage of an encoder's tensor: layer1 to layer4 and stem of a ResNet, else the module below the encoder."""
    name = layer.split(".")[1]
    return "stem" if name in ("conv1", "bn1") else name


def _product(one: Tensor, other: Tensor) -> float:
    return float(one.reshape(-1).dot(other.reshape(-1)))
