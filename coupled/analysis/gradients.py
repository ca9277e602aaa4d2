"""Measure the size of the gradient with respect to the projections against the hardness of pairs, at every snapshot.

Writes gradients.csv: for every contrastive loss at the temperature of the run, the mean size of the gradient and its
standard deviation in bins of the cosine similarity of two views. theory/gradient_sizes.py explains the sizes.
* `gradient` is pair: the contribution of each pair of views to the gradient of its anchor. A positive is hard if its
  cosine is low, a negative if its cosine is high.
* `gradient` is anchor: the whole gradient of each anchor, in bins of the cosine with its hardest pair of the
  `relation`: the least similar view of its image or of its class, or the most similar view of another class.
`relation` says which images a pair has. Views of one image are positives of every loss. Other images of the class are
positives of `supcon`, negatives of `nt_xent` and `dcl`, and not used by `nscl`. Other classes are negatives of all.

Every loss is evaluated for every arm, whatever its objective. The views and batches are those of losses.py: augmented
views for an epoch that is never trained on, networks in evaluation mode, everything after the projections in float64.
The last columns are digests as in losses.csv.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial

import pandas as pd

from coupled.analysis import output_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame, tracked
from coupled.analysis.losses import Batches, batches_of, projections_of
from coupled.analysis.representations.embeddings import Embedder, check_projector, choose_device, load_sample
from coupled.analysis.representations.features import UNTRAINED_EPOCH
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, check_labelled, choices, select_arms
from coupled.analysis.theory.gradient_sizes import BINS, KINDS, RELATIONS, GradientSums, edge
from coupled.analysis.theory.loss_sums import LOSSES
from coupled.datasets import SPLITS
from coupled.objectives import Inputs
from coupled.stream.batches import batches

TABLE = "gradients.csv"
LAST = (KINDS[-1], RELATIONS[-1], edge(BINS - 1), edge(BINS))  # the key of the row that is written last


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
    """Return the size of the gradient with respect to the projections, by cosine similarity of the pairs.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        num_images: at most this many images per split, always the same ones (default: 2048).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of gradients.csv with their columns (see `schemas.SCHEMAS`), in nats: one row per bin, NaN for the mean
        of an empty bin.

    Raises:
        ValueError: for an unknown arm, epoch or split, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = compute(run, arms="cl", split="test", epochs=0, num_images=64)
        >>> sorted(set(found["relation"]))
        ['different_class', 'same_class', 'same_image']
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
    """Plan the rows of the chosen arms and epochs; arguments as in `compute`."""
    check_projector(run)
    check_labelled(run, "the hardness of pairs")
    splits, embedder = choices("split", split, SPLITS), Embedder(run, choose_device(device))
    most, temperature = num_images or output_parsers.GRADIENT_IMAGES, run.settings.temperature

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, most, accept_changed_images) for name in splits}
        seen = {name: batches_of(run.settings, sample) for name, sample in samples.items()}
        digests = run.snapshot_digests()
        last_loss = list(LOSSES)[-1]
        for epoch in tracked(chosen.epochs, "epochs"):
            for name, part in seen.items():
                source = {arm: part.source(digests[arm, epoch]) for arm in chosen.arms}
                missing = [
                    arm
                    for arm in chosen.arms
                    if not has(TABLE, epoch, name, arm, last_loss, temperature, *LAST, *source[arm])
                ]
                good = embedder.readable(missing, epoch, skip_corrupt)
                found = measure(embedder, part, good, temperature, epoch) if good else {}
                for arm, sums in found.items():
                    yield Chunk(TABLE, [(epoch, name, arm, *row, *source[arm]) for row in sums.rows()])

    return Plan([TABLE], chunks)


def measure(
    embedder: Embedder, seen: Batches, arms: Sequence[str], temperature: float, epoch: int
) -> dict[str, GradientSums]:
    """Return the sums over all batches by arm."""
    sums = {arm: GradientSums(temperature) for arm in arms}
    for batch in batches(
        seen.images,
        seen.order_KG,
        seen.plan,
        epoch=UNTRAINED_EPOCH,
        size=embedder.settings.image_size,
        device=embedder.device,
        workers=embedder.settings.dataset.num_workers,
    ):
        for arm in arms:
            projections = {"projection": projections_of(embedder.network(arm, epoch), batch.views_VB3SS)}
            sums[arm].update(Inputs(projections, projections, batch.labels_B, batch.labels_G))
    return sums


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), output_parsers.gradients(), arguments)
