"""Train a linear classifier on the frozen representation of each arm, by an optimizer on augmented views.

This is stage 2 of SupCon (arXiv 2004.11362). `quality --metrics linear_probe` fits logistic regression on clean images
instead. All classifiers see the same views in the same order; representations/linear_classifiers.py trains them.

Writes linear_evaluation.csv, one value per row: top1, top5, nll and ece of the logits of clean images after the last
epoch of the classifier. Published accuracies are often the best over these epochs on the test images; these are not.
`lr` is the learning rate before its schedule and scaling, `protocol` everything else that was chosen; of `augmentation`
it names what differs from the run's. An undefined value is an empty cell, and the program prints the reason. Digests as
in the tables of quality.py.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from torch import nn

from coupled.analysis import probe_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame
from coupled.analysis.representations.embeddings import Embedder, choose_device, load_sample
from coupled.analysis.representations.features import clean_features
from coupled.analysis.representations.layers import OUTPUTS, present
from coupled.analysis.representations.linear_classifiers import Trained, protocol_of, train_classifiers
from coupled.analysis.representations.quality_tasks import print_undefined_reasons
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, check_labelled, choices, listed, named, select_arms
from coupled.config.metric_registry import ArmMetric, find_arm_metrics
from coupled.config.safe_yaml import parse_yaml
from coupled.datasets import SPLITS
from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.undefined import Undefined

TABLE = "linear_evaluation.csv"
METRICS = ("top1", "top5", "nll", "ece")
Changed = Mapping[str, Any] | Sequence[str] | None  # keys with their values, or texts "key=value"


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = probe_parsers.SCORED,
    layers: Sequence[str] | str = probe_parsers.LAYERS,
    lr: Sequence[float] | float = probe_parsers.RATES,
    train_epochs: int = probe_parsers.TRAIN_EPOCHS,
    batch_size: int = probe_parsers.BATCH_SIZE,
    optimizer: Changed = None,
    augmentation: Changed = None,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return the accuracy of linear classifiers that are trained on augmented views of frozen networks.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: the last that these arms have).
        split: "train", "test" or both: the clean images that are scored.
        layers: "h" (embedding), "z" (projection) or both.
        lr: learning rates; one classifier is trained for each.
        train_epochs: number of epochs of the classifiers.
        batch_size: images per step of the classifiers.
        optimizer: changed keys of the settings' section `optimizer`, such as {"name": "rmsprop"}.
        augmentation: changed keys of the run's section `augmentation`, such as {"crop_scale": [0.2, 1.0]}.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of linear_evaluation.csv with their columns (see `schemas.SCHEMAS`): one value per row, NaN where it is
        undefined.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or key, a batch that is larger than the number of images, a
            damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = compute(run, epochs=1, lr=0.1, train_epochs=1, batch_size=256, num_images=256)
        >>> found[["arm", "module", "metric"]].values.tolist()[:2]
        [['cl', 'h', 'top1'], ['cl', 'h', 'top5']]
    """
    chosen = select(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    training = (lr, train_epochs, batch_size, optimizer, augmentation)
    return to_frame(
        plan(run, chosen, split, layers, *training, num_images, device, skip_corrupt, accept_changed_images)
    )


def select(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    skip_corrupt: bool = False,
) -> Selection:
    """Select arms (default: all) and epochs (default: the last that these arms have). Raises ValueError."""
    names = named(run.snapshots, None if arms is None else listed(arms))
    last = run.epochs(names)[-1:] or None
    return select_arms(run, arms=names, epochs=last if epochs is None else epochs, skip_corrupt=skip_corrupt)


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    layers: Sequence[str] | str,
    lr: Sequence[float] | float,
    train_epochs: int,
    batch_size: int,
    optimizer: Changed,
    augmentation: Changed,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the classifiers of the chosen arms and epochs. Arguments as in `compute`."""
    check_labelled(run, "linear evaluation")
    splits, rates = choices("split", split, SPLITS), [lr] if isinstance(lr, int | float) else list(dict.fromkeys(lr))
    changed = keys_of("optimizer", optimizer), keys_of("augmentation", augmentation)
    protocol = protocol_of(run.settings, *changed, train_epochs, batch_size)
    embedder = Embedder(run, choose_device(device))
    outputs = present(choices("layers", layers, OUTPUTS), embedder.outputs_there)
    metrics = find_arm_metrics(METRICS)

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        train = samples["train"]
        if batch_size > len(train.chosen_N):
            raise ValueError(
                f"batch_size: got {batch_size}; the classifiers are trained on {len(train.chosen_N)} images"
            )
        digests = run.snapshot_digests()
        for epoch in chosen.epochs:

            def row(each: Trained, name: str, metric: str, *value: object, epoch: int = epoch) -> tuple[object, ...]:
                start = (epoch, name, each.arm, each.layer, protocol.optimizer.name, float(each.lr), protocol.text)
                images = samples[name]
                counts = (len(images.chosen_N), len(train.chosen_N))
                return (*start, metric, *value, *counts, digests[each.arm, epoch], images.digest, train.digest)

            wanted = [Trained(arm, layer, each) for arm in chosen.arms for layer in outputs for each in rates]
            wanted = [w for w in wanted if not all(has(TABLE, *row(w, s, m.name)) for s in splits for m in metrics)]
            arms = embedder.readable(dict.fromkeys(each.arm for each in wanted), epoch, skip_corrupt)
            wanted = [each for each in wanted if each.arm in arms]
            if not wanted:
                continue
            networks = {arm: embedder.network(arm, epoch) for arm in arms}
            classifiers = train_classifiers(networks, train, wanted, protocol, run.settings)
            for arm in arms:
                clean = {s: clean_features(embedder, *samples[s][:2], arm, epoch) for s in splits}
                for each in (each for each in wanted if each.arm == arm):
                    for name in splits:
                        where = f"epoch {epoch}, {name}, {arm} {each.layer} lr {each.lr:g}"
                        values = scores(classifiers[each], clean[name][each.layer], metrics, where)
                        yield Chunk(TABLE, [row(each, name, metric, value) for metric, value in values.items()])

    return Plan([TABLE], chunks)


def scores(classifier: nn.Linear, images: Labelled, metrics: Sequence[ArmMetric], where: str) -> dict[str, float]:
    """Return the values of a trained classifier by metric; an undefined one is printed with its reason."""
    weight_CD, bias_C = classifier.weight.detach().cpu(), classifier.bias.detach().cpu()
    finite = bool(weight_CD.isfinite().all() and bias_C.isfinite().all())
    logits = Labelled(nn.functional.linear(images.rows_ND, weight_CD, bias_C), images.labels_N) if finite else None
    found = {}
    for metric in metrics:
        diverged: dict[Variant, Measured] = dict.fromkeys(
            metric.variants, Measured(Undefined("the classifier diverged: its weights are not finite; reduce --lr"))
        )
        values = diverged if logits is None else metric.measured(logits)
        print_undefined_reasons(f"{where}, {metric.name}", values)
        (measured,) = values.values()
        found[metric.name] = measured.value
    return found


def keys_of(option: str, changed: Changed) -> dict[str, Any]:
    """Return the changed keys of a section, from a mapping or from texts "key=value". Raises ValueError."""
    if isinstance(changed, Mapping):
        return dict(changed)
    found: dict[str, Any] = {}
    for each in changed or ():
        key, equals, text = each.partition("=")
        if not equals or not key or key in found:
            reason = "the key is given twice" if key in found else "write KEY=VALUE, such as weight_decay=1e-4"
            raise ValueError(f"{option}: got '{each}'; {reason}")
        found[key] = parse_yaml(text, f"--{option} {each}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select, plan), probe_parsers.linear_evaluation(), arguments)
