"""Own anchors cut over W processes give the loss and the gradient of one process that holds everything."""

import pytest
import torch

from coupled.objectives import Inputs

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 0, 3])


def loss_over_shards(objective, outputs, labels, world_size):
    """What the processes together optimise: own slices in `outputs`, the whole batch in `gathered`."""
    size = len(labels) // world_size
    losses = []
    for first in range(0, len(labels), size):
        own = slice(first, first + size)
        losses.append(
            objective(
                Inputs(
                    {name: value[:, own] for name, value in outputs.items()},
                    outputs,
                    labels[own],
                    labels,
                    first,
                )
            )
        )
    counted = sum(loss.counted for loss in losses)
    return sum(loss.mean * loss.counted for loss in losses) / counted, counted, sum(loss.skipped for loss in losses)


@pytest.mark.parametrize("labels", [LABELS, (LABELS > 2).long()], ids=["mixed", "a shard without negatives"])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("world_size", [2, 4])
def test_shards_give_the_loss_and_gradient_of_the_whole_batch(
    random_outputs, whole_batch, objective, assert_same_gradients, world_size, views, labels
):
    """An anchor that mistakes another process's row for itself, or a gradient that stays on its own process."""
    outputs = random_outputs(images=len(labels), views=views)
    leaf = [value.requires_grad_() for value in outputs.values()]
    whole = objective(whole_batch(outputs, labels))
    mean, counted, skipped = loss_over_shards(objective, outputs, labels, world_size)
    assert (counted, skipped) == (whole.counted, whole.skipped)
    assert_same_gradients(mean, whole.mean, leaf)
