"""`nscl` with a share of the labels: loops of the formula, its ends `dcl` and `nscl`, runs, and refusals."""

import itertools
import json
import math
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
import torch
from support import tiny

import coupled
from coupled.arms import sanity_checks
from coupled.config.registry import Objective, find_objective
from coupled.config.schema import from_resolved
from coupled.objectives import Inputs, Needs, dcl, nscl
from coupled.stream.batches import step_batches
from coupled.stream.known_labels import known_labels

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
either_denominator = pytest.mark.parametrize("positive_in_denominator", [False, True])


@either_denominator
@pytest.mark.parametrize("views", [2, 3])
def test_unknown_labels_are_never_of_the_same_class(random_outputs, whole_batch, views, positive_in_denominator):
    """Two unknown labels are equal numbers, but not one class: both images stay negatives of each other."""
    outputs, labels, tau, losses = random_outputs(views=views), [0, -1, 0, 2, -1, 0], 0.5, []
    rows = outputs["projection"].flatten(0, 1).tolist()
    for i, z in enumerate(rows):
        weights = [math.exp(sum(a * b for a, b in zip(z, w, strict=True)) / tau) for w in rows]
        views_of_i = [a for a in range(len(rows)) if a % 6 == i % 6 and a != i]
        excluded = [a for a in range(len(rows)) if labels[a % 6] == labels[i % 6] != -1]
        negatives = [a for a in range(len(rows)) if a % 6 != i % 6 and a not in excluded]
        denominator = sum(weights[a] for a in negatives + views_of_i * positive_in_denominator)
        losses.append(fmean(-math.log(weights[p] / denominator) for p in views_of_i))
    options = {"temperature": tau, "positive_in_denominator": positive_in_denominator}
    loss = nscl.nscl(whole_batch(outputs, labels), **options)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)


@either_denominator
def test_without_a_known_label_nscl_is_dcl(random_outputs, whole_batch, positive_in_denominator):
    """Bit for bit, value and gradient: the end of the path is CL."""
    outputs = random_outputs()
    projections = outputs["projection"].requires_grad_()
    options = {"temperature": 0.1, "positive_in_denominator": positive_in_denominator}
    unknown = torch.full((6,), -1)
    losses = nscl.nscl(whole_batch(outputs, unknown), **options), dcl.dcl(whole_batch(outputs, LABELS), **options)
    assert torch.equal(losses[0].mean, losses[1].mean)
    assert torch.equal(*[torch.autograd.grad(loss.mean, projections)[0] for loss in losses])


def test_more_known_labels_never_raise_the_loss_of_an_anchor(random_outputs, whole_batch):
    """Every known label only removes negatives: CL >= any share >= NSCL, for each anchor."""
    outputs = random_outputs(images=24)
    labels, losses = torch.arange(24) % 3, []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        seen = labels.where(known_labels(1, 24, share), -1)
        losses.append(nscl.per_anchor(whole_batch(outputs, seen), temperature=0.5).losses_A)
    for less, more in itertools.pairwise(losses):
        assert (more <= less + 1e-12).all()
        assert (more < less - 1e-6).any()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five arms on the path from CL to NSCL, two steps."""
    folder = tmp_path_factory.mktemp("path") / "run"
    shares = {"none": 0, "half": 0.5, "every": 1}
    arms = {name: {"objective": "nscl", "label_fraction": share} for name, share in shares.items()}
    tiny.train(folder, arms={"cl": "dcl", "nscl": "nscl", **arms}, epochs=1, batch={"size": 32}, max_steps=2)
    return folder


def test_the_ends_of_the_path_are_cl_and_nscl_in_a_run(run: Path) -> None:
    """Bit for bit; half of the labels give another arm than both ends."""
    steps = pd.read_csv(run / "steps.csv")
    losses = {arm: steps[f"{arm}_loss"].tolist() for arm in ("cl", "none", "half", "every", "nscl")}
    assert len(steps) == 2
    assert losses["none"] == losses["cl"]
    assert losses["every"] == losses["nscl"]
    assert losses["nscl"][0] < losses["half"][0] < losses["cl"][0]


def test_the_share_is_recorded_only_where_it_is_below_1(run: Path) -> None:
    """Runs without the option keep their digests, and both spellings of NSCL are one experiment."""
    recorded = json.loads((run / "run.json").read_text())["settings"]
    assert recorded["arms"]["half"]["label_fraction"] == 0.5
    assert recorded["arms"]["every"] == recorded["arms"]["nscl"]
    assert "label_fraction" not in recorded["arms"]["nscl"]
    assert from_resolved(recorded).sha256() == from_resolved(from_resolved(recorded).resolved()).sha256()


def test_the_known_labels_are_those_of_the_seed_and_the_image(run: Path) -> None:
    """The loss of the first step, computed from the snapshot of the start: labels by image, not by place."""
    start = coupled.open_run(run)
    settings = start.settings
    images = start.images("train")
    known_N = known_labels(settings.seed, len(images), 0.5)
    stream = {"": (settings.seed, settings.seed)}
    recipe = settings.augmentation.plain()
    options = {"batch_size": settings.batch.size, "sampler": "uniform", "augmentations": {"": recipe}, "size": 8}
    (batch, *_others) = step_batches(1, dataset=images, seeds=stream, **options)
    network = start.network("half", epoch=0).train()
    with torch.no_grad():
        outputs = network(batch[""].views_VB3SS)
    labels = batch[""].labels_B.where(known_N[batch[""].indices_B], -1)
    loss = nscl.nscl(Inputs(outputs, outputs, labels, labels), temperature=settings.temperature).mean
    first = pd.read_csv(run / "steps.csv")["half_loss"][0]
    assert loss.item() == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_range_is_refused_in_one_line(share):
    """More than all labels cannot be known."""
    with pytest.raises(
        ValueError, match=rf"^arms\.x\.label_fraction: {share} is not allowed; give a share from 0 to 1$"
    ):
        find_objective("x", "nscl", {"label_fraction": share}, 0.5)
    with pytest.raises(ValueError, match=r"^label_fraction: "):
        Needs(("projection",), label_fraction=share)


@pytest.mark.parametrize("objective", ["supcon", "cross_entropy", "dcl"])
def test_objectives_that_would_ignore_the_share_refuse_it(objective):
    """An unknown label of SupCon or CE has no meaning yet; silence would train on all labels."""
    with pytest.raises(ValueError, match=r"^arms\.x\.label_fraction: unknown key"):
        find_objective("x", objective, {"label_fraction": 0.5}, 0.5)


def test_only_a_share_of_0_needs_no_labels() -> None:
    """Unlabelled images: without a known label NSCL is DCL, which runs on them; with some it does not."""
    depends = {share: sanity_checks.depends_on_labels(of(share)) for share in (0, 0.5, 1)}
    assert depends == {0: False, 0.5: True, 1: True}


def test_a_batch_of_one_class_stops_only_the_arm_that_knows_all_labels() -> None:
    """The arms with unknown labels have negatives in such a batch."""
    counted = {share: sanity_checks.counts(of(share), torch.zeros(4, dtype=torch.int64)) for share in (0, 0.5, 1)}
    assert counted == {0: True, 0.5: True, 1: False}


def of(share: float) -> Objective:
    return find_objective("x", "nscl", {"label_fraction": share}, 0.5)
