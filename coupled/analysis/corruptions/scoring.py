"""The errors of several arms on the same corrupted images. Shape letters: B images of a batch, S side of an image."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import Embedder, Sample
from coupled.analysis.representations.features import clean_features
from coupled.analysis.representations.layers import layer_outputs
from coupled.analysis.representations.quality_tasks import Classifier
from coupled.metrics.arm import Labelled
from coupled.metrics.arm._logits import top_accuracy
from coupled.metrics.arm._probes import fitted
from coupled.metrics.arm.linear_probe import best_strength
from coupled.metrics.undefined import Undefined
from coupled.stream.augment import clean_views


class Scorer(NamedTuple):
    """The classifier of an arm: the layer that is its input, and a function that counts its hits."""

    layer: str
    hits: Callable[[Labelled], int]


def scorer(embedder: Embedder, train: Sample, own: Classifier | None, arm: str, epoch: int) -> Scorer | Undefined:
    """Return the arm's own classifier, or a probe on h that is fitted on clean train images of two or more classes."""
    if own is not None:
        head, tensors = own, embedder.run.state_dict(arm, epoch)
        return Scorer(
            own.layer, lambda rows: round(top_accuracy(head.logits({head.layer: rows}, tensors), 1) * len(rows[0]))
        )
    rows = clean_features(embedder, train.images, train.chosen_N, arm, epoch)["h"]
    if len(rows.labels_N.unique()) < 2:
        return Undefined("train has fewer than 2 classes")
    probe = fitted(rows, best_strength(rows, embedder.settings.seed))
    return Scorer("h", lambda rows: int((probe.model.predict(probe.inputs(rows[0])) == rows[1].numpy()).sum()))


@torch.no_grad()
def error_rates(
    embedder: Embedder, test: Sample, batches: Iterator[Tensor], scorers: dict[str, Scorer], epoch: int
) -> dict[str, float]:
    """Return the share of the images that each arm classifies wrongly."""
    images, chosen_N, _ = test
    hits, labels_N, first = dict.fromkeys(scorers, 0), images.labels_N[chosen_N], 0
    for pixels_B3SS in batches:
        labels_B = labels_N[first : first + len(pixels_B3SS)]
        first += len(pixels_B3SS)
        views_B3SS = clean_views(pixels_B3SS.to(embedder.device), embedder.settings.image_size, images.mean, images.std)
        for arm, (layer, count) in scorers.items():
            rows = layer_outputs(embedder.network(arm, epoch), views_B3SS[None], [layer])
            hits[arm] += count(Labelled(rows[layer].cpu(), labels_B))
    return {arm: 1 - count / len(labels_N) for arm, count in hits.items()}
