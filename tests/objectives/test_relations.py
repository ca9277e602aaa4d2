"""Relations between the objectives: the inequalities and special cases that the papers prove."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coupled.objectives import dcl, nscl, nt_xent, supcon

batches = st.tuples(
    st.lists(st.integers(0, 3), min_size=2, max_size=12),  # labels
    st.integers(0, 10_000),  # seed of the projections
    st.sampled_from([2, 3, 8]),  # their width
    st.sampled_from([0.1, 0.5, 1.0, 2.0]),  # temperature
)
quick = settings(max_examples=60, deadline=None)
either_denominator = pytest.mark.parametrize("positive_in_denominator", [False, True])


@either_denominator
@given(batches)
@quick
def test_the_bound_between_dcl_and_nscl_holds_for_every_anchor(
    random_outputs, whole_batch, positive_in_denominator, batch
):
    """0 <= dcl - nscl <= log(1 + (n_c-1) e^(2/tau) / (B-n_c)) (arXiv 2506.04411, Theorem 1, per batch and anchor).

    The whole project rests on this inequality; a wrong set of negatives in either objective breaks it.
    """
    labels, seed, width, tau = batch
    inputs = whole_batch(random_outputs(images=len(labels), width=width, seed=seed), labels)
    options = {"temperature": tau, "positive_in_denominator": positive_in_denominator}
    contrastive, supervised = dcl.per_anchor(inputs, **options), nscl.per_anchor(inputs, **options)
    gaps = (contrastive.losses_A - supervised.losses_A).tolist()
    for label, counted, gap in zip(labels * 2, supervised.counted_A.tolist(), gaps, strict=True):
        of_class = labels.count(label)
        assert counted == (of_class < len(labels))
        if counted:
            bound = math.log1p((of_class - 1) * math.exp(2 / tau) / (len(labels) - of_class))
            assert -1e-12 <= gap <= bound + 1e-12


def test_the_bound_between_dcl_and_nscl_is_reached(whole_batch):
    """Own class at the anchor, all others opposite: equality. A bound that is never near would test little."""
    labels, tau = [0, 0, 0, 1], 0.5
    projections = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64).view(1, 4, 1).repeat(2, 1, 1)
    inputs = whole_batch({"projection": projections}, labels)
    gap_A = dcl.per_anchor(inputs, temperature=tau).losses_A - nscl.per_anchor(inputs, temperature=tau).losses_A
    assert gap_A[0].item() == pytest.approx(math.log1p(2 * math.exp(2 / tau)), abs=1e-12)


@either_denominator
def test_nscl_is_dcl_when_all_labels_differ(random_outputs, whole_batch, positive_in_denominator):
    """Every other image is then of another class: bit for bit the same value and gradient."""
    outputs = random_outputs()
    projections = outputs["projection"].requires_grad_()
    options = {"temperature": 0.1, "positive_in_denominator": positive_in_denominator}
    losses = [f(whole_batch(outputs, range(6)), **options).mean for f in (dcl.dcl, nscl.nscl)]
    assert torch.equal(*losses)
    assert torch.equal(*[torch.autograd.grad(loss, projections)[0] for loss in losses])


def test_dcl_with_the_positive_is_nt_xent(random_outputs, whole_batch):
    """The switch must lead to the objective that the authors' code trains as CL."""
    inputs = whole_batch(random_outputs(views=3), [0] * 6)
    ours = dcl.dcl(inputs, temperature=0.1, positive_in_denominator=True)
    assert torch.equal(ours.mean, nt_xent.nt_xent(inputs, temperature=0.1).mean)


def test_supcon_out_is_nt_xent_when_all_labels_differ(random_outputs, whole_batch):
    """The only positive is then the other view."""
    inputs = whole_batch(random_outputs(), range(6))
    torch.testing.assert_close(
        supcon.supcon(inputs, temperature=0.1).mean, nt_xent.nt_xent(inputs, temperature=0.1).mean, rtol=0, atol=1e-12
    )


@given(batches)
@quick
def test_supcon_in_is_never_above_out(random_outputs, whole_batch, batch):
    """Jensen's inequality for every anchor (arXiv 2004.11362, section 3.2.2): the variants must not be swapped."""
    labels, seed, width, tau = batch
    inputs = whole_batch(random_outputs(images=len(labels), width=width, seed=seed), labels)
    out, inside = (supcon.per_anchor(inputs, temperature=tau, variant=variant) for variant in ("out", "in"))
    assert (inside.losses_A <= out.losses_A + 1e-12).all()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("images", [10, 100])
def test_equal_embeddings_give_the_logarithm_of_the_number_of_terms(whole_batch, images, classes):
    """Collapse has a known value; the balanced gap DCL - NSCL is log(C/(C-1)) up to the image itself, (B-1)/B."""
    projections = torch.zeros(2, images, 3, dtype=torch.float64)
    projections[..., 0] = 1
    inputs = whole_batch({"projection": projections}, torch.arange(images) % classes)
    contrastive, supervised = (f(inputs, temperature=0.5).mean.item() for f in (dcl.dcl, nscl.nscl))
    assert nt_xent.nt_xent(inputs, temperature=0.5).mean.item() == pytest.approx(math.log(2 * images - 1), abs=1e-12)
    assert supcon.supcon(inputs, temperature=0.5).mean.item() == pytest.approx(math.log(2 * images - 1), abs=1e-12)
    assert contrastive == pytest.approx(math.log(2 * images - 2), abs=1e-12)
    limit = math.log(classes / (classes - 1))
    assert contrastive - supervised == pytest.approx(limit + math.log((images - 1) / images), abs=1e-12)
    assert contrastive - supervised == pytest.approx(limit, abs=1.1 / images)


@pytest.mark.parametrize("similarity", ["square", "absolute"])
@pytest.mark.parametrize("objective", [nt_xent.nt_xent, dcl.dcl])
def test_only_a_sign_invariant_similarity_ignores_opposite_projections(
    random_outputs, whole_batch, objective, similarity
):
    """The second view turned round: nothing for a square or an absolute value, all for a cosine."""
    outputs, signs = random_outputs(), torch.tensor([1, -1]).view(2, 1, 1)
    batches = [whole_batch({"projection": z}, [0] * 6) for z in (outputs["projection"], signs * outputs["projection"])]
    unsigned = [objective(batch, temperature=0.5, similarity=similarity).mean for batch in batches]
    signed = [objective(batch, temperature=0.5).mean for batch in batches]
    torch.testing.assert_close(*unsigned, rtol=0, atol=1e-12)
    assert abs(signed[0] - signed[1]) > 0.1
