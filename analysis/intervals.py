"""How certain the alignment is: 95 % intervals over images for the metrics that are exact in one pass.

python analysis/intervals.py [--run DIR] [--compare nscl scl ce] [--reference cl] [--split train test] [--layer h z]
       [--metrics cka rsa] [--samples N] [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]

Writes alignment_intervals.csv. The images are cut into 10 groups by the run's seed, their sums are gathered in one
pass, and each metric is computed 10 times without one of the groups: the delete-a-group jackknife (Efron, Stein 1981;
Kott 2001). `value` is that of alignment.py, low and high are value -+ 2.262 standard errors, cut to the metric's range
(2.262: 97.5 % of Student's t with 9 degrees of freedom). The entries of a similarity matrix depend on each other, so
formulas for independent pairs would be far too narrow.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from torch import Tensor

from analysis.alignment import Score, choose_device, ends
from analysis.command_line import parser, positive, run_program
from analysis.embeddings import OUTPUTS, Embedder, choose_images, load_images
from analysis.pair_metrics import PairMetric, find_metrics, metric_names
from analysis.pair_metrics._sums import CrossSums, RowStream
from analysis.run_folder import TidyCsv, select
from coupled.image_sets import SPLITS, AnyImageSet
from coupled.settings import from_resolved
from coupled.stream.seeds import permutation, philox, set_determinism

KEY = ("epoch", "split", "reference", "arm", "layer", "metric", "samples")
COLUMNS = (*KEY[:6], "value", "low", "high", KEY[6])
GROUPS = 10
QUANTILE = 2.262157
Place = tuple[str, str, str, str]  # layer, transform, and the two arms


def groups_of(chosen_N: Tensor, seed: int, split: str) -> list[Tensor]:
    """The chosen images in groups of equal size but one, each ascending; by chance, not by class."""
    shuffled_N = chosen_N[permutation(len(chosen_N), philox(seed, f"analysis/groups/{split}"))]
    return [group_n.sort().values for group_n in shuffled_N.tensor_split(GROUPS)]


def places_of(score: Score, metrics: Mapping[str, PairMetric], reference: str) -> list[Place]:
    """Where the three sums of a score are gathered."""
    transform = metrics[score.metric].transform
    return [(score.layer, transform, *pair) for pair in ends(reference, score.arm)]


def sums_of(
    embedder: Embedder, images: AnyImageSet, group_n: Tensor, arms: Sequence[str], epoch: int, places: Sequence[Place]
) -> dict[Place, CrossSums]:
    """The sums of one group of images at every place."""
    streams = {(layer, transform, arm): RowStream(transform) for layer, transform, *pair in places for arm in pair}
    sums = {place: CrossSums() for place in places}
    for outputs in embedder.outputs(images, group_n, arms, epoch):
        rows = {key: stream.rows(outputs[key[2], key[0]]) for key, stream in streams.items()}
        for (layer, transform, a, b), each in sums.items():
            each.update(rows[layer, transform, a], rows[layer, transform, b])
    return sums


def interval(metric: PairMetric, groups: Sequence[Sequence[CrossSums]]) -> tuple[float, float, float]:
    """(value, low, high) from the three sums, xx, yy and xy, of every group; NaN where a value is undefined."""

    def value_without(left_out: int) -> float:
        three = []
        for end in range(3):
            whole = CrossSums()
            for place, sums in enumerate(groups):
                if place != left_out:
                    whole.merge(sums[end])
            three.append(whole.moments())
        return metric.value(*three)

    value, parts = value_without(-1), np.array([value_without(place) for place in range(len(groups))])
    error = QUANTILE * sqrt((len(parts) - 1) * float(np.mean((parts - parts.mean()) ** 2)))
    return value, max(metric.range[0], value - error), min(metric.range[1], value + error)


def intervals(options: Namespace) -> None:
    """Write the rows that the table does not have yet, epoch by epoch."""
    metrics = exact_metrics(options.metrics)
    chosen = select(options)
    settings = from_resolved(chosen.description["settings"], "run.json")
    table = TidyCsv(chosen.output / "alignment_intervals.csv", COLUMNS, KEY)
    set_determinism(True, None)
    embedder = Embedder(settings, chosen.store, choose_device(options.device))
    splits = {s: load_images(settings, s, chosen.description["image_set"]) for s in dict.fromkeys(options.split)}
    everything = [Score(a, layer, m) for a in chosen.arms for layer in dict.fromkeys(options.layer) for m in metrics]
    for epoch in chosen.epochs:
        for split, images in splits.items():
            chosen_N = choose_images(len(images), options.samples, settings.seed, split)
            if len(chosen_N) < 3 * GROUPS:
                raise ValueError(f"--samples: {len(chosen_N)} images of '{split}'; {3 * GROUPS} or more are allowed")
            where = epoch, split, chosen.reference
            missing = [score for score in everything if not table.has(*where, *score, len(chosen_N))]
            arms = list(dict.fromkeys([chosen.reference, *(score.arm for score in missing)])) if missing else []
            good = embedder.readable(arms, epoch, options.skip_bad)
            missing = [score for score in missing if {score.arm, chosen.reference} <= {*good}]
            if not missing:
                continue
            places = {score: places_of(score, metrics, chosen.reference) for score in missing}
            wanted = list(dict.fromkeys(place for each in places.values() for place in each))
            cut = groups_of(chosen_N, settings.seed, split)
            groups = [sums_of(embedder, images, group_n, good, epoch, wanted) for group_n in cut]
            rows = []
            for score, three in places.items():
                found = interval(metrics[score.metric], [[sums[place] for place in three] for sums in groups])
                rows.append((*where, *score, *found, len(chosen_N)))
            table.append(rows)
    print(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def exact_metrics(names: Sequence[str] | None) -> Mapping[str, PairMetric]:
    """The metrics called `names`, all exact ones without. Raises ValueError for a name that is not of an exact one."""
    exact = {metric.name: metric for metric in find_metrics(metric_names()) if not metric.subset}
    for name in names or ():
        if name not in exact:
            raise ValueError(f"--metrics: '{name}' is not one that is exact in one pass (those: {', '.join(exact)})")
    return {name: exact[name] for name in dict.fromkeys(names or exact)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = parser("intervals.py", "Intervals of the arms' alignment over images.")
    options.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: both")
    options.add_argument("--layer", nargs="+", choices=tuple(OUTPUTS), default=list(OUTPUTS), help="default: both")
    options.add_argument("--metrics", nargs="+", help="default: those exact in one pass")
    options.add_argument("--samples", type=positive, metavar="N", help="at most N images a split, always the same ones")
    options.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one"
    )
    return run_program(intervals, options, arguments)


if __name__ == "__main__":
    sys.exit(main())
