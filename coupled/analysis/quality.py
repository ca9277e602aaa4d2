"""How good each arm's representation is by itself, at every snapshot.

Writes quality.csv, one value a row. Layer h is the embedding, z the projection, in evaluation mode. The metrics are
the files of arm_metrics. Classifiers learn from clean images of train and are scored on test (`split` test, with
`num_train_images`); the others look at the images of one split. `variant`, `shots` and `k` tell the values of one
metric apart and name their convention; `std` is the standard deviation where a value is the mean of seeded repeats. A
score without a value is an empty cell, and the program says why. As in the tables of alignment.py, the digests of what
a row comes from are its last columns, and of rows that differ in those alone the last one counts.

With `--dataset` the images are those of another dataset, normalised with the mean and std of the run, and the rows go
to transfer.csv, which has the dataset as a column more: no row there is about the run's own images.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from coupled.analysis import parsers
from coupled.analysis.driver import (
    Chunk,
    Plan,
    RowExists,
    append_missing,
    run_program,
    to_frame,
    tracked,
)
from coupled.analysis.representations.cache import open_cache
from coupled.analysis.representations.embeddings import Embedder, Sample, choose_device, load_sample
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.representations.layers import OUTPUTS, present
from coupled.analysis.representations.other_images import dataset_label, images_name, other_sample
from coupled.analysis.run import Run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selection import Selection, check_labelled, choices, is_unlabelled, listed, select_arms
from coupled.config.metric_registry import ArmMetric, arm_metric_names, find_arm_metrics
from coupled.datasets import SPLITS
from coupled.metrics.arm import Measured, Variant
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say

OWN, TRANSFER = "quality.csv", "transfer.csv"
Samples = dict[str, Sample]  # by split


class Task(NamedTuple):
    """One call of a metric: on `split`, at `layer`."""

    split: str
    layer: str
    metric: ArmMetric


def key_of(
    epoch: int, dataset: tuple[str, ...], arm: str, snapshot: str, samples: Samples, task: Task, variant: Variant
) -> tuple[object, ...]:
    """The cells of the table's key of one of the values; `snapshot` is the digest of the arm's.

    `dataset` is the label of a dataset that is not the run's, if it is one.
    """
    seen = [samples[split] for split in (task.split, "train")]
    sizes, digests = zip(*((len(sample.chosen_N), sample.digest) for sample in seen), strict=True)
    if task.metric.sees != "classifier":
        sizes, digests = (sizes[0], ""), (digests[0], "")
    return (epoch, *dataset, task.split, arm, task.layer, task.metric.name, *variant, *sizes, snapshot, *digests)


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    metrics: Sequence[str] | str | None = None,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
    cache: float | None = None,
    dataset: str | Path | Callable[..., Any] | None = None,
    dataset_root: Path | str | None = None,
) -> pd.DataFrame:
    """How good each arm's representation is by itself: classifiers, scatter within classes, effective rank.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both; classifiers learn from train and are scored on test.
        layers: "h" (embedding), "z" (projection) or both.
        metrics: names of files of coupled/metrics/arm (default: all).
        num_images: at most so many images a split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: pass over missing and damaged snapshots, saying which.
        accept_changed_images: measure the images as they are, though they are not those of the run.
        cache: keep embeddings in analysis/cache of the run, at most so many GiB (default: keep none).
        dataset: another dataset to measure on, by name, as a folder with train/ and test/, or as a function, see
            docs/your_own.md (default: the run's).
        dataset_root: where the files of that dataset lie.

    Returns:
        The rows of quality.csv, or of transfer.csv for another dataset, with their columns (see `schemas.SCHEMAS`): one
        value a row, NaN where there is none.

    Raises:
        ValueError: for an arm, epoch, split, layer or metric that there is not, a damaged snapshot, or images that are
            not those of the run.

    Example:
        >>> found = compute(run, split="test", layers="h", metrics=["nccc"], epochs=0)
        >>> found[["arm", "metric", "variant"]].values.tolist()
        [['cl', 'nccc', 'euclidean'], ['nscl', 'nccc', 'euclidean']]
    """
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    images, accept = (num_images, device), (skip_corrupt, accept_changed_images)
    other = images_name(dataset, "dataset"), None if dataset_root is None else Path(dataset_root)
    return to_frame(plan(run, chosen, split, layers, metrics, *images, *accept, cache, run.tables, *other))


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    layers: Sequence[str] | str,
    metrics: Sequence[str] | str | None,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
    cache: float | None,
    output: Path,
    dataset: str | None = None,
    dataset_root: Path | None = None,
) -> Plan:
    """What is to be computed of the chosen arms and epochs; arguments as of `compute`, and the folder of the cache."""
    check_dataset(dataset, dataset_root, accept_changed_images)
    table, label = (OWN, ()) if dataset is None else (TRANSFER, (dataset_label(dataset, dataset_root),))
    place = SCHEMAS[table].columns.index("value")
    splits = choices("split", split, SPLITS)
    embedder = Embedder(run, choose_device(device), open_cache(output, cache))
    layers = present(choices("layers", layers, OUTPUTS), embedder.outputs_there)
    asked = check_metrics(metrics, splits)
    wanted = every_task(asked if dataset else without_labels(run, asked), splits, layers)

    def chunks(has: RowExists) -> Iterator[Chunk]:
        if dataset is None:
            samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        else:
            samples = {name: other_sample(run, dataset, dataset_root, name, num_images) for name in SPLITS}
        digests = run.snapshot_digests()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            key = partial(key_of, epoch, label, arm, digests[arm, epoch], samples)
            missing = [t for t in wanted if not all(has(table, *key(t, each)) for each in t.metric.variants)]
            if missing and not embedder.readable([arm], epoch, skip_corrupt):
                continue
            for task, values in zip(missing, measure(embedder, samples, missing, arm, epoch), strict=True):
                print_undefined_reasons(f"{epoch} {task.split} {arm} {task.layer} {task.metric.name}", values)
                keys = {variant: key(task, variant) for variant in values}
                yield Chunk(table, [(*keys[v][:place], *found, *keys[v][place:]) for v, found in values.items()])

    return Plan([table], chunks)


def check_dataset(dataset: str | None, dataset_root: Path | None, accept_changed_images: bool) -> None:
    """Raise ValueError for options of the one use with the other."""
    if dataset is None and dataset_root is not None:
        raise ValueError("--dataset-root: it needs --dataset with the name of a dataset")
    if dataset is not None and accept_changed_images:
        raise ValueError("--accept-changed-images: not used with --dataset, whose images are not the run's; drop it")


def print_undefined_reasons(where: str, values: Mapping[Variant, Measured]) -> None:
    """Say of what there is no value, and why."""
    for variant, measured in values.items():
        if isinstance(measured.value, Undefined):
            say(f"{where} {variant}: no value: {measured.value.reason}")


def without_labels(run: Run, metrics: Sequence[ArmMetric]) -> Sequence[ArmMetric]:
    """The metrics that the dataset of the run allows: all, or without labels those that need none, which is said.

    Raises ValueError if metrics that need labels were asked for by name.
    """
    labelled = [each.name for each in metrics if each.labels]
    if not is_unlabelled(run) or not labelled:
        return metrics
    if len(metrics) < len(arm_metric_names()):
        check_labelled(run, ", ".join(labelled))
    say(f"the dataset of this run has no labels: left out are {', '.join(labelled)}")
    return [each for each in metrics if not each.labels]


def check_metrics(names: Sequence[str] | str | None, splits: Sequence[str]) -> list[ArmMetric]:
    """The metrics called `names`; all for None. Raises ValueError for an unknown one, and one that has no split."""
    try:
        metrics = find_arm_metrics(dict.fromkeys(arm_metric_names() if names is None else listed(names)))
    except ValueError as error:
        raise ValueError(f"metrics: {str(error).removeprefix('--metrics: ')}") from None
    of_test = [metric.name for metric in metrics if metric.sees == "classifier"]
    everything = names is None or names == arm_metric_names()
    if of_test and "test" not in splits and not everything:
        raise ValueError(f"split: got {' '.join(splits)}; {' and '.join(of_test)} can only be measured on test")
    return metrics


def every_task(metrics: Sequence[ArmMetric], splits: Sequence[str], layers: Sequence[str]) -> list[Task]:
    """What there is to do for one arm at one epoch; a classifier is scored on test only."""
    return [
        Task(split, layer, metric)
        for split in dict.fromkeys(splits)
        for layer in dict.fromkeys(layers)
        for metric in metrics
        if metric.sees != "classifier" or split == "test"
    ]


def measure(
    embedder: Embedder, samples: Samples, tasks: Sequence[Task], arm: str, epoch: int
) -> Iterator[dict[Variant, Measured]]:
    """The values of task after task; only the passes over the images that these tasks need."""
    seen = {(task.split, task.metric.sees) for task in tasks}
    clean = {split for split, sees in seen if sees != "views"} | (
        {"train"} if ("test", "classifier") in seen else set()
    )
    of_images = {s: clean_features(embedder, samples[s].images, samples[s].chosen_N, arm, epoch) for s in sorted(clean)}
    of_views = {
        s: view_features(embedder, samples[s].images, samples[s].chosen_N, arm, epoch)
        for s, sees in sorted(seen)
        if sees == "views"
    }
    for split, layer, metric in tasks:
        if metric.sees == "views":
            yield metric.measured(of_views[split][layer])
        elif metric.sees == "split":
            yield metric.measured(of_images[split][layer])
        else:
            yield metric.measured(of_images["train"][layer], of_images["test"][layer], embedder.settings.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(partial(append_missing, select_arms, plan), parsers.quality(), arguments)
