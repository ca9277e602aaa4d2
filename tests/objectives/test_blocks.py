"""Large batches: losses of single anchors block by block equal those of all anchors at once, and store no matrix."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from coupled.objectives import Inputs, _blocks, nscl

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 0, 3, 3, 2, 1])


def block_by_block(monkeypatch, images, views, of_all):
    """Blocks of this many images, whatever the size of the batch."""
    monkeypatch.setattr(_blocks, "WHOLE", 0)
    monkeypatch.setattr(_blocks, "BLOCK_CPU", images * views * views * of_all)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("views", [2, 3])
def test_blocks_give_the_loss_and_gradient_of_all_anchors(
    random_outputs, whole_batch, objective, assert_same_gradients, monkeypatch, views, size
):
    """Also the last block, which is smaller, and anchors without positives or negatives."""
    outputs = random_outputs(images=len(LABELS), views=views)
    leaf = [value.requires_grad_() for value in outputs.values()]
    inputs = whole_batch(outputs, LABELS)
    whole = objective(inputs)
    block_by_block(monkeypatch, size, views, len(LABELS))
    blocks = objective(inputs)
    assert (blocks.counted, blocks.skipped) == (whole.counted, whole.skipped)
    assert_same_gradients(blocks.mean, whole.mean, leaf)


def test_blocks_of_one_of_several_processes(random_outputs, contrastive, monkeypatch):
    """The own images of a later process do not start at row 0 of the global batch."""
    outputs = random_outputs(images=len(LABELS))
    own = slice(5, 10)
    inputs = Inputs({name: value[:, own] for name, value in outputs.items()}, outputs, LABELS[own], LABELS, 5)
    whole = contrastive(inputs)
    block_by_block(monkeypatch, 2, 2, len(LABELS))
    torch.testing.assert_close(contrastive(inputs).mean, whole.mean, rtol=0, atol=1e-12)


def test_blocks_keep_no_matrix_for_the_backward_pass(random_outputs, whole_batch, contrastive, monkeypatch):
    """At B = 8 192 a matrix of all anchors has 1 GiB in float32, and a loss has several of them."""
    kept = []
    images = 64
    outputs = random_outputs(images=images)
    outputs["projection"].requires_grad_()
    inputs = whole_batch(outputs, torch.arange(images) % 4)
    block_by_block(monkeypatch, 4, 2, images)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        contrastive(inputs).mean.backward()
    assert sum(kept) < (2 * images) ** 2 / 4


def test_a_small_batch_is_computed_at_once(random_outputs, whole_batch, objective, monkeypatch):
    """Below the limit nothing is recomputed, and the bits of a run stay as they were."""
    monkeypatch.delattr(_blocks, "checkpoint")
    objective(whole_batch(random_outputs(images=len(LABELS)), LABELS))
    assert _blocks.WHOLE > (2 * 1024) ** 2


@pytest.mark.parametrize("size", [1, 4])
def test_losses_of_single_anchors_keep_their_order(random_outputs, whole_batch, monkeypatch, size):
    """Anchor v B + b is view v of image b; the analysis compares anchors of several losses."""
    inputs = whole_batch(random_outputs(images=len(LABELS), views=3), LABELS)
    whole = nscl.per_anchor(inputs, temperature=0.5)
    block_by_block(monkeypatch, size, 3, len(LABELS))
    for of_blocks, of_whole in zip(nscl.per_anchor(inputs, temperature=0.5), whole, strict=True):
        torch.testing.assert_close(of_blocks, of_whole, rtol=0, atol=1e-12)
