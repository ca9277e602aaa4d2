"""Every objective against a slow double loop of its formula, written from the papers with math.exp and lists."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from coupled.objectives import cross_entropy, dcl, nscl, nt_xent, supcon

LABELS = [0, 1, 0, 2, 1, 0]
TAUS = [0.1, 1.0]
TRAINED = ("projection", "logits", "unnormalised", "prediction", "scores", "local_scores")


SIMILARITIES = {"cosine": lambda s: s, "square": lambda s: s**2, "absolute": abs}


def loop(outputs, labels, tau: float, loss_of_anchor: Callable, similarity: str = "cosine") -> float:
    """Mean of `loss_of_anchor(exp(s_ia/tau) by a, others, views of the same image, same class)` over anchors."""
    projections = outputs["projection"].flatten(0, 1).tolist()
    images = len(labels)
    losses = []
    for i, anchor in enumerate(projections):
        others = [a for a in range(len(projections)) if a != i]
        image = {a for a in others if a % images == i % images}
        klass = {a for a in others if labels[a % images] == labels[i % images]}
        cosines = {a: sum(x * y for x, y in zip(anchor, projections[a], strict=True)) for a in others}
        weight = {a: math.exp(SIMILARITIES[similarity](s) / tau) for a, s in cosines.items()}
        loss = loss_of_anchor(weight, others, image, klass)
        if loss is not None:
            losses.append(loss)
    return sum(losses) / len(losses)


def pairwise(negatives: Callable, positive_in_denominator: bool) -> Callable:
    """Mean over the positives of -log(exp(s_ip/tau) / denominator)."""

    def loss_of_anchor(weight, others, image, klass):
        negative = [a for a in others if negatives(a, image, klass)]
        denominator = sum(weight[a] for a in negative) + positive_in_denominator * sum(weight[p] for p in image)
        return sum(-math.log(weight[p] / denominator) for p in image) / len(image) if negative else None

    return loss_of_anchor


def supcon_out(weight, others, image, klass):
    """Equation 2 of arXiv 2004.11362."""
    denominator = sum(weight[a] for a in others)
    return -sum(math.log(weight[p] / denominator) for p in klass) / len(klass) if klass else None


def supcon_in(weight, others, image, klass):
    """Equation 3 of arXiv 2004.11362."""
    denominator = sum(weight[a] for a in others)
    return -math.log(sum(weight[p] / denominator for p in klass) / len(klass)) if klass else None


def other_images(a, image, klass):
    return a not in image


def other_classes(a, image, klass):
    return a not in klass


CASES = {
    "nt_xent": (nt_xent.nt_xent, {}, pairwise(other_images, True)),
    "dcl": (dcl.dcl, {}, pairwise(other_images, False)),
    "dcl+positive": (dcl.dcl, {"positive_in_denominator": True}, pairwise(other_images, True)),
    "nt_xent square": (nt_xent.nt_xent, {"similarity": "square"}, pairwise(other_images, True)),
    "nt_xent absolute": (nt_xent.nt_xent, {"similarity": "absolute"}, pairwise(other_images, True)),
    "dcl square": (dcl.dcl, {"similarity": "square"}, pairwise(other_images, False)),
    "dcl absolute": (dcl.dcl, {"similarity": "absolute"}, pairwise(other_images, False)),
    "nscl": (nscl.nscl, {}, pairwise(other_classes, False)),
    "nscl+positive": (nscl.nscl, {"positive_in_denominator": True}, pairwise(other_classes, True)),
    "supcon out": (supcon.supcon, {}, supcon_out),
    "supcon in": (supcon.supcon, {"variant": "in"}, supcon_in),
}


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("labels", [LABELS, [1] * 5 + [0], [2] * 6], ids=["mixed", "one alone", "one class"])
@pytest.mark.parametrize("name", CASES)
def test_a_contrastive_objective_equals_the_double_loop_of_its_formula(
    random_outputs, whole_batch, name, labels, views, tau
):
    """A wrong mask, sign, mean or temperature: the arm would train another objective than its name says."""
    objective, options, loss_of_anchor = CASES[name]
    outputs = random_outputs(views=views)
    loss = objective(whole_batch(outputs, labels), temperature=tau, **options)
    if name.startswith("nscl") and len(set(labels)) == 1:
        assert loss.counted == 0
    else:
        expected = loop(outputs, labels, tau, loss_of_anchor, options.get("similarity", "cosine"))
        assert loss.mean.item() == pytest.approx(expected, abs=1e-12, rel=0)


def normalised_in_a_loop(view: list[list[float]], normalisation: str) -> list[list[float]]:
    """Number by number: each dimension centred; then each row has norm 1, or each dimension norm sqrt(rows / width)."""
    columns = [[x - sum(column) / len(column) for x in column] for column in zip(*view, strict=True)]
    if normalisation == "dimension":
        wanted = math.sqrt(len(view) / len(columns))
        columns = [[x / math.sqrt(sum(y * y for y in column)) * wanted for x in column] for column in columns]
        return [list(row) for row in zip(*columns, strict=True)]
    rows = list(zip(*columns, strict=True))
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]


@pytest.mark.parametrize("normalisation", ["centred", "dimension"])
@pytest.mark.parametrize("similarity", ["cosine", "absolute"])
def test_nt_xent_with_another_normalisation_equals_its_formula(random_outputs, whole_batch, normalisation, similarity):
    """Over the global batch: statistics of a process alone would make the loss depend on the number of processes."""
    outputs = random_outputs(views=2)
    views = [normalised_in_a_loop(view, normalisation) for view in outputs["unnormalised"].tolist()]
    z = torch.tensor(views, dtype=torch.float64)
    expected = loop({"projection": z}, LABELS, 0.5, pairwise(other_images, True), similarity)
    inputs = whole_batch({"unnormalised": outputs["unnormalised"]}, LABELS)
    options = {"temperature": 0.5, "similarity": similarity, "normalisation": normalisation}
    assert nt_xent.nt_xent(inputs, **options).mean.item() == pytest.approx(expected, abs=1e-12, rel=0)
    assert nt_xent.needs(normalisation=normalisation).outputs == ("unnormalised",)
    halves = []
    for first in (0, 3):
        own = {"unnormalised": outputs["unnormalised"][:, first : first + 3]}
        labels = inputs.labels_B[first : first + 3]
        halves.append(nt_xent.nt_xent(replace(inputs, outputs=own, labels_B=labels, first=first), **options).mean)
    assert sum(halves).item() / 2 == pytest.approx(expected, abs=1e-12, rel=0)
    if normalisation == "dimension":
        assert z.square().sum(2).mean().item() == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("supcon")])
def test_supcon_with_one_view_equals_its_formula(random_outputs, whole_batch, name):
    """Without augmentation the positives of SupCon are the other images of the class; a class of one has none."""
    objective, options, loss_of_anchor = CASES[name]
    outputs = random_outputs(views=1)
    loss = objective(whole_batch(outputs, LABELS), temperature=0.5, **options)
    assert loss.mean.item() == pytest.approx(loop(outputs, LABELS, 0.5, loss_of_anchor), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (5, 1)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_cross_entropy_equals_the_double_loop_of_its_formula(random_outputs, whole_batch, views):
    """Labels repeated in the wrong order would give view 2 of image b the label of another image."""
    outputs = random_outputs(views=views)
    losses = [
        math.log(sum(math.exp(x) for x in logits)) - logits[label]
        for view in outputs["logits"].tolist()
        for logits, label in zip(view, LABELS, strict=True)
    ]
    loss = cross_entropy.cross_entropy(whole_batch(outputs, LABELS))
    assert loss.mean.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12, rel=0)


@pytest.mark.parametrize("labels", [LABELS, [1] * 5 + [0]], ids=["mixed", "one alone"])
def test_the_gradient_equals_finite_differences(random_outputs, whole_batch, chosen, labels):
    """A detached factor, or a mask that cuts the wrong path, leaves the value right and the training wrong.

    Of an objective with a prediction it is that of the prediction alone: no gradient passes what is predicted. None
    passes the outputs of a target network, or the codes, which are computed from the scores of the global batch. The
    derivatives are compared along random directions, which every entry of the gradient changes.
    """
    if chosen.options.get("weight_gradient") is False:
        pytest.skip("its weights are constants for the gradient by this option")
    outputs = random_outputs(width=3)
    scores = outputs["scores"].clone()  # finite differences change the other tensors in place
    names = ["prediction"] if "prediction" in chosen.needs.outputs else [n for n in outputs if n in TRAINED]
    names += [name for name in chosen.needs.maps if name != "locations"]  # of which the loss is piecewise constant
    if chosen.name == "directpred_partitions":  # computes its prediction itself
        names = ["unnormalised"]

    def mean(*values):
        changed = outputs | dict(zip(names, values, strict=True))
        inputs = replace(whole_batch(changed, labels), gathered=changed | {"scores": scores})
        return chosen.function(inputs, **chosen.options).mean

    assert torch.autograd.gradcheck(mean, [outputs[name].requires_grad_() for name in names], fast_mode=True)
