"""`w_mse` and `mmcr`: losses of a whole batch against slow versions in NumPy, their invariances, and collapse."""

import itertools
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from coupled.config.registry import find_objective
from coupled.objectives import mmcr, w_mse

LABELS = [0, 1, 0, 2, 1, 0]


def whitened(z: np.ndarray, eps: float) -> np.ndarray:
    """Rows of unit norm, from the inverse of the Cholesky factor of the covariance."""
    shrunk = (1 - eps) * np.cov(z, rowvar=False) + eps * np.eye(z.shape[1])
    white = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return white / np.linalg.norm(white, axis=1, keepdims=True)


def w_mse_loop(views: np.ndarray, slices: int, eps: float) -> float:
    """The mean squared distance of whitened rows, over pairs of views and images."""
    white = [np.concatenate([whitened(part, eps) for part in np.array_split(view, slices)]) for view in views]
    pairs = itertools.combinations(white, 2)
    return fmean(float(((x - y) ** 2).sum()) for one, other in pairs for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("views", [2, 3])
def test_w_mse_equals_its_formula_in_numpy(random_outputs, whole_batch, views, slices, eps):
    """Both views whitened together, or by the biased covariance, is another loss. 13 images: parts of unequal size."""
    outputs = random_outputs(images=13, views=views, width=3)
    loss = w_mse.w_mse(whole_batch(outputs, range(13)), slices=slices, eps=eps)
    expected = w_mse_loop(outputs["unnormalised"].numpy(), slices, eps)
    assert loss.mean.item() == pytest.approx(expected, rel=1e-11)
    assert (loss.counted, loss.skipped) == (13 * views, 0)


def test_w_mse_of_two_linear_maps_of_the_batch_by_triangles_is_zero(random_outputs, whole_batch):
    """Whitening removes shift and scale, and every lower triangular map with a positive diagonal."""
    z_GP = random_outputs(images=12)["unnormalised"][0]
    triangle = torch.tril(torch.rand(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.5)
    changed = z_GP @ triangle.T + torch.arange(5)
    batch = whole_batch({"unnormalised": torch.stack([z_GP, changed])}, range(12))
    assert abs(w_mse.w_mse(batch, eps=0.0).mean.item()) < 1e-12


def test_w_mse_of_few_images_counts_no_anchor(random_outputs, whole_batch):
    """With as many dimensions as images every batch is whitened to the same simplex: the loss would mean nothing."""
    outputs = random_outputs(images=11)
    counted = [int(w_mse.w_mse(whole_batch(outputs, range(11)), slices=slices).counted) for slices in (1, 2)]
    assert counted == [22, 0]
    cut = {"unnormalised": outputs["unnormalised"][:, :5].requires_grad_()}
    loss = w_mse.w_mse(whole_batch(cut, range(5)))
    assert (loss.mean, loss.counted, loss.skipped) == (0, 0, 10)


def test_w_mse_at_collapse_is_2_with_a_finite_gradient(whole_batch):
    """A loss of 0 would reward the collapse that whitening is to prevent."""
    alike = torch.full((2, 8, 3), 0.7, dtype=torch.float64, requires_grad=True)
    loss = w_mse.w_mse(whole_batch({"unnormalised": alike}, range(8))).mean
    assert loss.item() == pytest.approx(2, abs=1e-12)
    assert torch.autograd.grad(loss, alike)[0].isfinite().all()


@pytest.mark.parametrize("options", [{"slices": 0}, {"eps": 1.0}, {"eps": -0.1}])
def test_w_mse_refuses_options_out_of_range_in_one_line(options):
    """Weight 1 of the identity matrix would not whiten."""
    (name,) = options
    with pytest.raises(ValueError, match=rf"^arms\.x\.{name}: .* is not allowed; give a "):
        find_objective("x", "w_mse", options, 0.5)


@pytest.mark.parametrize("compression", [0.0, 0.3])
@pytest.mark.parametrize("views", [2, 3])
def test_mmcr_equals_its_formula_by_eigenvalues(random_outputs, whole_batch, views, compression):
    """Singular values as roots of eigenvalues of X X^T: another algorithm than the one tested."""
    outputs = random_outputs(views=views)
    z = outputs["projection"].numpy()
    nuclear = [np.sqrt(np.linalg.eigvalsh(x @ x.T).clip(0)).sum() for x in (z[:, n] for n in range(6))]
    mean = z.mean(0)
    expected = -np.sqrt(np.linalg.eigvalsh(mean.T @ mean).clip(0)).sum() + compression * fmean(nuclear)
    loss = mmcr.mmcr(whole_batch(outputs, LABELS), compression=compression)
    assert loss.mean.item() == pytest.approx(expected, rel=1e-12)
    assert (loss.counted, loss.skipped) == (6 * views, 0)


@pytest.mark.parametrize("compression", [0.0, 0.5])
def test_a_rotation_does_not_change_mmcr(random_outputs, whole_batch, rotation, compression):
    """Singular values are those of the rotated matrix, too."""
    z = random_outputs()["projection"]
    losses = [
        mmcr.mmcr(whole_batch({"projection": x}, LABELS), compression=compression).mean for x in (z, z @ rotation)
    ]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


def test_mmcr_is_lowest_for_equal_views_of_orthogonal_images_and_highest_at_collapse(random_outputs, whole_batch):
    """The least value is -sqrt(G min(G, P)); at collapse it is -sqrt(G), and the gradient is finite."""
    width = 5
    spread = torch.eye(width, dtype=torch.float64).expand(2, width, width)
    alike = torch.zeros_like(spread)
    alike[..., 0] = 1
    alike.requires_grad_()
    random = random_outputs(images=width)["projection"]
    equal = random[:1].expand(2, width, width)
    losses = [
        mmcr.mmcr(whole_batch({"projection": z}, range(width)), compression=0.0).mean for z in (spread, equal, alike)
    ]
    assert [loss.item() for loss in losses] == sorted(loss.item() for loss in losses)
    assert losses[0].item() == pytest.approx(-width)
    assert losses[2].item() == pytest.approx(-(width**0.5))
    assert mmcr.mmcr(whole_batch({"projection": random}, range(width))).mean > losses[1]
    assert torch.autograd.grad(losses[2], alike)[0].isfinite().all()


def test_gradients_of_mmcr_are_finite_for_equal_views(random_outputs, whole_batch):
    """Two equal views are a matrix of rank 1, whose second singular value is 0, where a root has no derivative."""
    z = random_outputs()["projection"][:1].expand(2, 6, 5).clone().requires_grad_()
    loss = mmcr.mmcr(whole_batch({"projection": z}, LABELS), compression=1.0).mean
    assert torch.autograd.grad(loss, z)[0].isfinite().all()
    assert F.normalize(z, dim=-1).isfinite().all()
