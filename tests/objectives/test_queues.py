"""MoCo, NNCLR and ReSSL against loops and cross-entropy; their queue; a run on two ranks and after a resume."""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import tiny
from test_ranks import train
from torch import Tensor

from coupled.config.registry import find_objective
from coupled.objectives import Inputs, moco, nnclr, ressl
from coupled.objectives._queue import enqueued
from coupled.storage.checkpoints import read_newest

TAU = 0.3
LABELS = torch.zeros(4, dtype=torch.int64)


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def batch(views: int) -> Inputs:
    names = ("projection", "prediction", "target_projection")
    outputs = {name: unit(views, 4, 5, seed=k) for k, name in enumerate(names)}
    outputs["prediction"] = 3 * outputs["prediction"]  # normalised by the objective
    return Inputs(outputs, outputs, LABELS, LABELS, kept={"queue": unit(7, 5, seed=9)})


def double_loop(inputs: Inputs, version: str) -> float:
    query = inputs.outputs["projection" if version == "v2" else "prediction"].tolist()
    keys, queue = inputs.outputs["target_projection"].tolist(), inputs.kept["queue"].tolist()

    def score(one: list[float], other: list[float]) -> float:
        return sum(x * y for x, y in zip(one, other, strict=True)) / math.hypot(*one) / TAU

    losses = []
    for v, of_view in enumerate(query):
        for b, q in enumerate(of_view):
            for w, keys_of_view in enumerate(keys):
                if w != v:
                    negatives = queue if version == "v2" else [k for n, k in enumerate(keys_of_view) if n != b]
                    total = sum(math.exp(score(q, n)) for n in [keys_of_view[b], *negatives])
                    losses.append(math.log(total) - score(q, keys_of_view[b]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_loss_equals_the_double_loop_of_its_formula(version, views):
    """A key of the same view, or a positive among the negatives, would be another objective."""
    loss = moco.moco(batch(views), temperature=TAU, version=version)
    assert loss.mean.item() == pytest.approx(double_loop(batch(views), version), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


def test_the_loss_and_its_gradient_equal_cross_entropy_of_the_published_pseudocode():
    """Logits [positive | queue] / tau with label 0, as in algorithm 1 of MoCo, for both orders of two views."""
    inputs = batch(2)
    query = inputs.outputs["projection"].requires_grad_()
    parts = []
    for v, w in ((0, 1), (1, 0)):
        positive = (query[v] * inputs.outputs["target_projection"][w]).sum(-1, keepdim=True)
        logits = torch.cat([positive, query[v] @ inputs.kept["queue"].T], 1) / TAU
        parts.append(F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)))
    expected = sum(parts) / 2
    found = moco.moco(inputs, temperature=TAU).mean
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    of_expected, of_found = (torch.autograd.grad(each, query)[0] for each in (expected, found))
    torch.testing.assert_close(of_found, of_expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("views", [2, 3])
def test_nnclr_equals_the_double_loop_of_its_formula(views):
    """The neighbour is the anchor; its own projection or the prediction of the same view would be another objective."""
    inputs = batch(views)
    projections, predictions = (inputs.outputs[name].tolist() for name in ("projection", "prediction"))
    queue = inputs.kept["queue"].tolist()

    def cosine(one: list[float], other: list[float]) -> float:
        return sum(x * y for x, y in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)

    losses = []
    for v, w in permutations(range(views), 2):
        for b in range(4):
            neighbour = max(queue, key=lambda row: cosine(row, projections[v][b]))
            exps = [math.exp(cosine(neighbour, each) / TAU) for each in predictions[w]]
            losses.append(-math.log(exps[b] / sum(exps)))
    loss = nnclr.nnclr(inputs, temperature=TAU)
    assert loss.mean.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


@pytest.mark.parametrize("views", [2, 3])
def test_ressl_equals_cross_entropy_with_soft_labels(views):
    """The target's distribution is sharper; exchanged temperatures or networks would be another objective."""
    inputs = batch(views)
    student, teacher = (inputs.outputs[name] for name in ("projection", "target_projection"))
    parts = [
        F.cross_entropy(
            student[v] @ inputs.kept["queue"].T / TAU, (teacher[w] @ inputs.kept["queue"].T / 0.04).softmax(-1)
        )
        for v, w in permutations(range(views), 2)
    ]
    loss = ressl.ressl(inputs, temperature=TAU)
    torch.testing.assert_close(loss.mean, sum(parts) / len(parts), rtol=0, atol=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


def test_the_queue_replaces_its_oldest_rows():
    """After each step it has the newest rows, whatever the ratio of its size to the batch."""
    for size, added in ((7, 3), (6, 2), (4, 6)):
        queue, seen = torch.zeros(size, 1), list[float]()
        for step in range(1, 9):
            new_VGP = torch.arange(added).view(1, added, 1) + 100.0 * step
            queue = enqueued({"kept.queue": queue}, "queue", new_VGP, step)["kept.queue"]
            seen += new_VGP.flatten().tolist()
        assert sorted(queue.flatten().tolist()) == seen[-size:]


def test_a_queue_of_a_version_without_one_is_refused():
    """It would be accepted and ignored."""
    with pytest.raises(ValueError, match=r"^arms\.x\.queue_size: 64 is not allowed; version v3 has no queue"):
        find_objective("x", "moco", {"version": "v3", "queue_size": 64}, TAU)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_ranks_and_a_resumed_run_have_the_queue_of_one_process(tmp_path: Path) -> None:
    """The queue is in checkpoints and not in snapshots; every rank adds the keys of the global batch.

    So is the online probe.
    """
    changed: dict[str, Any] = {
        "arms": {
            "moco": {"objective": "moco", "queue_size": 500},
            "moco_nscl": {"objective": "moco_nscl", "queue_size": 500},
            "nnclr": {"objective": "nnclr", "queue_size": 500, "hidden_dim": 32},
        },
        "online_probe": {},
        "epochs": 2,
        "dataset": tiny.FEW_IMAGES["dataset"],
        "batch": {"size": 72},
        "precision": "float64",  # rounding of float32 grows at the kinks of ReLU
    }
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    tiny.train(one, **changed)
    train(2, two, **changed)
    tiny.train(resumed, max_steps=3, **changed)
    tiny.train(resumed, resume=True, **changed)
    assert tiny.snapshot_bytes(resumed) == tiny.snapshot_bytes(one)
    for arm in changed["arms"]:
        assert "kept.queue" not in tiny.tensors(one, arm, 2)
        saved = [read_newest(run / "checkpoints").arms[arm] for run in (one, two, resumed)]
        kept = sorted(name for name in saved[0] if name.startswith("kept/"))
        labels = ["kept/kept.queue_labels"] if arm == "moco_nscl" else []
        assert kept == ["kept/kept.queue", *labels, *(f"kept/online_probe.{each}" for each in ("velocity", "weights"))]
        for name in kept:
            assert torch.equal(saved[0][name], saved[2][name])
            torch.testing.assert_close(saved[1][name], saved[0][name], rtol=0, atol=1e-9)
        of_two = tiny.tensors(two, arm, 2)
        for name, tensor in tiny.tensors(one, arm, 2).items():
            torch.testing.assert_close(of_two[name], tensor, rtol=1e-5, atol=1e-6)
