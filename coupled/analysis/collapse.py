"""Has an arm's representation collapsed? At every snapshot: spread, effective rank, alignment, uniformity, spectra.

Writes collapse.csv, one value a row; the metrics are explained in collapse_measures.py. Layer h is the embedding and
z the projection, of clean images in evaluation mode; `alignment` is that of the augmented views, the same for every arm
and epoch. Layer `predictor`, for arms that have one, is about its inputs (the projections of the views before they are
normalised) and, if it is one matrix, about that. `component` numbers eigenvalues and directions from the largest, and
`variant` names the convention of the others. `collapsed` says of a layer at an epoch whether it is a point, a line or
neither ("no"), and a line is printed where it is one; epoch 0, an untrained network, is not printed. The digests of
what a row comes from are its last columns, and of rows that differ in those alone the last one counts.
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
    of_predictor,
    of_rows,
    verdict,
    with_reasons,
)
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
    """Spread, effective rank, alignment, uniformity and spectra of each arm's representation.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        num_images: at most so many images a split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: pass over missing and damaged snapshots, saying which.
        accept_changed_images: measure the images as they are, though they are not those of the run.

    Returns:
        The rows of collapse.csv with its columns (see `schemas.SCHEMAS`): one value a row, NaN where there is none.

    Raises:
        ValueError: for an arm, epoch or split that there is not, a damaged snapshot, or images that are not the run's.

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
    """What is to be computed of the chosen arms and epochs; arguments as of `compute`."""
    check_projector(run)
    splits, embedder = choices("split", split, SPLITS), Embedder(run, choose_device(device))

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in splits}
        digests = run.snapshot_digests()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            for name, sample in samples.items():
                where = (epoch, name, arm)
                source = (len(sample.chosen_N), digests[arm, epoch], sample.digest)
                if not has(TABLE, *where, *LAST, *source) and embedder.readable([arm], epoch, skip_corrupt):
                    yield Chunk(TABLE, rows(measure(embedder, sample, arm, epoch), where, source))

    return Plan([TABLE], chunks)


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
def measure(embedder: Embedder, sample: Sample, arm: str, epoch: int) -> dict[str, Values]:
    """All values of an arm by layer."""
    clean = clean_features(embedder, sample.images, sample.chosen_N, arm, epoch)
    views = view_features(embedder, sample.images, sample.chosen_N, arm, epoch)
    found = {layer: of_rows(clean[layer].rows_ND) | alignment(views[layer]) for layer in OUTPUTS}
    tensors = embedder.run.state_dict(arm, epoch)
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
    return run_program(partial(append_missing, select_arms, plan), parsers.collapse(), arguments)
