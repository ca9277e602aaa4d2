"""Measure the similarity of the arms' representations to the reference arm's, at every snapshot.

Writes train_alignment.csv and test_alignment.csv, one value per row; `--compare all` measures every pair of arms. For
each snapshot the images are read once, clean and in evaluation mode, for all pairs, layers and metrics. Layer h is the
embedding, z the projection, any other a module of the encoder (see layers.py).
`--cross-layer` adds train_cross_layer.csv and test_cross_layer.csv: the CKA of every layer of the reference
(`reference_module`) with every layer of the arm (`module`). `--per-class` adds train_class_alignment.csv and
test_class_alignment.csv: the metrics of the images of each class (`label`). `--mutual-knn` adds train_mutual_knn.csv
and test_mutual_knn.csv: mutual_knn for several numbers of neighbours `k`.

The metrics are the files of metrics/pair. A metric that is not exact in one pass uses a seeded subset of the images;
`num_images` is its size. `ci_low` and `ci_high` are a 95 % confidence interval over images from `resamples` resamples
(see intervals.py), empty without `--confidence`. An undefined score is an empty cell, and the program prints the
reason.

Rows are cached by snapshot and dataset digest: a row with the same digests is not computed again. With `--confidence R`
it is computed again, and replaced, if it has no interval from R resamples. The last columns hold the digests, cut to 16
digits. Of rows that differ only in digests, the last one is valid.
"""

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from coupled.analysis import parsers
from coupled.analysis.against import joined
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame, tracked
from coupled.analysis.representations.cache import open_cache
from coupled.analysis.representations.embeddings import Embedder, choose_device
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.representations.pair_inputs import (
    check_neighbours,
    check_one_table,
    check_per_class,
    load_samples,
    warn_of_no_interval,
)
from coupled.analysis.representations.pair_rows import (
    ALIGNMENT,
    CLASSES,
    CROSS,
    CROSS_METRIC,
    CURVE_METRIC,
    CURVES,
    Measurement,
    pair_rows,
)
from coupled.analysis.representations.pair_scores import Score
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, choices, listed, select_pairs
from coupled.config.metric_registry import find_pair_metrics
from coupled.datasets import SPLITS
from coupled.monitoring.commands import program_name
from coupled.parallel.failure_broadcast import FailureBroadcast
from coupled.parallel.launcher import end_with_agent
from coupled.parallel.process_group import ProcessGroup, gather_json, join_rendezvous, process_group
from coupled.stream.seeds import set_determinism


def compute(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    against: Run | Path | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    metrics: Sequence[str] | str | None = None,
    cross_layer: bool = False,
    per_class: bool = False,
    mutual_knn: Sequence[int] | int | None = None,
    confidence: int | None = None,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
    cache: float | None = None,
) -> pd.DataFrame:
    """Return the similarity of the arms' representations to the reference arm's.

    Args:
        run: the run.
        compare: arms to compare (default: every other arm), or "all" for every pair of arms.
        reference: the arm they are compared with (default: cl, or the run's first arm if there is no cl).
        against: another run: each arm is compared with its arm of the same name, `<folder>:<arm>` in the rows.
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        layers: "h" (embedding), "z" (projection), "stem", modules of the encoder, or "stages".
        metrics: names of files of coupled/metrics/pair (default: cka, cka_debiased, procrustes, rsa, rsa_correlation).
        cross_layer: the CKA of every layer of the reference with every layer of the arm, instead of the metrics.
        per_class: the metrics of the images of each class, instead of all images.
        mutual_knn: numbers of neighbours: the metric mutual_knn for each of them, instead of the metrics.
        confidence: number of resamples for 95 % confidence intervals over images (default: no intervals).
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.
        cache: keep at most this many GiB of embeddings in analysis/cache of the run (default: keep none).

    Returns:
        The rows of train_alignment.csv and test_alignment.csv, or with `cross_layer` those of <split>_cross_layer.csv,
        with `per_class` of <split>_class_alignment.csv, with `mutual_knn` of <split>_mutual_knn.csv, with their columns
        (see `schemas.SCHEMAS`): one value per row, NaN where it is undefined.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or metric, a damaged snapshot, images that are not those of
            the run, or options that exclude each other.

    Example:
        >>> scores = compute(run, split="test", layers=["h"], metrics=["cka"], epochs=0)
        test: 357 of 357 images, on cpu
        >>> scores[["epoch", "arm", "module", "value"]].values.tolist()
        [[0, 'nscl', 'h', 1.0]]
    """
    check_one_table(cross_layer, per_class, mutual_knn)
    run = joined(run, against)
    chosen = select_pairs(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    planned = plan(
        run,
        chosen,
        split=split,
        layers=layers,
        metrics=[] if cross_layer or mutual_knn is not None else metrics,
        cross_layer=cross_layer,
        per_class=per_class,
        mutual_knn=mutual_knn,
        confidence=confidence,
        num_images=num_images,
        device=device,
        skip_corrupt=skip_corrupt,
        accept_changed_images=accept_changed_images,
        cache=cache,
        output=run.tables,
    )
    kind = CROSS if cross_layer else CLASSES if per_class else CURVES if mutual_knn is not None else ALIGNMENT
    return to_frame(planned, *(name for name in planned.tables if name.endswith(kind)))


def plan(
    run: Run,
    chosen: Selection,
    *,
    split: Sequence[str] | str,
    layers: Sequence[str] | str,
    metrics: Sequence[str] | str | None,
    cross_layer: bool,
    per_class: bool,
    mutual_knn: Sequence[int] | int | None,
    confidence: int | None,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
    cache: float | None,
    output: Path,
    group: ProcessGroup | None = None,
) -> Plan:
    """Plan the scores of the chosen pairs and epochs. Arguments as in `compute`; `output` is the folder of tables and
    cache, `group` the ranks that share the images.
    """
    splits, group = choices("split", split, SPLITS), group or ProcessGroup(0, 1, choose_device(device))
    names = parsers.PAIR_METRICS if metrics is None else listed(metrics)
    cross, ks = [CROSS_METRIC] * cross_layer, check_neighbours(mutual_knn)
    try:
        listed_metrics, others = find_pair_metrics(names), find_pair_metrics([*cross, *([CURVE_METRIC] if ks else [])])
    except ValueError as error:
        raise ValueError(f"metrics: {str(error).removeprefix('--metrics: ')}") from None
    found = {metric.name: metric for metric in (*listed_metrics, *others)}
    if per_class:
        check_per_class(run, listed_metrics)
    embedder = Embedder(run, group.device, open_cache(output, cache))
    widths = embedder.layers(listed(layers))
    of_images = [Score(*pair, layer, each.name) for pair in chosen.pairs for layer in widths for each in listed_metrics]
    wanted = of_images + [
        Score(*pair, own, name, other) for pair in chosen.pairs for other in widths for own in widths for name in cross
    ]
    wanted += [Score(*pair, layer, CURVE_METRIC, k=k) for pair in chosen.pairs for layer in widths for k in ks]
    asked = {ALIGNMENT: True, CROSS: cross_layer, CLASSES: per_class, CURVES: bool(ks)}

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = load_samples(run, splits, num_images, accept_changed_images, group, found, widths, per_class)
        if group.is_first:
            warn_of_no_interval(found, confidence)
        for epoch in tracked(chosen.epochs, "epochs"):
            for name, sample in samples.items():
                part = Measurement(epoch, name, sample, found, confidence, run.snapshot_digests())
                every = [*wanted, *(part.of_classes(of_images) if per_class else ())]
                yield from missing_rows(part, every, embedder, group, skip_corrupt, has)

    return Plan([f"{name}{kind}" for name in splits for kind in asked if asked[kind]], chunks)


def missing_rows(
    part: Measurement,
    wanted: Sequence[Score],
    embedder: Embedder,
    group: ProcessGroup,
    skip_corrupt: bool,
    has: RowExists,
) -> Iterator[Chunk]:
    """Yield the missing rows of one epoch and split. Rank 0 reads the tables and broadcasts which rows exist."""
    there = None
    if group.is_first:
        there = [has(part.table(score), *part.key(score), resamples=part.confidence) for score in wanted]
    missing = [score for score, done in zip(wanted, gather_json(there)[0], strict=True) if not done]
    arms = dict.fromkeys(arm for score in missing for arm in (score.reference, score.arm))
    good = embedder.readable(arms, part.epoch, skip_corrupt)
    missing = [score for score in missing if {score.arm, score.reference} <= {*good}]
    if missing:
        for table, rows in pair_rows(part, missing, good, embedder, group).items():
            yield Chunk(table, rows, renew=True)


def on_all_ranks(options: Namespace) -> int:
    """Run the program in all processes of torchrun, or in a single process; one process prints an error."""
    end_with_agent(program_name("alignment"))
    rendezvous = join_rendezvous()
    if rendezvous.world_size == 1:
        return append_missing(select_pairs, plan, options)
    with contextlib.ExitStack() as opened, FailureBroadcast(program_name("alignment"), rendezvous) as alarm:
        if rendezvous.rank:
            opened.enter_context(contextlib.redirect_stdout(io.StringIO()))  # only rank 0 prints
        choose_device(options.device)
        set_determinism(True, None)  # before the process group, because it sets variables that NCCL reads
        group = opened.enter_context(process_group(options.device, rendezvous=rendezvous))
        append_missing(select_pairs, partial(plan, group=group), options, writes=group.is_first)
    return sys.exit(alarm.status) if alarm.status else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(on_all_ranks, parsers.alignment(), arguments)
