"""Sums of the contrastive losses and of DCL - NSCL over batches, with the bounds of the batches, in float64.

Shape letters: V views, B images of a batch, A = V * B anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from coupled.analysis.theory.bound_formulas import anchor_gap, set_gap
from coupled.objectives import Inputs, dcl, nscl, nt_xent, supcon
from coupled.objectives._anchors import AnchorLosses

LOSSES = {module.__name__.rpartition(".")[2]: module.per_anchor for module in (nt_xent, dcl, nscl, supcon)}
ROUNDING = 1e-9  # nats by which float64 may break the inequality at tau = 0.01 and above
Key = tuple[str, float]  # loss, temperature


class ViolatedBoundError(ValueError):
    """0 <= DCL - NSCL <= bound does not hold: an error in the program, or weights that are not finite."""


@dataclass
class Total:
    """The sum of a loss over the batches so far."""

    sum: float = 0.0
    counted: int = 0
    skipped_anchors: int = 0

    @property
    def mean(self) -> float:
        """The mean over the counted anchors; NaN if there is none."""
        return self.sum / self.counted if self.counted else nan


class GapOfBatch(NamedTuple):
    """Sums over the anchors of a batch that neither DCL nor NSCL skips."""

    gap: float
    bound: float
    counted: int


class Gap(NamedTuple):
    """The columns of loss_gap.csv from `gap` on, in nats; NaN without counted anchors and for a ratio to 0."""

    gap: float
    bound: float
    set_bound: float
    tightness: float
    set_tightness: float
    tightest: float


class LossSums:
    """All losses at all temperatures of one arm."""

    def __init__(self, temperatures: Sequence[float]) -> None:
        self.temperatures = tuple(temperatures)
        self.losses = {(loss, tau): Total() for loss in LOSSES for tau in self.temperatures}
        self.batches: dict[float, list[GapOfBatch]] = {tau: [] for tau in self.temperatures}

    def update(self, inputs: Inputs) -> None:
        """Add a batch of a single process. Raises ViolatedBoundError."""
        for tau in self.temperatures:
            found = {}
            for loss, per_anchor in LOSSES.items():
                found[loss] = per_anchor(inputs, temperature=tau)
                losses_A, counted_A = found[loss]
                total = self.losses[loss, tau]
                total.sum += float(losses_A[counted_A].sum())
                total.counted += int(counted_A.sum())
                total.skipped_anchors += int((~counted_A).sum())
            self.batches[tau].append(gap_of_batch(inputs, found["dcl"], found["nscl"], tau))

    def gap(self, temperature: float, largest_class: int, images: int) -> Gap:
        """Return the gap over all batches with its bounds, for `images` with at most `largest_class` per class."""
        parts = [part for part in self.batches[temperature] if part.counted]
        counted = sum(part.counted for part in parts)
        if not counted:
            return Gap(*[nan] * 6)
        gap, bound = (sum(part[place] for part in parts) / counted for place in (0, 1))
        of_set = set_gap(largest_class, images, temperature)
        tightest = max((_share(part.gap, part.bound) for part in parts if part.bound), default=nan)
        return Gap(gap, bound, of_set, _share(gap, bound), _share(gap, of_set), tightest)


def gap_of_batch(inputs: Inputs, of_dcl: AnchorLosses, of_nscl: AnchorLosses, temperature: float) -> GapOfBatch:
    """Sum DCL - NSCL and its bound over the anchors that neither skips. Raises ViolatedBoundError."""
    counted_A = of_dcl.counted_A & of_nscl.counted_A
    gaps_A = (of_dcl.losses_A - of_nscl.losses_A)[counted_A]
    bounds_A = _bounds(inputs.labels_B, temperature).repeat(len(inputs.outputs["projection"]))[counted_A]
    holds_A = (gaps_A >= -ROUNDING) & (gaps_A <= bounds_A + ROUNDING)  # false for NaN
    if not holds_A.all():
        worst = int((~holds_A).nonzero()[0])
        raise ViolatedBoundError(
            f"DCL - NSCL of an anchor at temperature {temperature:g} is {float(gaps_A[worst]):.6g}, expected 0 to"
            f" {float(bounds_A[worst]):.6g}; the weights may not be finite."
        )
    return GapOfBatch(float(gaps_A.sum()), float(bounds_A.sum()), int(counted_A.sum()))


def _bounds(labels_B: Tensor, temperature: float) -> Tensor:
    """The bound of every image's views [B], float64."""
    _, place_B, counts_C = labels_B.unique(return_inverse=True, return_counts=True)
    bounds_C = [anchor_gap(int(count), len(labels_B), temperature) for count in counts_C]
    return torch.tensor(bounds_C, dtype=torch.float64, device=labels_B.device)[place_B]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else nan
