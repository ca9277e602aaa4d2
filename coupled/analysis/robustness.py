"""Measure the error of each arm on corrupted test images, and its mean corruption error relative to another arm.

Writes robustness.csv, the error for each corruption and severity (Hendrycks and Dietterich 2019), and those on clean
images (corruption `none`, severity 0). The classifier is the arm's own if it has one (module `logits`), otherwise, or
with `--classifier probe`, the `regularised` linear probe of quality.csv on h, fitted on clean train images. Every image
is corrupted once for all arms and is not kept. Corruptions are generated (see corruptions/generate.py; frost only if
the package with its photographs is installed), or read from a folder with `--corrupted-images`.

If the train images have one class, there is no probe: the value is an empty cell, and the program prints the reason.

robustness_mce.csv is computed from the rows of robustness.csv each time: mean errors, and the corruption errors of
corruptions/errors.py relative to the reference arm. `corruptions` is the number of corruptions in a mean. Digests as in
the tables of quality.py.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import isnan, nan
from pathlib import Path

import pandas as pd

from coupled.analysis import classifier_parsers
from coupled.analysis.corruptions.constants import (
    CORRUPTIONS,
    INSTALL,
    NEED_PHOTOGRAPHS,
    PACKAGE,
    SEVERITIES,
    generated,
)
from coupled.analysis.corruptions.errors import NO_CORRUPTION, SUMMARY, mean_corruption_errors
from coupled.analysis.corruptions.scoring import Scorer, error_rates, scorer
from coupled.analysis.corruptions.sources import Generated, Source, find_source
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame, tracked
from coupled.analysis.quality import Samples
from coupled.analysis.representations.embeddings import Embedder, choose_device, load_sample
from coupled.analysis.representations.quality_tasks import LOGITS, classifier_of
from coupled.analysis.run import DIGITS, Run
from coupled.analysis.selection import Selection, check_labelled, choices, named, select_arms
from coupled.analysis.tables import newest, read_newest
from coupled.analysis.tidy_csv import write_table
from coupled.datasets import SPLITS
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import counted, say

TABLE = "robustness.csv"
OWN, PROBE = (LOGITS, "classifier"), ("h", "linear_probe")  # module and variant
CLEAN = (NO_CORRUPTION, 0)  # corruption and severity


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    reference: str | None = None,
    corruptions: Sequence[str] | str | None = None,
    severities: Sequence[int] = SEVERITIES,
    classifier: str = "own",
    corrupted_images: Path | str | None = None,
    table: str = "robustness",
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return the error of each arm on corrupted test images, or mean corruption errors.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: the last that these arms have).
        reference: the arm of the mean corruption errors (default: cl, or the run's first arm if there is no cl).
        corruptions: names of corruptions (default: all that can be generated, or all in the folder).
        severities: numbers from 1 to 5; mean corruption errors need all.
        classifier: "own", the arm's classifier if it has one, else a linear probe on h; or "probe" for all arms.
        corrupted_images: a folder of corrupted test images, as CIFAR-10-C or ImageNet-C (default: generate them).
        table: "robustness", the error of each corruption and severity, or "robustness_mce", the means.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of robustness.csv or robustness_mce.csv with their columns (see `schemas.SCHEMAS`).

    Raises:
        ValueError: for an unknown arm, epoch, corruption or severity, frost without the package that has its
            photographs, a damaged snapshot, images that are not those of the run, or a folder whose images are not the
            test images of the run.

    Example:
        >>> found = compute(run, arms="cl", corruptions="contrast", severities=[5], epochs=1, num_images=64)
        >>> found[["corruption", "severity"]].values.tolist()
        [['none', 0], ['contrast', 5]]
    """
    (name,) = choices("table", [table], (Path(TABLE).stem, Path(SUMMARY).stem))
    chosen = select_last(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    folder = None if corrupted_images is None else Path(corrupted_images)
    options = (reference, corruptions, severities, classifier, folder, num_images, device)
    rows = to_frame(plan(run, chosen, *options, skip_corrupt, accept_changed_images))
    return rows if f"{name}.csv" == TABLE else mean_corruption_errors(newest(rows, TABLE), reference or run.reference)


def select_last(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    skip_corrupt: bool = False,
) -> Selection:
    """As `select_arms`, but the default of the epochs is the last one."""
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    return chosen if epochs is not None else replace(chosen, epochs=chosen.epochs[-1:])


def plan(
    run: Run,
    chosen: Selection,
    reference: str | None,
    corruptions: Sequence[str] | str | None,
    severities: Sequence[int],
    classifier: str,
    corrupted_images: Path | None,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the errors of the chosen arms and epochs. Arguments as in `compute`."""
    check_labelled(run, "the error on corrupted images")
    other = reference or run.reference
    if other not in (known := named(run.snapshots, None)):
        raise ValueError(f"reference: the run has no arm '{other}' (arms: {', '.join(known)})")
    asked = None if corruptions is None else choices("corruptions", corruptions, CORRUPTIONS)
    if corrupted_images is None:
        check_photographs(asked)
    levels = check_severities(severities)
    (kind,) = choices("classifier", [classifier], classifier_parsers.CLASSIFIERS)
    own = {arm: classifier_of(run, arm) if kind == "own" else None for arm in chosen.arms}
    embedder = Embedder(run, choose_device(device))

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {split: load_sample(run, split, num_images, accept_changed_images) for split in SPLITS}
        source = find_source(corrupted_images, samples["test"], run.settings.seed, run.settings.dataset.num_workers)
        cases = [CLEAN, *product(available(asked, source), levels)]
        digests = run.snapshot_digests()
        for epoch in chosen.epochs:
            scorers: dict[str, Scorer | Undefined] = {}
            for case in tracked(cases, f"epoch {epoch}, test sets (clean, and each corruption at each severity)"):
                images = source.images(*case)
                start = {arm: (epoch, "test", source.name, arm, *(OWN if own[arm] else PROBE), *case) for arm in own}
                end = {
                    arm: _key_end(samples, digests[arm, epoch], images.digest()[:DIGITS], probe=not own[arm])
                    for arm in own
                }
                missing = [arm for arm in own if not has(TABLE, *start[arm], *end[arm])]
                for arm in (good := embedder.readable(missing, epoch, skip_corrupt)):
                    if arm not in scorers:
                        scorers[arm] = scorer(embedder, samples["train"], own[arm], arm, epoch)
                        print_undefined_reason(f"epoch {epoch}, {arm}", scorers[arm])
                defined = {arm: found for arm in good if isinstance(found := scorers[arm], Scorer)}
                errors: dict[str, float] = {}
                if defined:
                    batches = source.pixels(images, *case, run.settings.image_size, embedder.device)
                    errors = error_rates(embedder, samples["test"], batches, defined, epoch)
                if good:
                    yield Chunk(TABLE, [(*start[arm], errors.get(arm, nan), *end[arm]) for arm in good])

    return Plan([TABLE], chunks, lambda output: write_summary(output, other))


def print_undefined_reason(where: str, found: Scorer | Undefined) -> None:
    """Print why an arm has no classifier, if it has none."""
    if isinstance(found, Undefined):
        say(f"{where} {' '.join(PROBE)}: no value: {found.reason}")


def check_severities(severities: Sequence[int]) -> list[int]:
    """Return the severities without duplicates. Raises ValueError for one that does not exist."""
    for severity in severities:
        if severity not in SEVERITIES:
            raise ValueError(f"severities: got {severity}; allowed are {', '.join(map(str, SEVERITIES))}")
    return sorted({*severities})


def check_photographs(asked: Sequence[str] | None) -> None:
    """Raise ValueError if one of the corruptions cannot be generated without a package, which is not installed."""
    for name in {*(asked or ())} & {*NEED_PHOTOGRAPHS} - {*generated()}:
        raise ValueError(
            f"corruptions: {name} needs the photographs of {PACKAGE}, which is not installed: {INSTALL};"
            " or give a folder with --corrupted-images"
        )


def available(asked: Sequence[str] | None, source: Source) -> list[str]:
    """Return the corruptions to measure, and print which of the paper's are missing. Raises ValueError for one."""
    for name in asked or ():
        if name not in source.corruptions:
            raise ValueError(f"corruptions: {name} is not there (there are {', '.join(source.corruptions)})")
    missing = [name for name in CORRUPTIONS if name not in source.corruptions]
    if asked is None and missing:
        how = f" ({INSTALL})" if isinstance(source, Generated) else ""
        say(f"{source.name} images: without {', '.join(missing)}{how}; means are over the other corruptions")
    return list(asked or source.corruptions)


def _key_end(samples: Samples, snapshot: str, images: str, probe: bool) -> tuple[object, ...]:
    """Return the last key cells of a row: numbers of images, and digests."""
    train = (len(samples["train"].chosen_N), samples["train"].digest) if probe else ("", "")
    return (len(samples["test"].chosen_N), train[0], snapshot, images, train[1])


def write_summary(output: Path, reference: str) -> None:
    """Write robustness_mce.csv from robustness.csv, and print the mean corruption errors of its last rows."""
    rows = mean_corruption_errors(read_newest(output / TABLE, "value"), reference)
    write_table(output / SUMMARY, rows)
    means = rows[rows["metric"] == "mce"]
    if means.empty:
        say(f"{output / SUMMARY}: no mean corruption errors: they need all severities of a corruption, for {reference}")
        return
    last = means[means["epoch"] == means["epoch"].max()]
    shown = ", ".join(
        f"{row.arm} {_text(row.value)} ({counted(row.corruptions, 'corruption')})" for row in last.itertuples()
    )
    where = f"relative to {reference}, epoch {last['epoch'].max()}"
    say(f"{output / SUMMARY}: mean corruption error (mCE) {where}: {shown}")


def _text(value: float) -> str:
    return "undefined" if isnan(value) else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_last, plan), classifier_parsers.robustness(), arguments)
