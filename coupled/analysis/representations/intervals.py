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

Shape letters: N images of this rank, or of a subset, K blocks, R resamples.
"""

from collections.abc import Mapping, Sequence
from math import nan, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.analysis.representations.pair_scores import Accumulated, Score, ends, of_rows, over_ranks
from coupled.config.metric_registry import PairMetric
from coupled.metrics.pair._sums import CrossSums
from coupled.stream.seeds import permutation, philox, random_uint32

BLOCKS = 50
LEVEL = 0.95


def block_count(images: int) -> int:
    """The number of blocks for this number of images."""
    return min(BLOCKS, images)


def blocks(images: int, seed: int, name: str) -> Tensor:
    """The block of each image [images], drawn at random; the sizes of blocks differ by at most one."""
    return torch.from_numpy(permutation(images, philox(seed, f"analysis/blocks/{name}")) % block_count(images))


def jackknife_scores(
    seen: Accumulated,
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    blocks_N: Tensor,
    count: int,
    subset_blocks: Mapping[int, Tensor],
) -> dict[Score, NDArray[np.float64]]:
    """Return the scores without block 0, 1, ..., each an array [K], from a pass with `keep_rows`.

    `blocks_N` has the block (below `count`) of each of this rank's images. `subset_blocks` maps the size of a subset to
    the blocks of its images. `wanted` are scores of all images, not of one class.
    """
    whole = {key: over_ranks(sums) for key, sums in seen.sums.items() if key[-1] is None}
    streams = {key: stream for key, stream in seen.streams.items() if key[-1] is None}
    found: dict[Score, list[float]] = {score: [] for score in wanted}
    for block in range(count if whole else 0):
        rows = {key: stream.rows(seen.rows[key[1]][blocks_N == block]) for key, stream in streams.items()}
        moments = {}
        for (transform, a, b, label), sums in whole.items():
            part = CrossSums()
            part.update(rows[transform, a, label], rows[transform, b, label])
            moments[transform, a, b, label] = sums.without(over_ranks(part)).moments()
        for score, values in found.items():
            metric = metrics[score.metric]
            if not metric.subset:
                values.append(metric.value(*(moments[metric.transform, *pair, None] for pair in ends(score))))
    for score, values in found.items():
        metric = metrics[score.metric]
        if metric.subset:
            block_N = subset_blocks[metric.subset]
            pair = [seen.subset_rows[metric.subset, end] for end in ends(score)[2]]
            values.extend(of_rows(metric, score, [rows[block_N != k] for rows in pair]) for k in block_N.unique())
    return {score: np.array(values) for score, values in found.items()}


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
