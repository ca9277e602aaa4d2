"""The papers' bounds, computed from a run, beside what was measured.

python analysis/bounds.py [--run-dir DIR] [--compare nscl scl ce] [--reference cl] [--split train test] [--layers h z]
       [--num-images N] [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]

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
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from math import isnan, log
from pathlib import Path
from typing import Any, NamedTuple

from coupled.analysis import parsers
from coupled.analysis.alignment import choose_device
from coupled.analysis.driver import run_program, tracked, typed_command
from coupled.analysis.metric_registry import find_pair_metrics
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_selected
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.run import DIGITS, Selection, select
from coupled.analysis.tables import read_newest, read_table
from coupled.analysis.theory.bound_formulas import (
    alignment_floor,
    log_gradient_gap,
    log_similarity_distance,
    sharp_alignment_floor,
)
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
from coupled.analysis.theory.similarity_distance import DISTANCES
from coupled.analysis.tidy_csv import TidyCsv, open_table
from coupled.config.controls import draws
from coupled.config.schema import Settings, from_resolved
from coupled.monitoring.commands import program_name
from coupled.monitoring.terminal import say
from coupled.stream.seeds import set_determinism

DELTA = 0.05  # the probability with which the a-priori bound may fail
ROUNDING = 1e-9  # by which a score may lie below its floor
METRICS = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])} | DISTANCES


class Rates(NamedTuple):
    """The steps of a run up to an epoch and the sum of their learning rates."""

    steps: int
    total: float


def rates_by_epoch(rows: Sequence[Mapping[str, Any]]) -> dict[int, Rates]:
    """`Rates` after each epoch of steps.csv, epoch 0 included."""
    found = {0: Rates(0, 0.0)}
    now = found[0]
    for row in rows:
        now = Rates(now.steps + 1, now.total + float(row["lr"]))
        found[int(row["epoch"])] = now
    return found


def read_rates(run: Path) -> dict[int, Rates]:
    """`Rates` after each epoch of the run. Raises ValueError without a steps.csv, and if a cell of it is wrong."""
    path = run / "steps.csv"
    if not path.exists():
        raise ValueError(f"{path}: expected a table of steps, found no file")
    rows = read_table(path, ("epoch", "lr")).reindex(columns=["epoch", "lr"]).to_dict("records")
    return rates_by_epoch([{str(name): cell for name, cell in row.items()} for row in rows])


def log_distances(settings: Settings, arm: str, rates: Rates, largest_share: float) -> float:
    """log of the a-priori bound on the distance of the similarity matrices of `arm` and its counterpart."""
    batch = settings.batch.size
    temperature = settings.arms[arm].options.get("temperature", settings.temperature)
    gap = log_gradient_gap(batch, max(rates.steps, 1), temperature, largest_share, DELTA)
    return log_similarity_distance(rates.total, batch, temperature, gap)


def foretold(settings: Settings, *pair: str) -> bool:
    """Whether the a-priori bound speaks of this pair of arms: dcl and nscl, with the same options and draws.

    run.json has every option written out: DCL's `similarity`, which NSCL does not have, too.
    """
    arms = {name: arm.model_dump() for name, arm in settings.arms.items()}
    used, objectives = draws(arms), {settings.arms[arm].objective for arm in pair}
    options = [{"similarity": "cosine", **settings.arms[arm].options} for arm in pair]
    alike = options[0] == options[1] and used[pair[0]] == used[pair[1]]
    return objectives == {"dcl", "nscl"} and alike and not any(settings.arms[arm].perturb for arm in pair)


def floors(values: Mapping[str, float], log_apriori: float | None) -> Iterator[tuple[str, str, float, float, float]]:
    """(bound, of, floor, measured score, log rho) of a pair at one layer; without a-priori bound for None.

    Raises ValueError if a score lies below an a-posteriori floor.
    """
    for of in ("cka", "rsa"):
        measured, rho = values[of], values[f"rho_{of}"]
        if isnan(measured) or isnan(rho):
            continue
        log_rhos = {"a_posteriori": log(rho) if rho > 0 else -float("inf")}
        log_rhos["a_posteriori_sharp"] = log_rhos["a_posteriori"]
        if log_apriori is not None:
            log_rhos["a_priori"] = log_apriori - values[f"log_norm_{of}"]
        for bound, log_rho in log_rhos.items():
            floor = (sharp_alignment_floor if bound.endswith("sharp") else alignment_floor)(log_rho)
            if bound != "a_priori" and not measured >= floor - ROUNDING:
                raise ValueError(f"{of} is {measured:.12g}, below its {bound} bound {floor:.12g}, which cannot be")
            yield bound, of, floor, measured, log_rho


def alignment_rows(
    chosen: Selection, options: Namespace, settings: Settings, table: TidyCsv, share: float
) -> Iterator[list[Row]]:
    """The rows of CKA and RSA that the table does not have yet, for each epoch and split; `share` of the largest class.

    Raises ValueError where a score lies below an a-posteriori floor, or steps.csv lacks an epoch.
    """
    rates = read_rates(chosen.store.folder.parent)
    embedder = Embedder(settings, chosen.store, choose_device(options.device))
    splits = {s: load_selected(settings, s, chosen, options) for s in dict.fromkeys(options.split)}
    digests = {(entry.arm, entry.epoch): entry.digest[:DIGITS] for entry in chosen.store.entries()}
    for epoch in tracked(chosen.epochs, "epochs"):
        for split, images in splits.items():
            chosen_N = choose_images(len(images), options.samples, settings.seed, split)
            source = {
                arm: {
                    "reference_digest": digests[chosen.reference, epoch],
                    "arm_digest": digests[arm, epoch],
                    "images_digest": images.digest()[:DIGITS],
                    "num_images": len(chosen_N),
                }
                for arm in chosen.arms
            }
            wanted = []
            for arm in chosen.arms:
                for layer in dict.fromkeys(options.layer):
                    place = {"epoch": epoch, "split": split, "reference": chosen.reference, "arm": arm, "module": layer}
                    if not table.has(*cells(KEY, **place, bound="a_posteriori", of="rsa", **source[arm])):
                        wanted += [Score(chosen.reference, arm, layer, metric) for metric in METRICS]
            arms = list(dict.fromkeys([chosen.reference, *(score.arm for score in wanted)])) if wanted else []
            good = embedder.readable(arms, epoch, options.skip_bad)
            wanted = [score for score in wanted if {score.arm, chosen.reference} <= {*good}]
            if not wanted:
                continue
            if epoch not in rates:
                raise ValueError(f"{chosen.store.folder.parent / 'steps.csv'}: no steps of epoch {epoch}; restore it")
            values = scores(embedder.outputs(images, chosen_N, good, epoch), wanted, METRICS)
            rows: list[Row] = []
            for arm, layer in dict.fromkeys((score.arm, score.layer) for score in wanted):
                of_pair = {metric: values[Score(chosen.reference, arm, layer, metric)] for metric in METRICS}
                told = (layer, split) == ("z", "train") and foretold(settings, chosen.reference, arm)
                place = {"epoch": epoch, "split": split, "reference": chosen.reference, "arm": arm, "module": layer}
                try:
                    found = list(floors(of_pair, log_distances(settings, arm, rates[epoch], share) if told else None))
                except ValueError as error:
                    raise ValueError(f"epoch {epoch}, {split}, '{arm}', layer {layer}: {error}") from None
                for bound, of, floor, measured, log_rho in found:
                    what = {
                        "value": floor,
                        "measured": measured,
                        "log10_rho": log_rho / log(10),
                        "vacuous": "yes" if log_rho >= 0 else "no",
                        "holds": "yes" if measured >= floor - ROUNDING else "no",
                    }
                    rows.append(cells(COLUMNS, **place, bound=bound, of=of, **what, **source[arm]))
            yield rows


def bounds(options: Namespace) -> int:
    """Write the rows that the table does not have yet, and say what could not be computed, and which are vacuous.

    Returns the exit status: 1 if the table has scores below an a-priori bound, which is said.
    """
    chosen = select(options)
    settings = from_resolved(chosen.description["settings"], "run.json")
    table = open_table(chosen.output / "bounds.csv")
    set_determinism(True, None)
    counts_C = load_selected(settings, "train", chosen, options).labels_N.unique(return_counts=True)[1]
    share = float(counts_C.max() / counts_C.sum())
    for rows in alignment_rows(chosen, options, settings, table, share):
        table.append(rows)
        for row in rows:
            if row[COLUMNS.index("bound")] == "a_priori":
                say(in_words(dict(zip(COLUMNS, row, strict=True))))
    run = chosen.store.folder.parent
    rates = {epoch: each.total for epoch, each in read_rates(run).items()}
    quality, gaps = chosen.output / "quality.csv", chosen.output / "weight_gap.csv"
    elsewhere = ["--output", str(options.output)] if options.output else []
    for path, rows, needed, more in (
        (
            quality,
            few_shot_rows(quality, len(counts_C)),
            "few-shot errors and scatter",
            ["--metrics", *SCATTER, *TASKS],
        ),
        (gaps, weight_rows(gaps, rates), "four epochs or more", ["--reference", chosen.reference]),
    ):
        if not rows:
            command = typed_command(path.stem, run, *elsewhere, *more)
            say(f"{path}: nothing in it for a bound; what is needed ({needed}) is written by: {command}")
        table.renew(rows)
    say(f"{table.path}: {table.written} new rows, {len(table.held)} in all")
    found = read_newest(table.path, "value", "measured", "log10_rho", "vacuous", "holds")
    priori = found[found["bound"] == "a_priori"]
    below = priori[priori["holds"] == "no"]
    if len(below):
        records = ({str(column): value for column, value in row.items()} for row in below.to_dict("records"))
        farthest = max(records, key=lambda row: float(row["value"] - row["measured"]))
        say(
            f"{program_name('bounds')}: {table.path}: {len(below)} of {len(priori)} scores lie below their"
            f" a-priori bound, which the theorem rules out for descent on the similarities themselves;"
            f" farthest: {in_words(farthest)}",
            file=sys.stderr,
        )
    return 1 if len(below) else 0


def in_words(row: Mapping[str, object]) -> str:
    """An a-priori bound, with "vacuous" or what it says and whether the measured score keeps to it."""
    says = "vacuous"
    if row["vacuous"] == "no":
        says = f"{row['of']} >= {row['value']:.4g}, measured {row['measured']:.4g}"
        says += "" if row["holds"] == "yes" else ", below it"
    return f"epoch {row['epoch']}, {row['split']}, '{row['arm']}': a priori rho <= 10^{row['log10_rho']:.3g}: {says}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(bounds, parsers.bounds(), arguments)
