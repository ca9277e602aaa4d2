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

For `pwcca` the jackknife is a third too wide on average. Its contributions are (value of a half - mean) / sqrt(H - 1)
with the values of H = 50 random halves of the blocks, in pairs that complement each other. The variance of a half drawn
without replacement is that of a sample of n images (half-sampling; McCarthy 1969). Over 750 samples of 200 images from
four populations 95 % of these intervals contain the mean score, and their widths are 1.01 to 1.05 of the right one.
`svcca` has no interval: its number of directions is a whole number, and where that differs between samples of images,
62 % of the intervals of the jackknife and 87 % of those of half-sampling contain the mean score.

The interval covers the choice of images only. It covers neither the training seed nor the bias of an estimate (`cka`,
`svcca`, `pwcca` and the R^2 of few images). For nearly independent representations the variance of the jackknife is too
large (CKA 0.07 on 200 images: by a fifth). The blocks of a score of one class are those of the images of the class, at
most one block per image.

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
HALVES = 50  # an even number
HALF_SAMPLED, NO_INTERVAL = ("pwcca",), ("svcca",)  # metrics
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


def left_out_blocks(metric: str, count: int) -> list[Tensor]:
    """The sets of blocks to leave out for the interval of a metric: each block, random halves of them, or none."""
    if metric in NO_INTERVAL or count < 2:  # without its only block nothing is left
        return []
    if metric not in HALF_SAMPLED:
        return list(torch.arange(count).split(1))
    orders = [torch.from_numpy(permutation(count, philox(0, "analysis/halves", k))) for k in range(HALVES // 2)]
    return [half for order in orders for half in order.tensor_split(2)]


def left_out_scores(
    seen: Accumulated,
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    blocks_N: Mapping[Class, tuple[Tensor, int]],
    subset_blocks: Mapping[int, Tensor],
) -> dict[Score, NDArray[np.float64]]:
    """Return the scores without each of `left_out_blocks`, an array for each score, from a pass with `keep_rows`.

    `blocks_N` has for each class of `wanted` the block of each of this rank's images (-1 for those of other classes)
    and the number of blocks; None is the class of all images. `subset_blocks` maps the size of a subset to the blocks
    of its images.
    """
    found: dict[Score, list[float]] = {score: [] for score in wanted}
    one_pass = [score for score in wanted if not metrics[score.metric].subset]
    for label, halved in dict.fromkeys((score.label, score.metric in HALF_SAMPLED) for score in one_pass):
        alike = [s for s in one_pass if (s.label, s.metric in HALF_SAMPLED) == (label, halved)]
        alike = [score for score in alike if score.metric not in NO_INTERVAL]
        block_N, count = blocks_N[label]
        keys = {score: [(metrics[score.metric].transform, *pair, label) for pair in ends(score)] for score in alike}
        used = dict.fromkeys(key for of_score in keys.values() for key in of_score)
        whole = {key: over_ranks(seen.sums[key]) for key in used}
        for left_out in left_out_blocks(alike[0].metric, count) if alike else ():
            moments = _without(seen, whole, torch.isin(block_N, left_out))
            for score, of_score in keys.items():
                parts = [moments[key] for key in of_score]
                found[score].append(metrics[score.metric].value(*parts) if parts[0].n > 1 else nan)
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
    value: float, parts_K: NDArray[np.float64], resamples: int, seed: int, within: tuple[float, float], metric: str = ""
) -> tuple[float, float]:
    """Return both ends of the interval around `value` from its `left_out_scores`.

    NaN if `value` or a value without blocks is undefined, or if the metric has no interval.
    """
    count = len(parts_K)
    if count < 2 or np.isnan(value) or np.isnan(parts_K).any():
        return nan, nan
    scale = 1 / sqrt(count - 1) if metric in HALF_SAMPLED else sqrt((count - 1) / count)
    contributions_K = scale * (parts_K.mean() - parts_K)
    drawn_RK = random_uint32(seed, "analysis/bootstrap", shape=(resamples, count)) % count
    resampled_R = value + contributions_K[drawn_RK].sum(axis=1)
    low, high = np.quantile(resampled_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(float(low), within[0]), min(float(high), within[1])
