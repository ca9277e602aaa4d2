"""Dimensional-collapse diagnostics at every snapshot: spread, effective rank, RankMe, LiDAR, alignment,
uniformity, spectra.

Writes collapse.csv, one value per row; collapse_measures.py explains the metrics. Layer h is the embedding and z the
projection, of clean images in evaluation mode. `alignment` and `lidar` are computed on augmented views, which are the
same for every arm and epoch. `l_c`, `l_nc` and the norms are those of arXiv 2206.02574 (see duality_measures.py); for z
they describe the projections before normalisation. Layer `predictor`, for arms that have one, describes the predictor's
inputs (the projections of the views before normalisation) and, if the predictor is one matrix, the matrix. `component`
numbers eigenvalues and directions from the largest; `variant` names the convention of the other metrics. `collapsed` is
"point", "line" or "no" for a layer at an epoch. A collapse is also printed, except at epoch 0, where the network is
untrained. The last columns are the digests of snapshot and images; of rows that differ only in digests, the last one is
valid.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from coupled.analysis import parsers
from coupled.analysis.driver import (
    Chunk,
    Plan,
    RowExists,
    append_missing,
    run_program,
    to_frame,
    tracked,
)
from coupled.analysis.representations.collapse_measures import (
    Values,
    alignment,
    lidar,
    of_predictor,
    of_rows,
    verdict,
    with_reasons,
)
from coupled.analysis.representations.duality_measures import duality
from coupled.analysis.representations.embeddings import Embedder, Sample, check_projector, choose_device, load_sample
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, choices, select_arms
from coupled.datasets import SPLITS
from coupled.models.network import Network
from coupled.monitoring.terminal import say

TABLE = "collapse.csv"
LAST = ("z", "spread", "unit_norm", "")  # the row of an arm, epoch and split that is written last
NEWEST = ("z", "dimension_norm_std", "unnormalised", "")  # a row that tables of earlier versions lack


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return spread, effective rank, alignment, uniformity and spectra of each arm's representation.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of collapse.csv with its columns (see `schemas.SCHEMAS`): one value per row, NaN where it is undefined.

    Raises:
        ValueError: for an unknown arm, epoch or split, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = compute(run, arms="cl", split="test", epochs=0, num_images=64)
        >>> sorted(set(found["module"]))
        ['h', 'z']
    """
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    return to_frame(plan(run, chosen, split, num_images, device, skip_corrupt, accept_changed_images))


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the values of the chosen arms and epochs; arguments as in `compute`."""
    check_projector(run)
    splits, embedder = choices("split", split, SPLITS), Embedder(run, choose_device(device))

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in splits}
        digests = run.snapshot_digests()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            for name, sample in samples.items():
                where = (epoch, name, arm)
                source = (len(sample.chosen_N), digests[arm, epoch], sample.digest)
                there = all(has(TABLE, *where, *row, *source) for row in (LAST, NEWEST))
                if not there and embedder.readable([arm], epoch, skip_corrupt):
                    yield Chunk(TABLE, rows(measure(embedder, sample, arm, epoch), where, source))

    return Plan([TABLE], chunks)


def rows(
    measured: Mapping[str, Values], where: tuple[int, str, str], source: tuple[object, ...]
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of an arm, the row `LAST` at the end; print what has collapsed and what is undefined."""
    epoch, split, arm = where
    last = None
    for layer, values in measured.items():
        collapsed, shown = verdict(values) if layer in OUTPUTS else ("", "")
        if shown and epoch > 0:
            say(f"arm {arm} has collapsed at epoch {epoch}: {layer} of {split} is a {collapsed} ({shown})")
        for metric, detail, reason in with_reasons(values):
            say(f"epoch {epoch}, {split}, {arm} {layer} {metric} {detail}: no value: {reason}")
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
def measure(embedder: Embedder, sample: Sample, arm: str, epoch: int) -> dict[str, Values]:
    """Return all values of an arm by layer."""
    clean = clean_features(embedder, sample.images, sample.chosen_N, arm, epoch)
    views = view_features(embedder, sample.images, sample.chosen_N, arm, epoch)
    found = {layer: of_rows(clean[layer].rows_ND) | alignment(views[layer]) | lidar(views[layer]) for layer in OUTPUTS}
    embeddings_ND = clean["h"].rows_ND
    found["h"] |= duality(embeddings_ND)
    found["z"] |= duality(before_normalising(embedder.network(arm, epoch), embeddings_ND))
    tensors = embedder.run.state_dict(arm, epoch)
    if any(name.startswith("predictor.") for name in tensors):
        inputs_MP = before_normalising(embedder.network(arm, epoch), views["h"].flatten(0, 1))
        found["predictor"] = of_predictor(inputs_MP, tensors.get("predictor.weight"))
    return found


def before_normalising(network: Network, embeddings_MD: Tensor) -> Tensor:
    """Return the projections [M, P] of embeddings before normalisation, on the CPU."""
    device = next(network.parameters()).device
    projections_MP: Tensor = network.projector(embeddings_MD.to(device))
    return projections_MP.cpu()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), parsers.collapse(), arguments)
