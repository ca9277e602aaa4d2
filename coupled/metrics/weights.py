"""Distances and angles between two arms' weights, from additive sums over the entries of tensors."""

from collections.abc import Callable, Mapping, Sequence
from math import atan2, degrees, nan, sqrt
from operator import itemgetter
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
    """One tensor of an arm and its last update, flat and in float64, and squared norms."""

    now: Tensor
    update: Tensor | None  # difference from the previous snapshot; None for the first snapshot
    norm: float
    drift: float  # distance from epoch 0; NaN if the run has no such snapshot
    update_norm: float


def state(now: Tensor | None, start: Tensor | None = None, before: Tensor | None = None) -> State:
    """Return the state of a tensor of any floating-point type from its present and earlier values.

    What follows from one object given twice, as in the first two epochs, is computed once.
    """
    assert now is not None
    now64 = _float64(now)
    # both are converted before the subtraction, because torch is much slower with mixed types
    moved = None if start is None else now64 - (now64 if start is now else _float64(start))
    update = moved if before is start else None if before is None else now64 - _float64(before)
    drift = nan if moved is None else _product(moved, moved)
    update_norm = nan if update is None else drift if update is moved else _product(update, update)
    return State(now64, update, _product(now64, now64), drift, update_norm)


class Squares(NamedTuple):
    """Sums over the entries of two tensors. The sums of two layers add up to those of their concatenation."""

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
        """Return the gap ||a - b|| / ((||a|| + ||b||) / 2) and its components (arXiv 2510.08852).

        Two zero tensors have gap 0, cosine 1 and angle 0. With one zero tensor cosine and angle are NaN. The cosine of
        the updates is NaN if one update is zero.
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
    """Return the degrees between two vectors of norms `one`, `other` > 0 at `distance`; exact for small angles.

    Uses the half-angle form of the law of cosines (Kahan 2014, "Miscalculating area and angles of a needle-like
    triangle"), because acos of the cosine would lose half of the digits.
    """
    opposite = (distance - (one - other)) * (distance + (one - other))
    adjacent = (one + other - distance) * (one + other + distance)
    return degrees(2 * atan2(sqrt(max(0.0, opposite)), sqrt(max(0.0, adjacent))))


def comparable_layers(reference: Mapping[str, Sequence[int]], arm: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the layers that both have with one shape. Raises ValueError, which names a layer, if encoders differ.

    A layer of the projector that only one has, or that has another shape in the other, is left out.
    """
    for layer in not_compared(reference, arm):
        if layer.startswith("encoder."):
            if layer not in reference or layer not in arm:
                raise ValueError(f"layer '{layer}' is in only one of the two snapshots: the encoders differ")
            raise ValueError(f"layer '{layer}' has shape {reference[layer]} in one and {arm[layer]} in the other")
    return [layer for layer in reference if reference[layer] == arm.get(layer)]


def not_compared(reference: Mapping[str, Sequence[int]], arm: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the layers that only one has, or that have another shape in the other, sorted by name."""
    return sorted(layer for layer in {*reference, *arm} if reference.get(layer) != arm.get(layer))


def squares(reference: State, arm: State) -> Squares:
    """Return the sums for two tensors of equal shape."""
    update_product = nan
    if reference.update is not None and arm.update is not None:
        update_product = _product(reference.update, arm.update)
    difference = reference.now - arm.now
    return Squares(
        parameters=difference.numel(),
        distance=_product(difference, difference),
        reference=reference.norm,
        arm=arm.norm,
        product=_product(reference.now, arm.now),
        reference_drift=reference.drift,
        arm_drift=arm.drift,
        reference_update=reference.update_norm,
        arm_update=arm.update_norm,
        update_product=update_product,
    )


def all_squares(
    tensors: Mapping[str, Sequence[Tensor | None]], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Squares]:
    """Return the sums of pairs of arms from the history of each arm's tensor: now, at the start, and before.

    The tensors are processed in parts, so that the float64 copies stay in the processor's cache; this is twice as fast.
    """
    flat = {arm: _once(lambda each: each.reshape(-1), history) for arm, history in tensors.items()}
    parts: dict[tuple[str, str], list[Squares]] = {pair: [] for pair in pairs}
    for first in range(0, max(len(each) for history in flat.values() for each in history if each is not None), PART):
        part = slice(first, first + PART)
        states = {arm: state(*_once(itemgetter(part), history)) for arm, history in flat.items()}
        for reference, arm in pairs:
            parts[reference, arm].append(squares(states[reference], states[arm]))
    return {pair: Squares(*map(sum, zip(*found, strict=True))) for pair, found in parts.items()}


def _once(change: Callable[[Tensor], Tensor], tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return `change` of each tensor, one object for one object. None stays None."""
    changed = {id(each): None if each is None else change(each) for each in tensors}
    return [changed[id(each)] for each in tensors]


def aggregates(layers: Sequence[Squares]) -> dict[str, Gap]:
    """Return `mean`, `sum` and `global` over layers; `parameters` is the number of entries in all three."""
    total = Gap(*map(sum, zip(*(layer.gap() for layer in layers), strict=True)))
    together = Squares(*map(sum, zip(*layers, strict=True)))
    return {
        "mean": Gap(total.parameters, *(column / len(layers) for column in total[1:])),
        "sum": total._replace(cosine=nan, angle=nan, update_cosine=nan),  # a sum of these has no meaning
        "global": together.gap(),
    }


class Place(NamedTuple):
    """The subject of a row of gaps: a tensor, or an aggregate over the `.weight` tensors of a module ("": all)."""

    tensor: str
    module: str
    aggregate: str
    kind: str


def gap_rows(sums: Mapping[str, Squares], dimensions: Mapping[str, int]) -> list[tuple[Place, Gap]]:
    """Return the gap of each tensor, then the aggregates of each stage and of the encoder; `global` is the last row.

    Without a `.weight` tensor there are no aggregates.
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
    """Return conv, linear, norm_scale, norm_shift, running or other, from the tensor's name and all dimensions."""
    module, _, name = layer.rpartition(".")
    of_weight = dimensions.get(f"{module}.weight", 0)
    if name.startswith("running_"):
        return "running"
    if name == "weight":
        return {1: "norm_scale", 2: "linear"}.get(of_weight, "conv" if of_weight > 2 else "other")
    return "norm_shift" if name == "bias" and of_weight == 1 else "other"


def module_of(tensor: str) -> str:
    """Return the module of a tensor, without the prefix `encoder.`; "" for a tensor of the encoder itself."""
    module = tensor.rpartition(".")[0]
    return "" if module == "encoder" else module.removeprefix("encoder.")


def stage(layer: str) -> str:
    """Return the stage of an encoder's tensor: stem or layer1 to layer4 of a ResNet, else the child module."""
    name = layer.split(".")[1]
    return "stem" if name in ("conv1", "bn1") else name


def _float64(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).double()


def _product(one: Tensor, other: Tensor) -> float:
    return float(one.dot(other))


def with_unit_filters(tensor: Tensor) -> Tensor:
    """Return a tensor with each slice of its first dimension divided by its norm, in float64; unchanged if it has one
    dimension. A slice of zeros stays zero.
    """
    if tensor.dim() < 2:
        return tensor
    rows_FD = tensor.double().flatten(1)
    norms_F1 = rows_FD.norm(dim=1, keepdim=True)
    return (rows_FD / norms_F1.where(norms_F1 > 0, 1)).reshape(tensor.shape)
