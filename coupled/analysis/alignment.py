"""How alike the arms' representations are to the reference arm's, at every snapshot.

python analysis/alignment.py [--run-dir DIR] [--compare nscl scl ce | all] [--reference cl] [--split train test]
       [--layers stages | stem layer1 layer2 layer3 layer4 h z] [--cross-layer] [--metrics cka rsa]
       [--confidence R] [--num-images N] [--epochs 0,10,20|0:100:10] [--cache GIB] [--device auto] [--output DIR]
torchrun --standalone --nproc_per_node=W analysis/alignment.py ...    the same, images shared out over W processes

Writes train_alignment.csv and test_alignment.csv, one value a row; of `--compare all` for every pair. All arms see the
same images once an epoch, clean and in evaluation mode, however many pairs, layers and metrics; layer h is the
embedding, z the projection, any other a module of the encoder (see layers.py).
`--cross-layer` adds train_cross_layer.csv and test_cross_layer.csv: the CKA of every layer of the reference
(`reference_module`) with every layer of the arm (`module`). The metrics are the files of coupled/metrics/pair; those
that are not exact in one pass look at a seeded subset of the images, and `num_images` is its size. `ci_low` and
`ci_high` are a 95 % confidence interval over images from so many `resamples` (see intervals.py), empty without
`--confidence`. A score without a value is an empty cell, and the program says why.

A row that is there is not computed again if it comes from the same snapshots and images: their digests, cut to 16
digits, stand in its last columns. Of rows that differ in those alone, the last one counts.
"""

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Container, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from coupled.analysis import parsers
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.metric_registry import PairMetric, find_pair_metrics, pair_metric_names
from coupled.analysis.representations.cache import EmbeddingCache
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_selected
from coupled.analysis.representations.intervals import block_count, blocks, interval, left_out
from coupled.analysis.representations.pair_scores import Score, one_pass, values
from coupled.analysis.run import DIGITS, select_pairs
from coupled.analysis.tidy_csv import TidyCsv, open_table
from coupled.config.schema import from_resolved
from coupled.datasets import AnyImageSet
from coupled.metrics.undefined import Undefined
from coupled.monitoring.commands import program_name
from coupled.monitoring.terminal import say
from coupled.parallel.failure_broadcast import FailureBroadcast
from coupled.parallel.launcher import end_with_agent
from coupled.parallel.process_group import ProcessGroup, barrier, gather_json, meet, process_group
from coupled.stream.seeds import set_determinism

CROSS_METRIC = "cka"


class Split(NamedTuple):
    """A split's images, the chosen ones, and the tables: "alignment" and "cross_layer"."""

    name: str
    images: AnyImageSet
    chosen_N: Tensor
    tables: dict[str, TidyCsv]  # rank 0 has them


class Epoch(NamedTuple):
    """What the scores of one epoch and split depend on, besides themselves."""

    epoch: int
    split: Split
    metrics: dict[str, PairMetric]
    bootstrap: int | None
    snapshots: dict[str, str]  # digests by arm

    def num_images(self, metric: str) -> int:
        """The number of images that a metric looks at."""
        return min(len(self.split.chosen_N), self.metrics[metric].subset or len(self.split.chosen_N))

    def key(self, score: Score) -> tuple[object, ...]:
        """The cells of the table's key of a score."""
        where = (self.epoch, self.split.name, score.reference, score.arm)
        layers = (score.reference_layer, score.layer) if score.reference_layer else (score.layer,)
        digests = (self.snapshots[score.reference], self.snapshots[score.arm], self.split.images.digest())
        how = (self.num_images(score.metric), self.bootstrap or "")
        return (*where, *layers, score.metric, *how, *(digest[:DIGITS] for digest in digests))

    def table(self, score: Score) -> TidyCsv:
        """Where a score belongs."""
        return self.split.tables["cross_layer" if score.reference_layer else "alignment"]


def on_all_ranks(options: Namespace) -> None:
    """`alignment` in the processes that torchrun started, or in this one alone; one process says what went wrong."""
    end_with_agent(program_name("alignment"))
    meeting = meet()
    if meeting.world_size == 1:
        set_determinism(True, None)
        return alignment(options, ProcessGroup(0, 1, choose_device(options.device)))
    with contextlib.ExitStack() as opened, FailureBroadcast(program_name("alignment"), meeting) as alarm:
        if meeting.rank:
            opened.enter_context(contextlib.redirect_stdout(io.StringIO()))  # rank 0 says it all
        choose_device(options.device)
        set_determinism(True, None)  # before there is a group: it sets what NCCL reads
        alignment(options, opened.enter_context(process_group(options.device, meeting=meeting)))
    return sys.exit(alarm.status) if alarm.status else None


def alignment(options: Namespace, group: ProcessGroup) -> None:
    """Write the rows that the tables do not have yet, epoch by epoch; rank 0 knows the tables and says what is missing.

    Every rank takes a part of the images.
    """
    cross = [CROSS_METRIC] if options.cross_layer else []
    try:
        metrics = {metric.name: metric for metric in find_pair_metrics([*options.metrics, *cross])}
    except ValueError as error:
        raise ValueError(f"--metrics: {error}") from None
    if not group.is_first:
        barrier()
    # rank 0 first: it makes the output folder and holds it, and image sets may fill a cache
    chosen, pairs = select_pairs(options, group.is_first)
    settings = from_resolved(chosen.description["settings"], "run.json")
    cache = EmbeddingCache(chosen.output / "cache", int(options.cache * 2**30)) if options.cache else None
    embedder = Embedder(settings, chosen.store, group.device, cache)
    layers = embedder.layers(options.layer)
    splits = []
    for name in dict.fromkeys(options.split):
        images = load_selected(settings, name, chosen, options)
        splits.append(open_split(options, group, name, images, settings.seed, chosen.output))
    if group.is_first:
        warn_of_bias(metrics, layers, {split.name: len(split.chosen_N) for split in splits})
        barrier()
    wanted = [Score(*pair, layer, name) for pair in pairs for layer in layers for name in options.metrics]
    wanted += [Score(*pair, own, name, other) for pair in pairs for other in layers for own in layers for name in cross]
    digests = {(entry.arm, entry.epoch): entry.digest for entry in chosen.store.entries()}
    for number in tracked(chosen.epochs, "epochs"):
        for split in splits:
            snapshots = {arm: digests[arm, number] for arm in [chosen.reference, *chosen.arms]}
            epoch = Epoch(number, split, metrics, options.bootstrap, snapshots)
            there = [epoch.table(score).has(*epoch.key(score)) for score in wanted] if group.is_first else None
            missing = [score for score, done in zip(wanted, gather_json(there)[0], strict=True) if not done]
            arms = dict.fromkeys(arm for score in missing for arm in (score.reference, score.arm))
            good = embedder.readable(arms, number, options.skip_bad)
            missing = [score for score in missing if {score.arm, score.reference} <= {*good}]
            if missing:
                add_rows(epoch, missing, good, embedder, group)
    for table in (table for split in splits for table in split.tables.values()):
        say(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def warn_of_bias(metrics: Container[str], widths: Mapping[str, int], images: Mapping[str, int]) -> None:
    """Say of which layers there are fewer images of a split than features: biased CKA is not to be read there."""
    for split, n in images.items() if CROSS_METRIC in metrics else ():
        if wide := [f"{layer} (D = {width})" for layer, width in widths.items() if n < width]:
            say(
                f"{program_name('alignment')}: warning: {split}: n = {n} images are fewer than the D features of"
                f" {', '.join(wide)}; cka, the biased estimate, is then high"
                " even for representations that have nothing in common: read cka_debiased, or take more images",
                sys.stderr,
            )


def open_split(
    options: Namespace, group: ProcessGroup, name: str, images: AnyImageSet, seed: int, output: Path
) -> Split:
    """The images to look at and the tables to write. Raises ValueError if a process would have none."""
    chosen_N = choose_images(len(images), options.samples, seed, name)
    if len(chosen_N) < group.world_size:
        raise ValueError(f"--num-images: {len(chosen_N)} images of '{name}' for {group.world_size} processes; too few")
    ranks = f" of {group.world_size} processes" if group.world_size > 1 else ""
    say(f"{name}: {len(chosen_N)} of {len(images)} images, on {group.device}{ranks}")
    wanted = ["alignment", *(["cross_layer"] if options.cross_layer else [])] if group.is_first else []
    tables = {kind: open_table(output / f"{name}_{kind}.csv") for kind in wanted}
    return Split(name, images, chosen_N, tables)


def add_rows(
    epoch: Epoch, missing: Sequence[Score], arms: Sequence[str], embedder: Embedder, group: ProcessGroup
) -> None:
    """Compute the missing scores in one pass over the images and append their rows."""
    name, images, chosen_N, _ = epoch.split
    seed, metrics = embedder.settings.seed, epoch.metrics
    layers = dict.fromkeys(layer for score in missing for layer in (score.reference_layer, score.layer) if layer)
    own_N = chosen_N.tensor_split(group.world_size)[group.rank]
    sizes = {metric.subset: epoch.num_images(metric.name) for metric in metrics.values() if metric.subset}
    subsets = {size: torch.isin(own_N, choose_images(len(images), n, seed, name)) for size, n in sizes.items()}
    batches = embedder.outputs(images, own_N, arms, epoch.epoch, list(layers))
    seen = one_pass(batches, missing, metrics, subsets, keep_rows=bool(epoch.bootstrap))
    found = values(seen, missing, metrics)
    bounds = dict.fromkeys(missing, (nan, nan))
    if epoch.bootstrap:
        own_blocks_N = blocks(len(chosen_N), seed, name).tensor_split(group.world_size)[group.rank]
        subset_blocks = {size: blocks(n, seed, f"{name}/{n}") for size, n in sizes.items()}
        parts = left_out(seen, missing, metrics, own_blocks_N, block_count(len(chosen_N)), subset_blocks)
        for score, part_K in parts.items():
            bounds[score] = interval(found[score], part_K, epoch.bootstrap, seed, metrics[score.metric].range)
    for score, value in found.items():
        if isinstance(value, Undefined):
            place = (score.reference, score.arm, score.reference_layer, score.layer, score.metric)
            say(f"epoch {epoch.epoch}, {name}, {' '.join(filter(None, place))}: no value: {value.reason}")
    for table in epoch.split.tables.values():
        split_at = table.columns.index("value")
        keys = {score: epoch.key(score) for score in found if epoch.table(score) is table}
        table.append((*key[:split_at], found[s], *bounds[s], *key[split_at:]) for s, key in keys.items())


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. Raises ValueError for CUDA without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: got 'cuda', but torch sees no CUDA device; allowed here: cpu, auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = parsers.alignment()
    parser.set_defaults(metrics=[each.name for each in find_pair_metrics(pair_metric_names()) if not each.subset])
    return run_program(on_all_ranks, parser, arguments)
