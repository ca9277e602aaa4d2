"""Confidence intervals over images: the variation of a score over other image samples of the same kind and number.

A bootstrap that draws images with replacement is biased for these scores. They are functions of pairs of images, and an
image that is drawn twice is its own perfect neighbour in both representations, which raises them. Instead the images
are divided at random into K blocks, the score is computed without each block in turn (delete-a-group jackknife;
Quenouille 1949, Arvesen 1969 for scores of pairs, Kott 2001 for groups), and R resamples of the blocks weigh their
contributions:

    value_r = value + sum_k (w_rk - 1) c_k,   c_k = sqrt((K - 1) / K) (mean of left-out values - value without block k)

with w_r the number of times each block was drawn. Their variance is that of the jackknife. The interval lies between
their 2.5 % and 97.5 % quantiles, clipped to the range of the metric. For one-pass metrics the sums without a block are
the sums minus those of the block, so the left-out values are exact and no image is embedded twice. The cost is memory
for the rows of all images, in the precision of the networks, and K more evaluations of each metric.

The interval covers the choice of images only. It covers neither the training seed nor the bias of a biased estimate
(`cka`). For nearly independent representations the variance of the jackknife is too large (CKA 0.07 on 200 images: by a
fifth). For `svcca`, whose number of directions is an integer, intervals are too narrow (200 images: by a quarter).
The blocks of a score of one class are those of the images of the class, at most one block per image.

Shape letters: N images of this rank, or of a subset, K blocks, R resamples.
"""

from collections.abc import Mapping, Sequence
from math import nan, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.analysis.representations.pair_scores import Accumulated, Class, End, Score, ends, of_rows, over_ranks
from coupled.config.metric_registry import PairMetric
from coupled.metrics.pair._sums import CrossSums, Moments
from coupled.stream.seeds import permutation, philox, random_uint32

BLOCKS = 50
LEVEL = 0.95
SumsKey = tuple[str, End, End, Class]  # of `Accumulated.sums`


def block_count(images: int) -> int:
    """The number of blocks for this number of images."""
    return min(BLOCKS, images)


def blocks(images: int, seed: int, name: str) -> Tensor:
    """The block of each image [images], drawn at random; the sizes of blocks differ by at most one."""
    return torch.from_numpy(permutation(images, philox(seed, f"analysis/blocks/{name}")) % block_count(images))


def class_blocks(labels_N: Tensor, seed: int, name: str) -> dict[Class, Tensor]:
    """The block of each image within its class [N] by label, -1 for images of other classes. See `blocks`."""
    found: dict[Class, Tensor] = {}
    for label in labels_N.unique().tolist():
        inside_N = labels_N == label
        found[label] = torch.full_like(labels_N, -1)
        found[label][inside_N] = blocks(int(inside_N.sum()), seed, f"{name}/class {label}")
    return found


def jackknife_scores(
    seen: Accumulated,
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    blocks_N: Mapping[Class, tuple[Tensor, int]],
    subset_blocks: Mapping[int, Tensor],
) -> dict[Score, NDArray[np.float64]]:
    """Return the scores without block 0, 1, ..., each an array [K], from a pass with `keep_rows`.

    `blocks_N` has for each class of `wanted` the block of each of this rank's images (-1 for those of other classes)
    and the number of blocks; None is the class of all images. `subset_blocks` maps the size of a subset to the blocks
    of its images.
    """
    found: dict[Score, list[float]] = {score: [] for score in wanted}
    for label in dict.fromkeys(score.label for score in wanted if not metrics[score.metric].subset):
        whole = {key: over_ranks(sums) for key, sums in seen.sums.items() if key[-1] == label}
        block_N, count = blocks_N[label]
        for block in range(count if count > 1 else 0):  # without its only block nothing is left
            moments = _without(seen, whole, block_N == block)
            for score, values in found.items():
                metric = metrics[score.metric]
                if score.label == label and not metric.subset:
                    parts = [moments[metric.transform, *pair, label] for pair in ends(score)]
                    values.append(metric.value(*parts) if parts[0].n > 1 else nan)
    for score, values in found.items():
        metric = metrics[score.metric]
        if metric.subset:
            block_N = subset_blocks[metric.subset]
            pair = [seen.subset_rows[metric.subset, end] for end in ends(score)[2]]
            values.extend(of_rows(metric, score, [rows[block_N != k] for rows in pair]) for k in block_N.unique())
    return {score: np.array(values) for score, values in found.items()}


def _without(seen: Accumulated, whole: Mapping[SumsKey, CrossSums], left_out_N: Tensor) -> dict[SumsKey, Moments]:
    """Return the moments of the sums `whole` without some of this rank's images and their like on other ranks."""
    used = {(transform, end, label) for transform, a, b, label in whole for end in (a, b)}
    rows = {
        key: seen.streams[key].rows(seen.rows[key[1]][left_out_N])
        for key in used
        if seen.streams[key].pilot_D is not None  # else this rank has no image of the class
    }
    moments = {}
    for (transform, a, b, label), sums in whole.items():
        part = CrossSums()
        if (transform, a, label) in rows:
            part.update(rows[transform, a, label], rows[transform, b, label])
        else:
            part.merge(CrossSums.empty(seen.rows[a], seen.rows[b]))
        moments[transform, a, b, label] = sums.without(over_ranks(part)).moments()
    return moments


def interval(
    value: float, jackknife_K: NDArray[np.float64], resamples: int, seed: int, within: tuple[float, float]
) -> tuple[float, float]:
    """Return both ends of the interval around `value`; NaN if `value` or a value without a block is undefined."""
    count = len(jackknife_K)
    if count < 2 or np.isnan(value) or np.isnan(jackknife_K).any():
        return nan, nan
    contributions_K = sqrt((count - 1) / count) * (jackknife_K.mean() - jackknife_K)
    drawn_RK = random_uint32(seed, "analysis/bootstrap", shape=(resamples, count)) % count
    resampled_R = value + contributions_K[drawn_RK].sum(axis=1)
    low, high = np.quantile(resampled_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(float(low), within[0]), min(float(high), within[1])
