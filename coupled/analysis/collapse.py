"""Has an arm's representation collapsed? At every snapshot: spread, effective rank, alignment, uniformity, spectra.

python analysis/collapse.py [--run-dir DIR] [--arms cl byol ...] [--split train test] [--num-images N]
       [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]

Writes collapse.csv, one value a row; what the metrics are stands in collapse_measures.py. Layer h is the embedding and
z the projection, of clean images in evaluation mode; `alignment` is that of two augmented views, the same for every arm
and epoch. Layer `predictor`, for arms that have one, is about its inputs (the projections of the views before they are
normalised) and, if it is one matrix, about that. `component` numbers eigenvalues and directions from the largest, and
`variant` names the convention of the others. `collapsed` says of a layer at an epoch whether it is a point, a line or
neither ("no"), and a line is printed where it is one; epoch 0, an untrained network, is not printed. The digests of
what a row comes from stand in its last columns, and of rows that differ in those alone the last one counts.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from coupled.analysis import parsers
from coupled.analysis.alignment import choose_device
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.representations.collapse_measures import (
    Values,
    alignment,
    of_predictor,
    of_rows,
    verdict,
    with_reasons,
)
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_selected
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.run import DIGITS, select
from coupled.analysis.tidy_csv import open_table
from coupled.config.schema import from_resolved
from coupled.datasets import AnyImageSet
from coupled.models.network import Network
from coupled.monitoring.terminal import say
from coupled.stream.seeds import set_determinism

LAST = (
    "z",
    "spread",
    "unit_norm",
    "",
)  # the row of an arm, epoch and split that is written last: with it all are there


def collapse(options: Namespace) -> None:
    """Write the rows that collapse.csv does not have yet, arm by arm and epoch by epoch."""
    device = choose_device(options.device)
    selected = select(options)
    store, arms, epochs, output = selected.store, selected.arms, selected.epochs, selected.output
    settings = from_resolved(selected.description["settings"], "run.json")
    splits = dict.fromkeys(options.split)
    images = {split: load_selected(settings, split, selected, options) for split in splits}
    chosen = {split: choose_images(len(images[split]), options.samples, settings.seed, split) for split in splits}
    table = open_table(output / "collapse.csv")
    set_determinism(True, None)
    embedder = Embedder(settings, store, device)
    digests = {(entry.arm, entry.epoch): entry.digest[:DIGITS] for entry in store.entries()}
    for epoch, arm in tracked(product(epochs, arms), "snapshots"):
        for split in splits:
            where = (epoch, split, arm)
            source = (len(chosen[split]), digests[arm, epoch], images[split].digest()[:DIGITS])
            if table.has(*where, *LAST, *source) or not embedder.readable([arm], epoch, options.skip_bad):
                continue
            measured = measure(embedder, images[split], chosen[split], arm, epoch)
            table.append(rows(measured, where, source))
    say(f"{table.path}: {table.written} new rows, {len(table.held)} in all")


def rows(
    measured: Mapping[str, Values], where: tuple[int, str, str], source: tuple[object, ...]
) -> Iterator[tuple[object, ...]]:
    """The rows of an arm, the one of `LAST` last; says what has collapsed and what has no value."""
    epoch, split, arm = where
    last = None
    for layer, values in measured.items():
        collapsed, shown = verdict(values) if layer in OUTPUTS else ("", "")
        if shown and epoch > 0:
            say(f"arm {arm} is collapsed at epoch {epoch}: {layer} of {split} is a {collapsed} ({shown})")
        for metric, detail, reason in with_reasons(values):
            say(f"{epoch} {split} {arm} {layer} {metric} {detail}: no value: {reason}")
        for (metric, detail), value in values.items():
            variant, component = (detail, "") if isinstance(detail, str) else ("", detail)
            row = (*where, layer, metric, variant, component, value, collapsed, *source)
            if (layer, metric, variant, component) == LAST:
                last = row
            else:
                yield row
    assert last is not None
    yield last


@torch.no_grad()
def measure(embedder: Embedder, images: AnyImageSet, chosen_n: Tensor, arm: str, epoch: int) -> dict[str, Values]:
    """All values of an arm by layer."""
    clean = clean_features(embedder, images, chosen_n, arm, epoch)
    views = view_features(embedder, images, chosen_n, arm, epoch)
    found = {layer: of_rows(clean[layer].rows_ND) | alignment(views[layer]) for layer in OUTPUTS}
    tensors = embedder.store.read(arm, epoch)
    if any(name.startswith("predictor.") for name in tensors):
        inputs_MP = before_normalising(embedder.network(arm, epoch), views["h"].flatten(0, 1))
        found["predictor"] = of_predictor(inputs_MP, tensors.get("predictor.weight"))
    return found


def before_normalising(network: Network, embeddings_MD: Tensor) -> Tensor:
    """The projections [M, P] of embeddings as the projector gives them, on the CPU."""
    device = next(network.parameters()).device
    projections_MP: Tensor = network.projector(embeddings_MD.to(device))
    return projections_MP.cpu()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(collapse, parsers.collapse(), arguments)
