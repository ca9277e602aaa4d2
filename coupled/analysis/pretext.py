"""Measure what h and z know of a transformation of the image: the reason why h is used and not z.

Each clean image gets one of K transformations, and logistic regression on the representation predicts which one it was:
fitted on transformed images of train, scored on those of test. Objectives that make views alike remove this information
from z more than from h (SimCLR, arXiv 2002.05709, section 4.2 and table 3, which has multi-layer perceptrons in place
of logistic regression, and networks trained with these transformations).

Tasks: `rotation` by 0, 90, 180 or 270 degrees; `colour`: the image or its grey version; `channels`: which of the six
orders of the colour channels; `corruption`: none, Gaussian noise, Gaussian blur, or the Sobel gradient. Labels of the
dataset are not used.

Writes pretext.csv, one accuracy per row, with `chance`, the accuracy of guessing. An undefined score is an empty cell,
and the program prints the reason. Digests as in the tables of quality.py.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import product

import pandas as pd

from coupled.analysis import probe_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, to_frame, tracked
from coupled.analysis.representations.embeddings import Embedder, choose_device, load_sample
from coupled.analysis.representations.layers import OUTPUTS, present
from coupled.analysis.representations.pretext_tasks import TASKS, pretext_features
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, choices, select_arms
from coupled.datasets import SPLITS
from coupled.metrics.arm import Labelled
from coupled.metrics.arm.linear_probe import values as probe_values
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say

TABLE = "pretext.csv"


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    tasks: Sequence[str] | str = tuple(TASKS),
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return how well a linear classifier on h and z predicts which transformation an image had.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        layers: "h" (embedding), "z" (projection) or both.
        tasks: "rotation", "colour", "channels", "corruption", or several (default: all).
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of pretext.csv with their columns (see `schemas.SCHEMAS`): one accuracy per row, NaN where it is
        undefined.

    Raises:
        ValueError: for an unknown arm, epoch, layer or task, a damaged snapshot, or images that are not those of the
            run.

    Example:
        >>> found = compute(run, arms="cl", epochs=0, tasks="rotation", num_images=60)
        >>> found[["arm", "module", "task", "chance"]].values.tolist()
        [['cl', 'h', 'rotation', 0.25], ['cl', 'z', 'rotation', 0.25]]
    """
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    return to_frame(plan(run, chosen, layers, tasks, num_images, device, skip_corrupt, accept_changed_images))


def plan(
    run: Run,
    chosen: Selection,
    layers: Sequence[str] | str,
    tasks: Sequence[str] | str,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the tasks of the chosen arms and epochs. Arguments as in `compute`."""
    wanted = choices("tasks", tasks, TASKS)
    embedder = Embedder(run, choose_device(device))
    outputs = present(choices("layers", layers, OUTPUTS), embedder.outputs_there)

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        train, test = (samples[name] for name in ("train", "test"))
        digests, told = run.snapshot_digests(), set[tuple[str, str]]()
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "snapshots"):
            about = (len(test.chosen_N), len(train.chosen_N), digests[arm, epoch], test.digest, train.digest)
            keys = [(epoch, arm, layer, task) for task in wanted for layer in outputs]
            missing = [key for key in keys if not has(TABLE, *key, *about)]
            if not missing or not embedder.readable([arm], epoch, skip_corrupt):
                continue
            for task in dict.fromkeys(task for *_, task in missing):
                found = {
                    name: pretext_features(embedder, sample, name, task, arm, epoch, outputs)
                    for name, sample in samples.items()
                }
                coloured = all(has_colour for _, has_colour in found.values())
                for key in (key for key in missing if key[-1] == task):
                    rows = {name: of_layer[key[2]] for name, (of_layer, _) in found.items()}
                    value = accuracy(rows["train"], rows["test"], task, coloured, run.settings.seed)
                    if isinstance(value, Undefined) and (task, value.reason) not in told:
                        told.add((task, value.reason))
                        say(f"{task}: no value: {value.reason} (first for epoch {epoch}, {arm} {key[2]}; said once)")
                    yield Chunk(TABLE, [(*key, 1 / len(TASKS[task].classes), value, *about)])

    return Plan([TABLE], chunks)


def accuracy(train: Labelled, test: Labelled, task: str, coloured: bool, seed: int) -> float:
    """Return the accuracy of logistic regression on transformed images, by the protocol of `linear_probe`."""
    if TASKS[task].needs_colour and not coloured:
        return Undefined("all images are grey")
    return probe_values(train, test, seed, ("regularised",))["regularised"].value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), probe_parsers.pretext(), arguments)
