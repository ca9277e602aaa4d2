"""The papers' bounds, computed from a run, beside what was measured.

Writes bounds.csv, one bound a row (formulas: bound_formulas.py), beside the measured value; `vacuous` is "yes" where a
bound says nothing, `holds` "no" where the measured value is beyond it:
* alignment, floors of CKA and RSA, from a pass over the clean images. `a_posteriori` and `a_posteriori_sharp` follow
  from the measured distance rho of the similarity matrices (`log10_rho`): a score below them is an error. `a_priori`,
  for a pair of dcl and nscl arms that are otherwise alike, layer z of train: its rho is the bound from the learning
  rates of steps.csv, the batch size, the temperature and the class counts (95 %) over the measured ||K||. The theorem
  is about descent on the similarities themselves, each a variable of its own; a network moves all of them with every
  weight, so its scores may lie below. All rows are written then, and the program says so and ends with status 1.
* few-shot errors, from quality.csv: `proposition_1` and `documented_form` from the test images' CDNV, beside the errors
  of class centres and of the probe, among all classes and two-way (mean over pairs of classes).
* weights, from weight_gap.csv: `exponential_shape`, the bound's shape with slope and beta fitted by least squares to
  the measured global distance, so no bound any more; `fit_epochs` to `beta` say the fit.
  It says how far the shape fits.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

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
    typed_command,
)
from coupled.analysis.representations.embeddings import OUTPUTS, Embedder, Sample, choose_device, load_sample
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, check_labelled, choices, select_reference
from coupled.analysis.tables import read_newest
from coupled.analysis.theory.alignment_floors import DISTANCES, floor_rows, has_apriori_bound, log_distances, read_rates
from coupled.analysis.theory.bounds_of_tables import (
    COLUMNS,
    KEY,
    SCATTER,
    TASKS,
    Row,
    cells,
    few_shot_rows,
    weight_rows,
)
from coupled.config.metric_registry import find_pair_metrics
from coupled.datasets import SPLITS
from coupled.monitoring.commands import program_name
from coupled.monitoring.terminal import say

TABLE = "bounds.csv"
METRICS = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])} | DISTANCES


def compute(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """The papers' bounds beside what was measured.

    Those of few-shot errors and of weights follow from quality.csv and weight_gap.csv in `run.tables`; where such a
    table is missing, the program that writes it is said.

    Args:
        run: the run.
        compare: arms to compare (default: every other arm).
        reference: the arm they are compared with (default: cl, or the run's first arm if there is no cl).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        layers: "h" (embedding), "z" (projection) or both.
        num_images: at most so many images a split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: pass over missing and damaged snapshots, saying which.
        accept_changed_images: measure the images as they are, though they are not those of the run.

    Returns:
        The rows of bounds.csv with its columns (see `schemas.SCHEMAS`): one bound a row, NaN where nothing is known.

    Raises:
        ValueError: for an arm, epoch, split or layer that there is not, a damaged snapshot or table, images that are
            not those of the run, or a score below an a-posteriori floor, which cannot be.

    Example:
        >>> found = compute(run, split="test", layers="h", epochs=[0])  # doctest: +ELLIPSIS
        runs/tiny/analysis/quality.csv: nothing in it for a bound; what is needed ...
        runs/tiny/analysis/weight_gap.csv: nothing in it for a bound; what is needed ...
        >>> sorted(set(found["bound"]))
        ['a_posteriori', 'a_posteriori_sharp']
    """
    chosen = select_reference(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    tables = run.tables
    return to_frame(
        plan(run, chosen, split, layers, num_images, device, skip_corrupt, accept_changed_images, tables), TABLE
    )


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    layers: Sequence[str] | str,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
    output: Path,
) -> Plan:
    """What is to be computed of the chosen arms and epochs; arguments as of `compute`, and the folder of the tables."""
    check_labelled(run, "bounds")
    splits, wanted = choices("split", split, SPLITS), choices("layers", layers, OUTPUTS)
    embedder = Embedder(run, choose_device(device))

    def chunks(has: RowExists) -> Iterator[Chunk]:
        counts_C = run.images("train", accept_changed_images).labels_N.unique(return_counts=True)[1]
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in splits}
        share = float(counts_C.max() / counts_C.sum())
        for rows in missing_floors(run, chosen, wanted, embedder, skip_corrupt, has, samples, share):
            yield Chunk(TABLE, rows)
            for row in rows:
                if row[COLUMNS.index("bound")] == "a_priori":
                    say(in_words(dict(zip(COLUMNS, row, strict=True))))
        yield from of_tables(run, chosen.reference, output, len(counts_C))

    return Plan([TABLE], chunks, print_scores_below_bounds)


def missing_floors(
    run: Run,
    chosen: Selection,
    layers: Sequence[str],
    embedder: Embedder,
    skip_corrupt: bool,
    has: RowExists,
    samples: Mapping[str, Sample],
    share: float,
) -> Iterator[list[Row]]:
    """The rows of CKA and RSA that the table does not have yet, for each epoch and split; `share` of the largest class.

    Raises ValueError where a score lies below an a-posteriori floor, or steps.csv lacks an epoch.
    """
    rates, digests = read_rates(run.path), run.snapshot_digests()
    for epoch in tracked(chosen.epochs, "epochs"):
        for split, sample in samples.items():
            places = {}
            for arm in chosen.arms:
                source = {
                    "reference_digest": digests[chosen.reference, epoch],
                    "arm_digest": digests[arm, epoch],
                    "images_digest": sample.digest,
                    "num_images": len(sample.chosen_N),
                }
                for layer in layers:
                    place = {"epoch": epoch, "split": split, "reference": chosen.reference, "arm": arm, "module": layer}
                    if not has(TABLE, *cells(KEY, **place, bound="a_posteriori", of="rsa", **source)):
                        places[arm, layer] = place | source
            arms = list(dict.fromkeys([chosen.reference, *(arm for arm, _ in places)])) if places else []
            good = embedder.readable(arms, epoch, skip_corrupt)
            places = {end: place for end, place in places.items() if {end[0], chosen.reference} <= {*good}}
            if not places:
                continue
            if epoch not in rates:
                raise ValueError(f"{run.path / 'steps.csv'}: no steps of epoch {epoch}; restore it")
            wanted = [Score(chosen.reference, arm, layer, metric) for arm, layer in places for metric in METRICS]
            values = scores(embedder.outputs(sample.images, sample.chosen_N, good, epoch), wanted, METRICS)
            rows: list[Row] = []
            for (arm, layer), place in places.items():
                apriori = (layer, split) == ("z", "train") and has_apriori_bound(run.settings, chosen.reference, arm)
                log_rho = log_distances(run.settings, arm, rates[epoch], share) if apriori else None
                of_pair = {metric: values[Score(chosen.reference, arm, layer, metric)] for metric in METRICS}
                rows += floor_rows(of_pair, log_rho, place)
            yield rows


def of_tables(run: Run, reference: str, output: Path, classes: int) -> Iterator[Chunk]:
    """The rows that follow from quality.csv and weight_gap.csv in `output`; says how to write what is missing there."""
    rates = {epoch: each.total for epoch, each in read_rates(run.path).items()}
    quality, gaps = output / "quality.csv", output / "weight_gap.csv"
    elsewhere = [] if output == run.tables else ["--output", str(output)]
    of_quality = ["--metrics", *SCATTER, *TASKS]
    for path, rows, needed, more in (
        (quality, few_shot_rows(quality, classes), "few-shot errors and scatter", of_quality),
        (gaps, weight_rows(gaps, rates), "four epochs or more", ["--reference", reference]),
    ):
        if not rows:
            command = typed_command(path.stem, run.path, *elsewhere, *more)
            say(f"{path}: nothing in it for a bound; what is needed ({needed}) is written by: {command}")
        yield Chunk(TABLE, rows, renew=True)


def print_scores_below_bounds(output: Path) -> int:
    """Say which scores of bounds.csv lie below an a-priori bound; the exit status, 1 if there are any."""
    found = read_newest(output / TABLE, "value", "measured", "log10_rho", "vacuous", "holds")
    priori = found[found["bound"] == "a_priori"]
    below = priori[priori["holds"] == "no"]
    if not len(below):
        return 0
    records = ({str(column): value for column, value in row.items()} for row in below.to_dict("records"))
    farthest = max(records, key=lambda row: float(row["value"] - row["measured"]))
    say(
        f"{program_name('bounds')}: {output / TABLE}: {len(below)} of {len(priori)} scores lie below their"
        f" a-priori bound, which the theorem rules out for descent on the similarities themselves;"
        f" farthest: {in_words(farthest)}",
        file=sys.stderr,
    )
    return 1


def in_words(row: Mapping[str, object]) -> str:
    """An a-priori bound, with "vacuous" or what it says and whether the measured score keeps to it."""
    says = "vacuous"
    if row["vacuous"] == "no":
        says = f"{row['of']} >= {row['value']:.4g}, measured {row['measured']:.4g}"
        says += "" if row["holds"] == "yes" else ", below it"
    return f"epoch {row['epoch']}, {row['split']}, '{row['arm']}': a priori rho <= 10^{row['log10_rho']:.3g}: {says}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(partial(append_missing, select_reference, plan), parsers.bounds(), arguments)
