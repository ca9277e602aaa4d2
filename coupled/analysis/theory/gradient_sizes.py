"""Sizes of the gradients of contrastive losses with respect to the projections, by cosine similarity.

The loss L_i of anchor i depends on its projection z_i through the similarities s_ia = z_i.z_a with all rows a. With
c_ia = dL_i / ds_ia the gradient with respect to w_i = |w_i| z_i, the projection before normalisation, at |w_i| = 1 is

    dL_i / dw_i = sum_a c_ia (z_a - s_ia z_i),   and the size of one term is |c_ia| sqrt(1 - s_ia^2)

The root makes the terms of easy pairs small, and those of hard positives and negatives (s near 0) large. Rows a are
constants here: the gradient of z_i as a row of other anchors is not included. Source: Khosla et al. 2020, arXiv
2004.11362, section 3.2 and supplement, for SupCon.

Shape letters: V views, B images of a batch, A = V B anchors, which are the M rows as well, P projection width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import nan, sqrt

import torch
from torch import Tensor

from coupled.analysis.theory.loss_sums import LOSSES
from coupled.objectives import Inputs
from coupled.objectives._anchors import itself, same_class, same_image

BINS = 20  # of the cosine similarity from -1 to 1
KINDS = ("pair", "anchor")
RELATIONS = ("same_image", "same_class", "different_class")
Key = tuple[str, str, str]  # loss, one of KINDS, one of RELATIONS


def relations(inputs: Inputs) -> dict[str, Tensor]:
    """Return the masks of the pairs by relation of their images: bool [A, M]; no pair is in two of them."""
    same_image_AM, same_class_AM = same_image(inputs), same_class(inputs)
    masks = (same_image_AM & ~itself(inputs), same_class_AM & ~same_image_AM, ~same_class_AM)
    return dict(zip(RELATIONS, masks, strict=True))


def score_gradients(loss: str, inputs: Inputs, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return s_ia and dL_i / ds_ia, [A, M], and which anchors count, [A], for a batch of a single process.

    The similarities take the place of the projections, and the rows that of the identity matrix. So the objective
    computes its loss from given similarities, and autograd returns the gradient for each of them.
    """
    views_VBP = inputs.gathered["projection"]
    rows_MP = views_VBP.flatten(0, 1)
    cosines_AM = inputs.outputs["projection"].flatten(0, 1) @ rows_MP.T
    leaf_VBM = cosines_AM.unflatten(0, views_VBP.shape[:2]).detach().requires_grad_()
    identity_VBM = torch.eye(len(rows_MP), dtype=leaf_VBM.dtype, device=leaf_VBM.device).view_as(leaf_VBM)
    given = replace(inputs, outputs={"projection": leaf_VBM}, gathered={"projection": identity_VBM})
    losses_A, counted_A = LOSSES[loss](given, temperature=temperature)
    (slopes_VBM,) = torch.autograd.grad(losses_A[counted_A].sum(), leaf_VBM)
    return cosines_AM, slopes_VBM.flatten(0, 1), counted_A


class GradientSums:
    """Sums over batches of the sizes of the gradients, in bins of the cosine similarity."""

    def __init__(self, temperature: float, losses: Sequence[str] = tuple(LOSSES)) -> None:
        self.temperature, self.losses = temperature, losses
        self.sums: dict[Key, Tensor] = {}  # number, sum and sum of squares [3, bins]

    def update(self, inputs: Inputs) -> None:
        """Add a batch of a single process, in float64."""
        masks = relations(inputs)
        rows_MP = inputs.gathered["projection"].flatten(0, 1)
        for loss in self.losses:
            cosines_AM, slopes_AM, counted_A = score_gradients(loss, inputs, self.temperature)
            across_AM = (1 - cosines_AM.square()).clamp(min=0).sqrt()
            whole_AP = slopes_AM @ rows_MP - (slopes_AM * cosines_AM).sum(1, keepdim=True) * rows_MP
            for relation, mask_AM in masks.items():
                seen_AM = mask_AM & counted_A[:, None]
                self._add((loss, "pair", relation), cosines_AM[seen_AM], (slopes_AM.abs() * across_AM)[seen_AM])
                hardest_A = hardest(cosines_AM, seen_AM, most_similar=relation == "different_class")
                with_pair_A = seen_AM.any(1)
                sizes_A = whole_AP.norm(dim=1)[with_pair_A]
                self._add((loss, "anchor", relation), hardest_A[with_pair_A], sizes_A)

    def _add(self, key: Key, cosines_K: Tensor, sizes_K: Tensor) -> None:
        cosines_K, sizes_K = cosines_K.cpu(), sizes_K.cpu()  # weighted sums over bins are exact to the bit on a CPU
        bins_K = ((cosines_K + 1) * BINS / 2).long().clamp(0, BINS - 1)
        parts = [torch.bincount(bins_K, minlength=BINS).double()]
        parts += [torch.bincount(bins_K, weights=sizes_K**power, minlength=BINS) for power in (1, 2)]
        self.sums[key] = self.sums.get(key, torch.zeros(3, BINS, dtype=torch.float64)) + torch.stack(parts)

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield loss, temperature, kind, relation, both ends of the bin, count, mean and standard deviation."""
        for (loss, kind, relation), sums in self.sums.items():
            for place, (count, total, squares) in enumerate(sums.T.tolist()):
                mean = total / count if count else nan
                std = sqrt(max(0.0, squares / count - mean**2)) if count else nan
                ends = (edge(place), edge(place + 1))
                yield (loss, self.temperature, kind, relation, *ends, int(count), mean, std)


def edge(place: int) -> float:
    """Return the lower end of a bin."""
    return (2 * place - BINS) / BINS


def hardest(cosines_AM: Tensor, mask_AM: Tensor, *, most_similar: bool) -> Tensor:
    """Return the largest or smallest cosine over the mask: [A]; undefined over an empty mask."""
    if most_similar:
        return cosines_AM.masked_fill(~mask_AM, -torch.inf).amax(1)
    return cosines_AM.masked_fill(~mask_AM, torch.inf).amin(1)
