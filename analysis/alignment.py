"""How alike the arms' representations are to the reference arm's, at every snapshot.

python analysis/alignment.py [--run DIR] [--compare nscl scl ce] [--reference cl] [--split train test] [--layer h z]
       [--metrics cka rsa] [--samples N] [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]
torchrun --standalone --nproc_per_node=W analysis/alignment.py ...    the same, images shared out over W processes

Writes train_alignment.csv and test_alignment.csv, one value a row. All arms see the same images once an epoch, clean
and in evaluation mode; layer h is the embedding, z the projection. The metrics are the files of pair_metrics; those
that are not exact in one pass look at a seeded subset of the images, and `samples` is its size. A score without a value
is an empty cell, and the program says why.
"""

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.command_line import parser, positive, run_program
from analysis.embeddings import OUTPUTS, Embedder, choose_images, load_images
from analysis.pair_metrics import PairMetric, find_metrics, metric_names
from analysis.pair_metrics._sums import CrossSums, RowStream
from analysis.run_folder import TidyCsv, select
from analysis.undefined import Undefined
from coupled.failures import Alarm
from coupled.image_sets import SPLITS, AnyImageSet
from coupled.process_group import ProcessGroup, barrier, data_size, gather_images, gather_json, meet, process_group
from coupled.settings import from_resolved
from coupled.stream.seeds import set_determinism

COLUMNS = ("epoch", "split", "reference", "arm", "layer", "metric", "value", "samples")
KEY = tuple(column for column in COLUMNS if column != "value")


class Score(NamedTuple):
    """One number to compute: `metric` between the reference and `arm` at `layer`."""

    arm: str
    layer: str
    metric: str


class Split(NamedTuple):
    """A split's images, the chosen ones and its table."""

    images: AnyImageSet
    chosen_N: Tensor
    table: TidyCsv | None  # rank 0 has it


def scores(
    batches: Iterable[Mapping[tuple[str, str], Tensor]],
    reference: str,
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    subsets: Mapping[int, Tensor] | None = None,
) -> dict[Score, float]:
    """The wanted scores from one pass over `batches` of outputs [B, D] by (arm, layer).

    `subsets` says by size which of this rank's images are in the subset of metrics that look at so many (bool [N], N
    images of all batches); without it, all are.
    """
    streams: dict[tuple[str, str, str], RowStream] = {}
    pairs: dict[tuple[str, str, str, str], CrossSums] = {}  # the reference's sums with itself serve every arm
    kept: dict[tuple[str, int, str], list[Tensor]] = {}  # rows of the subsets
    for arm, layer, name in wanted:
        transform, subset = metrics[name].transform, metrics[name].subset
        for a, b in ends(reference, arm):
            if subset:
                kept.setdefault((layer, subset, b), [])
            else:
                pairs.setdefault((layer, transform, a, b), CrossSums())
                streams.setdefault((layer, transform, b), RowStream(transform))
    first = 0
    for outputs in batches:
        for (layer, subset, arm), parts in kept.items():
            rows_BD = outputs[arm, layer]
            inside_B = subsets[subset][first : first + len(rows_BD)] if subsets else slice(None)
            parts.append(rows_BD[inside_B])
        first += len(next(iter(outputs.values())))
        rows = {key: stream.rows(outputs[key[2], key[0]]) for key, stream in streams.items()}
        for (layer, transform, a, b), sums in pairs.items():
            sums.update(rows[layer, transform, a], rows[layer, transform, b])
    moments = {key: over_ranks(sums).moments() for key, sums in pairs.items()}
    subset_rows = {key: rows_over_ranks(torch.cat(parts)) for key, parts in kept.items()}
    values = {}
    for score in wanted:
        metric = metrics[score.metric]
        if metric.subset:
            seen = [subset_rows[score.layer, metric.subset, arm] for arm in (reference, score.arm)]
            values[score] = metric.value(*seen)
        else:
            three = [moments[score.layer, metric.transform, a, b] for a, b in ends(reference, score.arm)]
            values[score] = metric.value(*three)
    return values


def over_ranks(sums: CrossSums) -> CrossSums:
    """The sums over the images of all ranks, added in the order of ranks: every rank gets the same bits."""
    if data_size() == 1:
        return sums
    assert sums.pilots is not None
    own = (*sums.pilots, sums.total())
    whole = CrossSums()
    for one, other, total_XY in zip(*(gather_images(part[None, None])[0] for part in own), strict=True):
        whole.merge(CrossSums.of((one, other), total_XY))
    return whole


def rows_over_ranks(own_nD: Tensor) -> Tensor:
    """The rows of all ranks in their order; a rank may have any number of them."""
    counts = gather_json(len(own_nD))
    padded_nD = torch.nn.functional.pad(own_nD, (0, 0, 0, max(counts) - len(own_nD)))
    parts = gather_images(padded_nD[None])[0].split(max(counts))
    return torch.cat([part_nD[:count] for part_nD, count in zip(parts, counts, strict=True)])


def ends(reference: str, arm: str) -> tuple[tuple[str, str], ...]:
    """The three pairs whose sums a metric takes: xx, yy, xy."""
    return (reference, reference), (arm, arm), (reference, arm)


def on_all_ranks(options: Namespace) -> None:
    """`alignment` in the processes that torchrun started, or in this one alone; one process says what went wrong."""
    meeting = meet()
    if meeting.world_size == 1:
        set_determinism(True, None)
        return alignment(options, ProcessGroup(0, 1, choose_device(options.device)))
    with contextlib.ExitStack() as opened, Alarm("alignment.py", meeting) as alarm:
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
    try:
        metrics = {metric.name: metric for metric in find_metrics(options.metrics)}
    except ValueError as error:
        raise ValueError(f"--metrics: {error}") from None
    if not group.is_first:
        barrier()
    chosen = select(options)  # rank 0 first: it makes the output folder, and image sets may fill a cache
    settings = from_resolved(chosen.description["settings"], "run.json")
    splits: dict[str, Split] = {}
    ranks = f" of {group.world_size} processes" if group.world_size > 1 else ""
    for split in dict.fromkeys(options.split):
        images = load_images(settings, split, chosen.description["image_set"])
        chosen_N = choose_images(len(images), options.samples, settings.seed, split)
        if len(chosen_N) < group.world_size:
            raise ValueError(
                f"--samples: {len(chosen_N)} images of '{split}' for {group.world_size} processes; too few"
            )
        table = TidyCsv(chosen.output / f"{split}_alignment.csv", COLUMNS, KEY) if group.is_first else None
        splits[split] = Split(images, chosen_N, table)
        print(f"{split}: {len(chosen_N)} of {len(images)} images, on {group.device}{ranks}")
    if group.is_first:
        barrier()
    embedder = Embedder(settings, chosen.store, group.device)
    sizes = {metric.subset for metric in metrics.values() if metric.subset}
    everything = [Score(a, layer, m) for a in chosen.arms for layer in dict.fromkeys(options.layer) for m in metrics]
    for epoch in chosen.epochs:
        for split, (images, chosen_N, table) in splits.items():
            where = epoch, split, chosen.reference
            samples = {m.name: min(len(chosen_N), m.subset or len(chosen_N)) for m in metrics.values()}
            there = [table.has(*where, *score, samples[score.metric]) for score in everything] if table else None
            there = gather_json(there)[0]
            missing = [score for score, done in zip(everything, there, strict=True) if not done]
            arms = dict.fromkeys([chosen.reference, *(score.arm for score in missing)] if missing else [])
            good = embedder.readable(arms, epoch, options.skip_bad)
            missing = [score for score in missing if score.arm in good and chosen.reference in good]
            if missing:
                own_N = chosen_N.tensor_split(group.world_size)[group.rank]
                batches = embedder.outputs(images, own_N, good, epoch)
                subsets = {
                    size: torch.isin(own_N, choose_images(len(images), min(size, len(chosen_N)), settings.seed, split))
                    for size in sizes
                }
                values = scores(batches, chosen.reference, missing, metrics, subsets)
                for score, value in values.items():
                    if isinstance(value, Undefined):
                        print(f"epoch {epoch}, {split}, {' '.join(score)}: no value: {value.reason}")
                if table:
                    table.append((*where, *score, value, samples[score.metric]) for score, value in values.items())
    for _, _, table in splits.values():
        if table:
            print(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. Raises ValueError for CUDA without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: got 'cuda', but torch sees no CUDA device; allowed here: cpu, auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = parser("alignment.py", "Alignment of the arms' representations.")
    options.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: both")
    options.add_argument("--layer", nargs="+", choices=tuple(OUTPUTS), default=list(OUTPUTS), help="default: both")
    exact = [metric.name for metric in find_metrics(metric_names()) if not metric.subset]
    options.add_argument(
        "--metrics",
        nargs="+",
        default=exact,
        help=f"of {', '.join(metric_names())}; default: those exact in one pass, {' '.join(exact)}",
    )
    options.add_argument("--samples", type=positive, metavar="N", help="at most N images a split, always the same ones")
    options.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one"
    )
    return run_program(on_all_ranks, options, arguments)


if __name__ == "__main__":
    sys.exit(main())
