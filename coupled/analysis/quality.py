"""Measure the quality of each arm's representation at every snapshot.

Writes quality.csv, one value per row. Layer h is the embedding, z the projection, in evaluation mode. The metrics are
the files of metrics/arm. Classifiers are fitted on clean images of train and scored on test (with `num_train_images`);
with `--split train` some of them are also scored on train. Other metrics use the images of one split. Metrics of the
arm's own classifier (top1, top5, nll, ece) have the module `logits`, and rows for arms with a classifier only.
`variant`, `shots` and `k` distinguish the values of a metric and name their convention; `std` is the standard deviation
over the seeded repeats of which `value` is the mean. An undefined score is an empty cell, and the program prints the
reason. As in the tables of alignment.py, the last columns are digests; of rows that differ only in digests, the last
one is valid.

With `--dataset` the images are those of another dataset, normalised with mean and std of the run. The rows go to
transfer.csv, which has the additional column `dataset` and no rows about the run's own images.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

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
from coupled.analysis.representations.quality_tasks import (
    LOGITS,
    Classifier,
    Task,
    are_named,
    check_dataset,
    check_metrics,
    classifier_of,
    every_task,
    print_undefined_reasons,
    with_classifiers,
    with_shots,
    without_labels,
)
from coupled.analysis.run import Run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selection import Selection, choices, select_arms
from coupled.datasets import SPLITS
from coupled.metrics.arm import Measured, Variant

OWN, TRANSFER = "quality.csv", "transfer.csv"
Samples = dict[str, Sample]  # by split


def key_of(
    epoch: int, dataset: tuple[str, ...], arm: str, snapshot: str, samples: Samples, task: Task, variant: Variant
) -> tuple[object, ...]:
    """Return the key cells of one value; `snapshot` is the digest of the arm's snapshot.

    `dataset` is the label of a dataset other than the run's, or empty.
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
    split: Sequence[str] | str | None = None,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    metrics: Sequence[str] | str | None = None,
    shots: Sequence[int] | int | None = None,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
    cache: float | None = None,
    dataset: str | Path | Callable[..., Any] | None = None,
    dataset_root: Path | str | None = None,
) -> pd.DataFrame:
    """Return the quality of each arm's representation: classifiers, scatter within classes, effective rank.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both (default: both, and test for classifiers, which are fitted on train).
        layers: "h" (embedding), "z" (projection) or both.
        metrics: names of files of coupled/metrics/arm (default: all).
        shots: numbers of train images per class of few_shot and few_shot_two_way (default: 1 to 500).
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.
        cache: keep at most this many GiB of embeddings in analysis/cache of the run (default: keep none).
        dataset: another dataset to measure on: a name, a folder with train/ and test/, or a function, see
            docs/your_own.md (default: the run's).
        dataset_root: folder that holds the files of that dataset.

    Returns:
        The rows of quality.csv, or of transfer.csv for another dataset, with their columns (see `schemas.SCHEMAS`): one
        value per row, NaN where it is undefined.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or metric, a damaged snapshot, or images that are not those
            of the run.

    Example:
        >>> found = compute(run, split="test", layers="h", metrics=["nccc"], epochs=0)
        >>> found[["arm", "metric", "variant"]].values.tolist()
        [['cl', 'nccc', 'euclidean'], ['nscl', 'nccc', 'euclidean']]
    """
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    images, accept = (num_images, device), (skip_corrupt, accept_changed_images)
    other = images_name(dataset, "dataset"), None if dataset_root is None else Path(dataset_root)
    return to_frame(plan(run, chosen, split, layers, metrics, shots, *images, *accept, cache, run.tables, *other))


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str | None,
    layers: Sequence[str] | str,
    metrics: Sequence[str] | str | None,
    shots: Sequence[int] | int | None,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
    cache: float | None,
    output: Path,
    dataset: str | None = None,
    dataset_root: Path | None = None,
) -> Plan:
    """Plan the values of the chosen arms and epochs. Arguments as in `compute`; `output` holds tables and cache."""
    check_dataset(dataset, dataset_root, accept_changed_images)
    table, label = (OWN, ()) if dataset is None else (TRANSFER, (dataset_label(dataset, dataset_root),))
    place = SCHEMAS[table].columns.index("value")
    splits = choices("split", SPLITS if split is None else split, SPLITS)
    embedder = Embedder(run, choose_device(device), open_cache(output, cache))
    layers = present(choices("layers", layers, OUTPUTS), embedder.outputs_there)
    asked, named = with_shots(check_metrics(metrics, splits), shots), are_named(metrics)
    own = [] if dataset or all(metric.sees != "logits" for metric in asked) else chosen.arms
    classifiers = {arm: classifier_of(run, arm) for arm in own}
    asked = with_classifiers(asked, classifiers, named)
    labelled = asked if dataset else without_labels(run, asked, named)
    wanted = every_task(labelled, splits, layers, on_train=split is not None)

    def chunks(has: RowExists) -> Iterator[Chunk]:
        if dataset is None:
            samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        else:
            samples = {name: other_sample(run, dataset, dataset_root, name, num_images) for name in SPLITS}
        digests = run.snapshot_digests()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            key = partial(key_of, epoch, label, arm, digests[arm, epoch], samples)
            of_arm = [task for task in wanted if task.layer != LOGITS or classifiers[arm]]
            missing = [t for t in of_arm if not all(has(table, *key(t, each)) for each in t.metric.variants)]
            if missing and not embedder.readable([arm], epoch, skip_corrupt):
                continue
            for task, values in zip(
                missing, measure(embedder, samples, missing, arm, epoch, classifiers.get(arm)), strict=True
            ):
                where = f"epoch {epoch}, {task.split}, {arm} {task.layer} {task.metric.name}"
                print_undefined_reasons(where, values)
                keys = {variant: key(task, variant) for variant in values}
                yield Chunk(table, [(*keys[v][:place], *found, *keys[v][place:]) for v, found in values.items()])

    return Plan([table], chunks)


def measure(
    embedder: Embedder,
    samples: Samples,
    tasks: Sequence[Task],
    arm: str,
    epoch: int,
    classifier: Classifier | None = None,
) -> Iterator[dict[Variant, Measured]]:
    """Yield the values of each task, with only the passes over the images that the tasks need."""
    seen = {(task.split, task.metric.sees) for task in tasks}
    clean = {split for split, sees in seen if sees != "views"}
    clean |= {"train"} if any(sees == "classifier" for _, sees in seen) else set()
    of_images = {s: clean_features(embedder, samples[s].images, samples[s].chosen_N, arm, epoch) for s in sorted(clean)}
    of_views = {
        s: view_features(embedder, samples[s].images, samples[s].chosen_N, arm, epoch)
        for s, sees in sorted(seen)
        if sees == "views"
    }
    for split, layer, metric in tasks:
        if metric.sees == "views":
            yield metric.measured(of_views[split][layer])
        elif metric.sees == "logits":
            assert classifier is not None
            yield metric.measured(classifier.logits(of_images[split], embedder.run.state_dict(arm, epoch)))
        elif metric.sees == "split":
            yield metric.measured(of_images[split][layer])
        else:
            yield metric.measured(of_images["train"][layer], of_images[split][layer], embedder.settings.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), parsers.quality(), arguments)
