"""How good each arm's representation is by itself, at every snapshot.

python analysis/quality.py [--run-dir DIR] [--arms cl nscl scl ce] [--split train test] [--layers h z]
       [--metrics nccc linear_probe] [--num-images N] [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]

Writes quality.csv, one value a row. Layer h is the embedding, z the projection, in evaluation mode. The metrics are
the files of arm_metrics. Classifiers learn from clean images of train and are scored on test (`split` test, with
`num_train_images`); the others look at the images of one split. `variant`, `shots` and `k` tell the values of one
metric apart and name their convention; `std` is the standard deviation where a value is the mean of seeded repeats. A
score without a value is an empty cell, and the program says why. As in the tables of alignment.py, the digests of what
a row comes from stand in its last columns, and of rows that differ in those alone the last one counts.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from torch import Tensor

from coupled.analysis import parsers
from coupled.analysis.alignment import choose_device
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.metric_registry import ArmMetric, arm_metric_names, find_arm_metrics
from coupled.analysis.representations.cache import EmbeddingCache
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_selected
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.run import DIGITS, Selection, select
from coupled.analysis.tidy_csv import open_table
from coupled.config.schema import Settings, from_resolved
from coupled.datasets import SPLITS, AnyImageSet
from coupled.metrics.arm import Measured, Variant
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say
from coupled.stream.seeds import set_determinism

Chosen = dict[str, tuple[AnyImageSet, Tensor]]  # by split: its images, the numbers of those to use


class Task(NamedTuple):
    """One call of a metric: on `split`, at `layer`."""

    split: str
    layer: str
    metric: ArmMetric

    def key(self, epoch: int, arm: str, variant: Variant, images: "Chosen", snapshot: str) -> tuple[object, ...]:
        """The cells of the table's key of one of the values; `snapshot` is the digest of the arm's."""
        seen = [images[split] for split in (self.split, "train")]
        sizes, digests = zip(*((len(chosen_n), each.digest()[:DIGITS]) for each, chosen_n in seen), strict=True)
        if self.metric.sees != "classifier":
            sizes, digests = (sizes[0], ""), (digests[0], "")
        where = (epoch, self.split, arm, self.layer, self.metric.name, *variant)
        return (*where, *sizes, snapshot[:DIGITS], *digests)


def quality(options: Namespace) -> None:
    """Write the rows that quality.csv does not have yet, arm by arm and epoch by epoch."""
    try:
        metrics = find_arm_metrics(dict.fromkeys(options.metrics))
    except ValueError as error:
        raise ValueError(f"--metrics: {error}") from None
    of_test = [metric.name for metric in metrics if metric.sees == "classifier"]
    if of_test and "test" not in options.split and options.metrics != arm_metric_names():
        raise ValueError(
            f"--split: got {' '.join(options.split)}; {' and '.join(of_test)} can only be measured on test"
        )
    device = choose_device(options.device)
    selected = select(options)
    store, arms, epochs, output = selected.store, selected.arms, selected.epochs, selected.output
    settings = from_resolved(selected.description["settings"], "run.json")
    images = choose_both(settings, selected, options)
    table = open_table(output / "quality.csv")
    place = table.columns.index("value")
    set_determinism(True, None)
    cache = EmbeddingCache(output / "cache", int(options.cache * 2**30)) if options.cache else None
    embedder = Embedder(settings, store, device, cache)
    digests = {(entry.arm, entry.epoch): entry.digest for entry in store.entries()}
    for epoch, arm in tracked(product(epochs, arms), "snapshots"):
        tasks = [
            task
            for task in every_task(metrics, options.split, options.layer)
            if not all(
                table.has(*task.key(epoch, arm, variant, images, digests[arm, epoch]))
                for variant in task.metric.variants
            )
        ]
        if tasks and not embedder.readable([arm], epoch, options.skip_bad):
            continue
        for task, values in zip(tasks, measure(embedder, images, tasks, arm, epoch), strict=True):
            rows = []
            for variant, measured in values.items():
                key = task.key(epoch, arm, variant, images, digests[arm, epoch])
                if isinstance(measured.value, Undefined):
                    where = f"{epoch} {task.split} {arm} {task.layer} {task.metric.name} {variant}"
                    say(f"{where}: no value: {measured.value.reason}")
                rows.append((*key[:place], *measured, *key[place:]))
            table.append(rows)
    say(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def choose_both(settings: Settings, selected: Selection, options: Namespace) -> Chosen:
    """The images of both splits, at most `options.samples` of each."""
    chosen = {}
    for split in SPLITS:
        images = load_selected(settings, split, selected, options)
        chosen[split] = images, choose_images(len(images), options.samples, settings.seed, split)
    return chosen


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
    embedder: Embedder, images: Chosen, tasks: Sequence[Task], arm: str, epoch: int
) -> Iterator[dict[Variant, Measured]]:
    """The values of task after task; only the passes over the images that these tasks need."""
    seen = {(task.split, task.metric.sees) for task in tasks}
    clean = {split for split, sees in seen if sees != "views"} | (
        {"train"} if ("test", "classifier") in seen else set()
    )
    of_images = {split: clean_features(embedder, *images[split], arm, epoch) for split in sorted(clean)}
    of_views = {s: view_features(embedder, *images[s], arm, epoch) for s, sees in sorted(seen) if sees == "views"}
    for split, layer, metric in tasks:
        if metric.sees == "views":
            yield metric.measured(of_views[split][layer])
        elif metric.sees == "split":
            yield metric.measured(of_images[split][layer])
        else:
            yield metric.measured(of_images["train"][layer], of_images["test"][layer], embedder.settings.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(quality, parsers.quality(), arguments)
