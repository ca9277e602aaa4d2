"""Measure the reliability curve of each arm's classifier and of a linear probe, at every snapshot.

Writes reliability.csv, one bin of confidence per row: the number of images, their mean confidence (the probability of
the predicted class) and their accuracy. The classifier of an arm has the module `logits` and is measured on both
splits. The probe on h or z is the `regularised` one of quality.csv, fitted on train and measured on test. The expected
calibration error of a curve is the metric `ece`, or `probe_calibration`, of quality.csv: the sum over the bins of
count * |accuracy - confidence|, divided by the number of images. The bins of an undefined curve have empty cells, and
the program prints the reason. Digests as in the tables of quality.py.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import product
from math import nan

import pandas as pd

from coupled.analysis import classifier_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame, tracked
from coupled.analysis.quality import Samples
from coupled.analysis.representations.embeddings import Embedder, choose_device, load_sample
from coupled.analysis.representations.features import clean_features
from coupled.analysis.representations.layers import OUTPUTS, present
from coupled.analysis.representations.quality_tasks import LOGITS, Classifier, classifier_of
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, check_labelled, choices, select_arms
from coupled.datasets import SPLITS
from coupled.metrics.arm._logits import BINS, Reliability, reliability
from coupled.metrics.arm.probe_calibration import predictions
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say

TABLE = "reliability.csv"
OWN, PROBE = "classifier", "linear_probe"  # the column `variant`


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    layers: Sequence[str] | str = ("h",),
    bins: int = BINS,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return the reliability curve of each arm's classifier, if it has one, and of a linear probe.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both; the probe is fitted on train and measured on test.
        layers: inputs of the probe: "h" (embedding), "z" (projection) or both.
        bins: number of bins of equal width.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of reliability.csv with its columns (see `schemas.SCHEMAS`): one bin per row.

    Raises:
        ValueError: for an unknown arm, epoch, split or layer, fewer than one bin, a damaged snapshot, or images that
            are not those of the run.

    Example:
        >>> found = compute(run, arms="cl", split="test", epochs=0, num_images=64, bins=5)
        >>> found["bin"].tolist(), int(found["count"].sum())
        ([1, 2, 3, 4, 5], 64)
    """
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    return to_frame(plan(run, chosen, split, layers, bins, num_images, device, skip_corrupt, accept_changed_images))


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    layers: Sequence[str] | str,
    bins: int,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the curves of the chosen arms and epochs. Arguments as in `compute`."""
    check_labelled(run, "calibration")
    check_at_least(bins, 1, "bins")
    splits, embedder = choices("split", split, SPLITS), Embedder(run, choose_device(device))
    inputs = present(choices("layers", layers, OUTPUTS), embedder.outputs_there) if "test" in splits else []
    classifiers = {arm: classifier_of(run, arm) for arm in chosen.arms}
    if not inputs and not any(classifiers.values()):
        raise ValueError(
            f"split: got train, where only an arm's own classifier is measured, and none of {', '.join(chosen.arms)}"
            " has one; allowed for them is test"
        )

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        digests = run.snapshot_digests()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            own = [(name, LOGITS, OWN) for name in splits if classifiers[arm]]
            for each in [*own, *(("test", layer, PROBE) for layer in inputs)]:
                end = key_end(samples, each, digests[arm, epoch])
                start = (epoch, each[0], arm, *each[1:], bins)
                if has(TABLE, *start, bins, *end) or not embedder.readable([arm], epoch, skip_corrupt):
                    continue
                curve = measure(embedder, samples, each, arm, epoch, classifiers[arm], bins)
                if isinstance(curve, Undefined):
                    say(f"epoch {epoch}, {each[0]}, {arm} {each[1]} {each[2]}: no curve: {curve.reason}")
                yield Chunk(TABLE, [(*start, k, *values, *end) for k, *values in curve_rows(curve, bins)])

    return Plan([TABLE], chunks)


def key_end(samples: Samples, measured: tuple[str, str, str], snapshot: str) -> tuple[object, ...]:
    """Return the last key cells of a curve of a split, a module and a variant: numbers of images, and digests."""
    split, _, variant = measured
    images, train = samples[split], samples["train"]
    of_train = (len(train.chosen_N), train.digest) if variant == PROBE else ("", "")
    return (len(images.chosen_N), of_train[0], snapshot, images.digest, of_train[1])


def measure(
    embedder: Embedder,
    samples: Samples,
    measured: tuple[str, str, str],
    arm: str,
    epoch: int,
    classifier: Classifier | None,
    bins: int,
) -> Reliability | Undefined:
    """Return the curve of a split, a module and a variant."""
    split, module, variant = measured
    needed = ("train", "test") if variant == PROBE else (split,)
    rows = {s: clean_features(embedder, samples[s].images, samples[s].chosen_N, arm, epoch) for s in needed}
    if variant == PROBE:
        found = predictions(rows["train"][module], rows["test"][module], embedder.settings.seed)
        return found if isinstance(found, Undefined) else reliability(found.rows_ND.exp(), found.labels_N, bins)
    assert classifier is not None
    logits = classifier.logits(rows[split], embedder.run.state_dict(arm, epoch))
    return reliability(logits.rows_ND.double().softmax(1), logits.labels_N, bins)


def curve_rows(curve: Reliability | Undefined, bins: int) -> Iterator[tuple[int, float, float, float]]:
    """Yield index, count, confidence and accuracy of each bin.

    The last two are NaN for a bin without images, and all three if the curve is undefined.
    """
    if isinstance(curve, Undefined):
        yield from ((k, nan, nan, nan) for k in range(1, bins + 1))
        return
    for k, (count, *shares) in enumerate(zip(*(each.tolist() for each in curve), strict=True), 1):
        yield (k, count, *((shares[0], shares[1]) if count else (nan, nan)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), classifier_parsers.calibration(), arguments)
