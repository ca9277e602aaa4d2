"""The input of an alignment: checks of its options; its images, with a warning if they are few for the biased CKA."""

import sys
from collections.abc import Container, Mapping, Sequence

from coupled.analysis.parsers import PAIR_METRICS
from coupled.analysis.representations.embeddings import Sample, load_sample
from coupled.analysis.representations.intervals import NO_INTERVAL
from coupled.analysis.run import Run
from coupled.analysis.selection import check_labelled
from coupled.config.metric_registry import PairMetric
from coupled.metrics.pair._arrays import check_at_least
from coupled.monitoring.commands import program_name
from coupled.monitoring.terminal import say
from coupled.parallel.process_group import ProcessGroup, barrier

BIASED = ("cka", "angle")
FITTED = ("svcca", "pwcca", "linear_predictivity", "linear_predictivity_reverse")  # high for few images a direction
ENOUGH = 10  # images a feature: the R^2 of independent features is then about 0.1


def load_samples(
    run: Run,
    splits: Sequence[str],
    num_images: int | None,
    accept_changed_images: bool,
    group: ProcessGroup,
    metrics: Container[str],
    widths: Mapping[str, int],
    of_classes: bool = False,
) -> dict[str, Sample]:
    """The images by split; `widths` are those of the layers. With `of_classes` each class is measured by itself.

    Raises ValueError if there are fewer images than ranks.
    """
    if not group.is_first:
        barrier()  # rank 0 goes first, because loading a dataset may fill a cache
    samples = {}
    for name in splits:
        sample = samples[name] = load_sample(run, name, num_images, accept_changed_images)
        found, ranks = len(sample.chosen_N), group.world_size
        if found < ranks:
            raise ValueError(f"num_images: {found} images of '{name}' are too few for {ranks} processes; use more")
        of_ranks = f" of {ranks} processes" if ranks > 1 else ""
        say(f"{name}: {found} of {len(sample.images)} images, on {group.device}{of_ranks}")
    if group.is_first:
        count = smallest_class if of_classes else lambda sample: len(sample.chosen_N)
        which = " of the smallest class" if of_classes else ""
        counts = {name: count(sample) for name, sample in samples.items()}
        warn_of_bias(metrics, widths, counts, which)
        warn_of_few_images(metrics, widths, counts, which)
        barrier()
    return samples


def warn_of_bias(
    metrics: Container[str], widths: Mapping[str, int], images: Mapping[str, int], which: str = ""
) -> None:
    """Warn of layers with fewer images in a split than features: there the biased CKA is too high."""
    biased = [name for name in BIASED if name in metrics]
    is_biased = " and ".join(biased) + (" is a biased estimate" if len(biased) == 1 else " are biased estimates")
    for split, n in images.items() if biased else ():
        if wide := [f"{layer} (D = {width})" for layer, width in widths.items() if n < width]:
            say(
                f"{program_name('alignment')}: warning: {split}: n = {n} images{which} are fewer than the D features of"
                f" {', '.join(wide)}; {is_biased}: independent representations look similar;"
                " use cka_debiased (--metrics) or more images",
                sys.stderr,
            )


def warn_of_few_images(
    metrics: Container[str], widths: Mapping[str, int], images: Mapping[str, int], which: str = ""
) -> None:
    """Warn of layers with fewer than 10 images a feature: there fitted metrics are high for any representations."""
    fitted = [name for name in FITTED if name in metrics]
    for split, n in images.items() if fitted else ():
        if wide := [f"{layer} (D = {width})" for layer, width in widths.items() if n < ENOUGH * width]:
            say(
                f"{program_name('alignment')}: warning: {split}: n = {n} images{which} are fewer than {ENOUGH} times"
                f" the D features of {', '.join(wide)}; {', '.join(fitted)} may be high for unrelated representations,"
                " or undefined; use more images",
                sys.stderr,
            )


def warn_of_no_interval(metrics: Container[str], confidence: int | None) -> None:
    """Warn of the metrics without an interval (see intervals.py)."""
    for name in NO_INTERVAL if confidence else ():
        if name in metrics:
            say(
                f"{program_name('alignment')}: warning: {name} has no interval, because its number of directions is a"
                " whole number that may differ between samples of images",
                sys.stderr,
            )


def smallest_class(sample: Sample) -> int:
    """The number of images of the smallest class of a sample."""
    return int(sample.images.labels_N[sample.chosen_N].unique(return_counts=True)[1].min())


def check_one_table(cross_layer: bool, per_class: bool, mutual_knn: Sequence[int] | int | None) -> None:
    """Raise ValueError if `compute` was asked for rows of several tables."""
    asked = {"cross_layer": cross_layer, "per_class": per_class, "mutual_knn": mutual_knn is not None}
    if len(names := [name for name, there in asked.items() if there]) > 1:
        raise ValueError(
            f"{names[0]}: not with {names[1]}; their tables have other columns; call compute once for each"
        )


def check_neighbours(mutual_knn: Sequence[int] | int | None) -> list[int]:
    """Return the numbers of neighbours without duplicates. Raises ValueError for one below 1."""
    numbers = [] if mutual_knn is None else [mutual_knn] if isinstance(mutual_knn, int) else list(mutual_knn)
    for k in numbers:
        check_at_least(k, 1, "mutual_knn")
    return list(dict.fromkeys(numbers))


def check_per_class(run: Run, metrics: Sequence[PairMetric]) -> None:
    """Raise ValueError for images without labels, and for metrics of a subset of the images."""
    check_labelled(run, "--per-class")
    if of_subset := [metric.name for metric in metrics if metric.subset]:
        raise ValueError(
            f"per_class: got the metric {of_subset[0]}, which uses a subset of the images; allowed are metrics that are"
            f" exact in one pass, such as {', '.join(PAIR_METRICS)}"
        )
