"""MoCo with NSCL's negatives and SupCon with a memory, against loops and a library; the labels of their queue."""

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor

from coupled.arms.sanity_checks import depends_on_labels
from coupled.config.registry import find_objective
from coupled.models.heads import kept_of_one_width
from coupled.objectives import Inputs, moco, moco_nscl, moco_supcon
from coupled.objectives._queue import enqueued_with_labels

TAU = 0.3
LABELS = torch.tensor([0, 1, 0, 2])
IN_QUEUE = torch.tensor([1, -1, 0, 2, 1, -1, 0])


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def batch(views: int, in_queue: Tensor = IN_QUEUE) -> Inputs:
    outputs = {name: unit(views, 4, 5, seed=k) for k, name in enumerate(("projection", "target_projection"))}
    return Inputs(outputs, outputs, LABELS, LABELS, kept={"queue": unit(7, 5, seed=9), "queue_labels": in_queue})


def rows_of(inputs: Inputs) -> tuple[list[list[list[float]]], list[list[list[float]]], list[tuple[list[float], int]]]:
    """Queries and keys by view and image, and the rows of the queue with their labels, as lists."""
    queue = zip(inputs.kept["queue"].tolist(), inputs.kept["queue_labels"].tolist(), strict=True)
    return inputs.outputs["projection"].tolist(), inputs.outputs["target_projection"].tolist(), [*queue]


def score(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True)) / TAU


@pytest.mark.parametrize("views", [2, 3])
def test_moco_nscl_equals_the_double_loop_of_its_formula(views: int) -> None:
    """A negative of the anchor's class, or a row without class that is left out, would be another objective."""
    inputs, losses = batch(views), []
    queries, keys, queue = rows_of(inputs)
    for v, w in permutations(range(views), 2):
        for b, label in enumerate(LABELS.tolist()):
            positive = score(queries[v][b], keys[w][b])
            others = [score(queries[v][b], row) for row, of_row in queue if of_row != label]
            losses.append(math.log(sum(map(math.exp, [positive, *others]))) - positive)
    loss = moco_nscl.moco_nscl(inputs, temperature=TAU)
    assert loss.mean.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


@pytest.mark.parametrize("in_queue", [torch.arange(3, 10), torch.full((7,), -1)], ids=["other classes", "no class"])
def test_moco_nscl_is_moco_if_no_row_is_of_the_class_of_an_anchor(in_queue: Tensor) -> None:
    """The two objectives would then differ in more than the negatives. Bits, because arms are compared."""
    inputs = batch(2, in_queue)
    losses = [each(inputs, temperature=TAU) for each in (moco_nscl.moco_nscl, moco.moco)]
    assert torch.equal(losses[0].mean, losses[1].mean)
    assert losses[0].counted == losses[1].counted == 8


def test_an_anchor_whose_class_fills_the_queue_is_left_out() -> None:
    """It has no negatives: its loss is the constant 0 whatever the network does. Unknown labels are of no class."""
    inputs = batch(2, torch.zeros(7, dtype=torch.int64))
    anchors = moco_nscl.per_anchor(inputs, temperature=TAU)
    assert anchors.counted_A.tolist() == [False, True, False, True] * 2
    unknown = Inputs(
        inputs.outputs, inputs.gathered, torch.full((4,), -1), LABELS, kept=batch(2, -1 - 0 * IN_QUEUE).kept
    )
    assert moco_nscl.per_anchor(unknown, temperature=TAU).counted_A.all()


@pytest.mark.parametrize("views", [1, 2, 3])
def test_moco_supcon_equals_the_library_and_a_loop(views: int) -> None:
    """A key of the anchor itself among its positives, or a queue without positives, would be another objective."""
    inputs = batch(views)
    queries, keys, queue = rows_of(inputs)
    of_library, of_loop = SupConLoss(temperature=TAU), []
    losses = []
    for v in range(views):
        for b, label in enumerate(LABELS.tolist()):
            of_batch = [(keys[w][n], LABELS[n].item()) for w in range(views) for n in range(4) if (w, n) != (v, b)]
            rows, labels = zip(*of_batch, *queue, strict=True)
            scores = [score(queries[v][b], row) for row in rows]
            positives = [each for each, of_row in zip(scores, labels, strict=True) if of_row == label]
            of_loop.append(math.log(sum(map(math.exp, scores))) - sum(positives) / len(positives))
            losses.append(
                of_library(
                    torch.tensor(queries[v][b], dtype=torch.float64)[None],
                    torch.tensor([label]),
                    ref_emb=torch.tensor(rows, dtype=torch.float64),
                    ref_labels=torch.tensor(labels),
                ).item()
            )
    loss = moco_supcon.moco_supcon(inputs, temperature=TAU)
    assert loss.mean.item() == pytest.approx(sum(of_loop) / len(of_loop), abs=1e-12)
    assert loss.mean.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


def test_the_queue_keeps_the_label_of_each_row() -> None:
    """A label of another image would make a positive of a negative; the first rows have no class."""
    for size, images in ((7, 3), (8, 2), (3, 4)):
        kept = {"kept.queue": torch.zeros(size, 2), "kept.queue_labels": torch.full((size,), -1)}
        for step in range(1, 6):
            labels = torch.arange(images) + 10 * step
            keys = torch.stack([labels, torch.zeros(images)], 1).expand(2, -1, -1).float()  # the label is in the row
            kept = enqueued_with_labels(kept, {"target_projection": keys, "labels": labels}, step)
            filled = kept["kept.queue_labels"] >= 0
            assert filled.sum() == min(size, 2 * images * step)
            assert torch.equal(kept["kept.queue"][filled, 0].long(), kept["kept.queue_labels"][filled])


@pytest.mark.parametrize("name", ["moco_nscl", "moco_supcon"])
def test_labels_in_a_queue_count_as_labels(name: str) -> None:
    """At the start the rows have no class, so a dataset without labels would be accepted and all rows be negatives."""
    objective = find_objective("x", name, {"queue_size": 8}, TAU)
    assert kept_of_one_width(objective.needs, 5, torch.float64)["queue_labels"].tolist() == [-1] * 8
    assert depends_on_labels(objective)
    assert not depends_on_labels(find_objective("x", "moco", {"queue_size": 8}, TAU))


@pytest.mark.parametrize("name", ["moco_nscl", "moco_supcon"])
@pytest.mark.parametrize(("key", "value"), [("queue_size", 0), ("ema_decay", 1.5), ("temperature", 0.0)])
def test_options_of_a_labelled_queue_out_of_range_are_refused(name: str, key: str, value: float) -> None:
    """Both objectives share their checks; without them a run would start with an empty queue or a growing target."""
    with pytest.raises(ValueError, match=rf"^arms\.x\.{key}: "):
        find_objective("x", name, {key: value}, TAU)
