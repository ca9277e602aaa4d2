"""The rows of the tables of alignment.py, from one pass over the images of a split at one epoch."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import NamedTuple

import torch

from coupled.analysis.representations.embeddings import Embedder, Sample
from coupled.analysis.representations.intervals import block_count, blocks, interval, jackknife_scores
from coupled.analysis.representations.pair_scores import Score, one_pass, values
from coupled.analysis.schemas import SCHEMAS
from coupled.config.metric_registry import PairMetric
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say
from coupled.parallel.process_group import ProcessGroup
from coupled.stream.clean import choose_images

ALIGNMENT, CROSS = "_alignment.csv", "_cross_layer.csv"  # after the name of the split
Row = tuple[object, ...]


class Measurement(NamedTuple):
    """Everything that the scores of one epoch and split depend on."""

    epoch: int
    split: str
    sample: Sample
    metrics: Mapping[str, PairMetric]
    confidence: int | None  # resamples
    snapshots: Mapping[tuple[str, int], str]  # digests by arm and epoch

    def num_images(self, metric: str) -> int:
        """The number of images that a metric uses."""
        return min(len(self.sample.chosen_N), self.metrics[metric].subset or len(self.sample.chosen_N))

    def key(self, score: Score) -> Row:
        """The key cells of a score."""
        where = (self.epoch, self.split, score.reference, score.arm)
        layers = (score.reference_layer, score.layer) if score.reference_layer else (score.layer,)
        digests = (*(self.snapshots[arm, self.epoch] for arm in (score.reference, score.arm)), self.sample.digest)
        return (*where, *layers, score.metric, self.num_images(score.metric), self.confidence or "", *digests)

    def table(self, score: Score) -> str:
        """The name of the table of a score."""
        return f"{self.split}{CROSS if score.reference_layer else ALIGNMENT}"


def pair_rows(
    measurement: Measurement, missing: Sequence[Score], arms: Sequence[str], embedder: Embedder, group: ProcessGroup
) -> dict[str, list[Row]]:
    """Return the rows of the missing scores by table, from one pass; print which scores are undefined.

    Every rank processes a part of the images and returns all rows.
    """
    name, (images, chosen_N, _), metrics = measurement.split, measurement.sample, measurement.metrics
    seed = embedder.settings.seed
    layers = dict.fromkeys(layer for score in missing for layer in (score.reference_layer, score.layer) if layer)
    own_N = chosen_N.tensor_split(group.world_size)[group.rank]
    sizes = {metric.subset: measurement.num_images(metric.name) for metric in metrics.values() if metric.subset}
    subsets = {size: torch.isin(own_N, choose_images(len(images), n, seed, name)) for size, n in sizes.items()}
    batches = embedder.outputs(images, own_N, arms, measurement.epoch, list(layers))
    seen = one_pass(batches, missing, metrics, subsets, keep_rows=bool(measurement.confidence))
    found = values(seen, missing, metrics)
    bounds = dict.fromkeys(missing, (nan, nan))
    if measurement.confidence:
        own_blocks_N = blocks(len(chosen_N), seed, name).tensor_split(group.world_size)[group.rank]
        subset_blocks = {size: blocks(n, seed, f"{name}/{n}") for size, n in sizes.items()}
        parts = jackknife_scores(seen, missing, metrics, own_blocks_N, block_count(len(chosen_N)), subset_blocks)
        for score, part_K in parts.items():
            bounds[score] = interval(found[score], part_K, measurement.confidence, seed, metrics[score.metric].range)
    rows: dict[str, list[Row]] = {}
    for score, value in found.items():
        if isinstance(value, Undefined):
            place = (score.reference, score.arm, score.reference_layer, score.layer, score.metric)
            say(f"epoch {measurement.epoch}, {name}, {' '.join(filter(None, place))}: no value: {value.reason}")
        key, table = measurement.key(score), measurement.table(score)
        split_at = SCHEMAS[table].columns.index("value")
        rows.setdefault(table, []).append((*key[:split_at], value, *bounds[score], *key[split_at:]))
    return rows
