"""Compute the papers' bounds for a run and compare them with the measured values.

Writes bounds.csv, one bound and its measured value per row (formulas: bound_formulas.py). `vacuous` is "yes" where a
bound is vacuous; `holds` is "no" where the measured value violates the bound. The bounds:
* alignment: lower bounds (floors) of CKA and RSA, from one pass over the clean images. `a_posteriori` and
  `a_posteriori_sharp` follow from the measured distance rho of the similarity matrices (`log10_rho`); a score below
  them is an error. `a_priori` exists for a pair of dcl and nscl arms that are otherwise the same, at layer z of train.
  Its rho is a bound from the learning rates of steps.csv, the batch size, the temperature and the class counts (95 %),
  divided by the measured ||K||. The theorem is about gradient descent on the similarities, each a free variable. In a
  network every weight changes all similarities, so its scores may lie below this bound. Then all rows are written, a
  message is printed, and the exit status is 1.
* few-shot errors, from quality.csv: `proposition_1` and `documented_form` from the CDNV of the test images, with the
  measured errors of class centres and of the probe, among all classes and two-way (mean over pairs of classes).
* weights, from weight_gap.csv: `exponential_shape`, the shape of the bound with slope and beta fitted by least squares
  to the measured global distance. It shows how well the shape fits; it is not a bound. `fit_epochs` to `beta` describe
  the fit.
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
from coupled.config.registry import with_label_noise
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
    """Return the papers' bounds with the measured values.

    The bounds of few-shot errors and of weights are computed from quality.csv and weight_gap.csv in `run.tables`. If
    such a table is missing, the command that writes it is printed.

    Args:
        run: the run.
        compare: arms to compare (default: every other arm).
        reference: the arm they are compared with (default: cl, or the run's first arm if there is no cl).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        layers: "h" (embedding), "z" (projection) or both.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of bounds.csv with its columns (see `schemas.SCHEMAS`): one bound per row, NaN where a column does not
        apply.

    Raises:
        ValueError: for an unknown arm, epoch, split or layer, a damaged snapshot or table, images that are not those
            of the run, or a score below an a-posteriori bound, which contradicts the theorem.

    Example:
        >>> found = compute(run, split="test", layers="h", epochs=[0])  # doctest: +ELLIPSIS
        runs/tiny/analysis/quality.csv: no bounds from this table; ...
        runs/tiny/analysis/weight_gap.csv: no bounds from this table; ...
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
    """Plan the bounds of the chosen arms and epochs. Arguments as in `compute`; `output` is the folder of tables."""
    check_labelled(run, "bounds")
    splits, wanted = choices("split", split, SPLITS), choices("layers", layers, OUTPUTS)
    embedder = Embedder(run, choose_device(device))

    def chunks(has: RowExists) -> Iterator[Chunk]:
        train, settings = run.images("train", accept_changed_images), run.settings
        trained = with_label_noise(settings.dataset.model_dump(), train, settings.seed)
        counts_C = trained.labels_N.unique(return_counts=True)[1]
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in splits}
        share = float(counts_C.max() / counts_C.sum())
        for rows in missing_floors(run, chosen, wanted, embedder, skip_corrupt, has, samples, share):
            yield Chunk(TABLE, rows)
            for row in rows:
                if row[COLUMNS.index("bound")] == "a_priori":
                    say(in_words(dict(zip(COLUMNS, row, strict=True))))
        yield from of_tables(run, chosen.reference, output, len(train.class_names))

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
    """Yield the missing rows of CKA and RSA for each epoch and split; `share` is that of the largest class.

    Raises ValueError if a score lies below an a-posteriori bound, or if steps.csv lacks an epoch.
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
                raise ValueError(f"{run.path / 'steps.csv'}: no steps of epoch {epoch}; restore the file")
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
    """Yield the rows from quality.csv and weight_gap.csv in `output`; print the command for a missing table."""
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
            say(f"{path}: no bounds from this table; it needs {needed}; write them with: {command}")
        yield Chunk(TABLE, rows, renew=True)


def print_scores_below_bounds(output: Path) -> int:
    """Report the scores of bounds.csv below an a-priori bound; return the exit status, 1 if there are any."""
    found = read_newest(output / TABLE, "value", "measured", "log10_rho", "vacuous", "holds")
    priori = found[found["bound"] == "a_priori"]
    below = priori[priori["holds"] == "no"]
    if not len(below):
        return 0
    records = ({str(column): value for column, value in row.items()} for row in below.to_dict("records"))
    farthest = max(records, key=lambda row: float(row["value"] - row["measured"]))
    say(
        f"{program_name('bounds')}: {output / TABLE}: {len(below)} of {len(priori)} scores lie below their"
        f" a-priori bound; the theorem excludes this only for gradient descent on the similarities themselves;"
        f" largest difference: {in_words(farthest)}",
        file=sys.stderr,
    )
    return 1


def in_words(row: Mapping[str, object]) -> str:
    """The text of an a-priori bound: "vacuous", or the bound, the measured score, and whether the bound is violated."""
    says = "vacuous"
    if row["vacuous"] == "no":
        says = f"{row['of']} >= {row['value']:.4g}, measured {row['measured']:.4g}"
        says += "" if row["holds"] == "yes" else ", below it"
    return f"epoch {row['epoch']}, {row['split']}, '{row['arm']}': a priori rho <= 10^{row['log10_rho']:.3g}: {says}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_reference, plan), parsers.bounds(), arguments)
