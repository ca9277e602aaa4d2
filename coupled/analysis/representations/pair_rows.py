"""The rows of the tables of alignment.py, from one pass over the images of a split at one epoch."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

import torch

from coupled.analysis.representations.embeddings import Embedder, Sample
from coupled.analysis.representations.intervals import NO_INTERVAL, blocks, class_blocks, interval, left_out_scores
from coupled.analysis.representations.pair_scores import Score, one_pass, values
from coupled.analysis.schemas import SCHEMAS
from coupled.config.metric_registry import PairMetric
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say
from coupled.parallel.process_group import ProcessGroup
from coupled.stream.clean import choose_images

ALIGNMENT, CROSS = "_alignment.csv", "_cross_layer.csv"  # after the name of the split
CLASSES, CURVES = "_class_alignment.csv", "_mutual_knn.csv"
CROSS_METRIC, CURVE_METRIC = "cka", "mutual_knn"
Row = tuple[object, ...]


class Measurement(NamedTuple):
    """Everything that the scores of one epoch and split depend on."""

    epoch: int
    split: str
    sample: Sample
    metrics: Mapping[str, PairMetric]
    confidence: int | None  # resamples
    snapshots: Mapping[tuple[str, int], str]  # digests by arm and epoch

    def num_images(self, metric: str, label: int | None = None) -> int:
        """The number of images that a metric uses: of all classes, or of one."""
        if label is not None:
            return int((self.labels == label).sum())
        return min(len(self.sample.chosen_N), self.metrics[metric].subset or len(self.sample.chosen_N))

    @property
    def labels(self) -> torch.Tensor:
        """The classes of the chosen images."""
        return self.sample.images.labels_N[self.sample.chosen_N]

    def key(self, score: Score) -> Row:
        """The key cells of a score."""
        where = (self.epoch, self.split, score.reference, score.arm)
        layers = (score.reference_layer, score.layer) if score.reference_layer else (score.layer,)
        what: Row = (score.k,) if score.k else (score.metric,)
        if score.label is not None:
            what = (score.metric, self.sample.images.class_names[score.label])
        digests = (*(self.snapshots[arm, self.epoch] for arm in (score.reference, score.arm)), self.sample.digest)
        return (*where, *layers, *what, self.num_images(score.metric, score.label), *digests)

    def table(self, score: Score) -> str:
        """The name of the table of a score."""
        of_all = CROSS if score.reference_layer else CURVES if score.k else ALIGNMENT
        return f"{self.split}{of_all if score.label is None else CLASSES}"

    def of_classes(self, scores: Iterable[Score]) -> list[Score]:
        """Each score for each class of the sample."""
        labels = self.labels.unique().tolist()
        return [score._replace(label=label) for score in scores for label in labels]


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
    labels_N = images.labels_N[own_N]
    seen = one_pass(batches, missing, metrics, subsets, bool(measurement.confidence), labels_N)
    found = values(seen, missing, metrics)
    bounds = dict.fromkeys(missing, (nan, nan))
    if measurement.confidence:
        of_classes = any(score.label is not None for score in missing)
        every: dict[int | None, torch.Tensor] = {None: blocks(len(chosen_N), seed, name)}
        if of_classes:
            every |= dict(class_blocks(measurement.labels, seed, name).items())
        own_blocks = {
            label: (block_N.tensor_split(group.world_size)[group.rank], int(block_N.max()) + 1)
            for label, block_N in every.items()
        }
        subset_blocks = {size: blocks(n, seed, f"{name}/{n}") for size, n in sizes.items()}
        parts = left_out_scores(seen, missing, metrics, own_blocks, subset_blocks)
        for score, part_K in parts.items():
            about = measurement.confidence, seed, metrics[score.metric].range, score.metric
            bounds[score] = interval(found[score], part_K, *about)
        empty = [s for s in missing if isnan(bounds[s][0]) and not isnan(found[s]) and s.metric not in NO_INTERVAL]
        no_interval = dict.fromkeys(empty, Undefined("undefined without some of the images; use more images"))
        say_undefined(f"epoch {measurement.epoch}, {name}", no_interval, images.class_names, "no interval")
    rows: dict[str, list[Row]] = {}
    for score, value in found.items():
        key, table = measurement.key(score), measurement.table(score)
        columns = SCHEMAS[table].columns
        place = columns.index("value")
        scored: Row = (value, *bounds[score], key[place], measurement.confidence or "")  # key[place] is num_images
        rows.setdefault(table, []).append((*key[:place], *scored, *key[place + 1 :]))
    say_undefined(f"epoch {measurement.epoch}, {name}", found, images.class_names)
    return rows


def say_undefined(where: str, found: Mapping[Score, float], class_names: Sequence[str], what: str = "no value") -> None:
    """Print the undefined scores, one line per metric and reason."""
    alike: dict[tuple[str, str], list[Score]] = {}
    for score, value in found.items():
        if isinstance(value, Undefined):
            alike.setdefault((score.metric, value.reason), []).append(score)
    for (_, reason), scores in alike.items():
        more = f" and {len(scores) - 1} more" if len(scores) > 1 else ""
        say(f"{where}, {_text(scores[0], class_names)}{more}: {what}: {reason}")


def _text(score: Score, class_names: Sequence[str]) -> str:
    """The text of a score in a message."""
    detail = f"k={score.k}" if score.k else "" if score.label is None else f"class {class_names[score.label]}"
    place = (score.reference, score.arm, score.reference_layer, score.layer, score.metric, detail)
    return " ".join(filter(None, place))
