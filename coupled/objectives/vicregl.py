"""VICRegL: VICReg of the projections and of matched cells of the feature maps (arXiv 2210.01571).

G images of the global batch, P projection width, Q cells of a feature map, K matches, R width of a projected cell.
"""

import itertools

import torch
from torch import Tensor

from coupled.objectives import FEATURE_MAP, LOCATIONS, Head, Inputs, Loss, Needs
from coupled.objectives._anchors import at_least_float32
from coupled.objectives._batches import covariance as covariance_of
from coupled.objectives._batches import low_deviation, of_all_views, squared_off_diagonal
from coupled.objectives._ranges import check_width, not_negative, share

PROJECTED = "map_projection"


def check(
    *, alpha: float, num_matches: int, num_feature_matches: int | None, hidden_dim: int, map_dim: int, **weights: float
) -> None:
    """Raise ValueError for an option that is out of range."""
    share(alpha=alpha)
    for name, value in (("num_matches", num_matches), ("num_feature_matches", num_feature_matches)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} is not allowed; give 1 or more, at most the cells of a feature map")
    check_width(hidden_dim=hidden_dim, map_dim=map_dim)
    not_negative(**weights)


def needs(
    *, num_matches: int, num_feature_matches: int | None, hidden_dim: int, map_dim: int, **_options: object
) -> Needs:
    """Declare projections before normalisation, projected cells and their places in the image, of the global batch."""
    outputs = ("unnormalised", PROJECTED, LOCATIONS)
    head = Head("map_projector", input=FEATURE_MAP, output=PROJECTED, hidden_dim=hidden_dim, width=map_dim)
    least = {"num_matches": num_matches, "num_feature_matches": num_feature_matches or 1}
    return Needs(outputs=outputs, gathered=outputs, heads={"map_projector": head}, least_cells=least)


def vicregl(
    inputs: Inputs,
    *,
    alpha: float = 0.75,
    num_matches: int = 20,
    num_feature_matches: int | None = None,
    hidden_dim: int = 512,
    map_dim: int = 512,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Loss:
    """Return the VICRegL loss: VICReg of the projections, and of the cells of the feature maps that match.

        alpha * l(z, z') + (1 - alpha) * (l_location + l_feature)

    l is `invariance` * MSE + `variance` * (v + v') / 2 + `covariance` * (c + c') / 2 with v and c of `vicreg`; note the
    half of c. Each cell of the last feature map is projected by layers of its own. For l_location a cell of one view is
    matched with the cell of the other view that is nearest to it in the image: the distance of the centres of both
    cells in pixels of the image, from crop and flip of both views. Of these pairs the `num_matches` with the smallest
    distances are kept for each image. For l_feature a cell is matched with the cell whose projection is nearest; all
    pairs are kept, or `num_feature_matches` of them. l of the pairs has the statistics of v and c over the batch,
    separately for the k-th kept cell in the order of rows, and is the mean over k. Both are the mean of the two
    directions. The choice of the pairs has no gradient. With more than two views the loss is the mean over all pairs of
    views. Every anchor counts.

    The encoder must have a feature map with at least that many cells: 49 for a ResNet at 224 px, 16 with the CIFAR stem
    at 32 px. The cells of a vision transformer are its patches. Rotations, warps, policies and mixed images are
    refused, because their cells have no box in the image, and so are images on the disk. There are no small crops.

    Args:
        inputs: reads "unnormalised" [V, G, P], "map_projection" [V, G, Q, R] and "locations" [V, G, Q, 2] of the global
            batch; labels are not read.
        alpha: weight of the projections, from 0 to 1; the cells have 1 - alpha.
        num_matches: pairs of cells per image that are matched by place, at most Q.
        num_feature_matches: pairs of cells per image that are matched by feature; None: all Q.
        hidden_dim: width of the two hidden layers of the map projector.
        map_dim: width R of a projected cell.
        invariance: weight of the squared difference, at least 0.
        variance: weight of v, the penalty on standard deviations below 1, at least 0.
        covariance: weight of the squared covariances of different dimensions, at least 0.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if an option is out of range; raised when the settings are loaded, and for more matches than cells
            before the first step.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1], [1, -1], [-1, 1]]).repeat(2, 1, 1)  # two equal views of three images
        >>> places = torch.zeros(2, 3, 1, 2)  # of maps of one cell
        >>> named = {"unnormalised": z, "map_projection": z[:, :, None], "locations": places}
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> round(float(vicregl(Inputs(named, named, labels, labels), num_matches=1, covariance=2.0).mean), 4)
        1.1111

    Source: Bardes et al. 2022, arXiv 2210.01571, with weights and numbers of matches of the authors' code. That code
    has small crops, too, and by default does not mirror the places with the view. Agrees with lightly's `VICRegLLoss`
    for one match in both choices; lightly orders the kept cells by distance, which changes v and c for more.
    """
    maps_VGQR, places_VGQ2 = (at_least_float32(inputs.gathered[name]) for name in (PROJECTED, LOCATIONS))
    weights = (invariance, variance, covariance)

    def of_cells(view: int, other: int) -> Tensor:
        by_place = _matched(places_VGQ2[view], places_VGQ2[other], num_matches)
        by_feature = _matched(maps_VGQR[view].detach(), maps_VGQR[other].detach(), num_feature_matches)
        pairs = (_pairs(maps_VGQR[view], maps_VGQR[other], *each) for each in (by_place, by_feature))
        return torch.stack([_vicreg(*each, *weights) for each in pairs]).sum()

    def of_views(views_VGP: Tensor) -> Tensor:
        pairs = [*itertools.permutations(range(len(views_VGP)), 2)]
        whole = [_vicreg(views_VGP[a, :, None], views_VGP[b, :, None], *weights) for a, b in pairs if a < b]
        cells = [of_cells(a, b) for a, b in pairs]
        return alpha * torch.stack(whole).mean() + (1 - alpha) * torch.stack(cells).mean()

    return of_all_views(inputs, "unnormalised", of_views)


@torch.no_grad()
def _matched(from_GQE: Tensor, to_GQE: Tensor, matches: int | None) -> tuple[Tensor, Tensor]:
    """Return the cells with the smallest distances to their nearest cells, in the order of cells, and these: [G, K]."""
    distances_GQQ = torch.cdist(from_GQE, to_GQE, compute_mode="donot_use_mm_for_euclid_dist")
    nearest_GQ = distances_GQQ.argmin(2)  # the first of equal ones
    kept_GK = distances_GQQ.amin(2).argsort(dim=1, stable=True)[:, :matches].sort(dim=1).values
    return kept_GK, nearest_GQ.gather(1, kept_GK)


def _pairs(from_GQR: Tensor, to_GQR: Tensor, cells_GK: Tensor, nearest_GK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matched cells of both views, each [G, K, R]."""
    wide = from_GQR.shape[2]
    one, other = (
        each.gather(1, index_GK[..., None].expand(-1, -1, wide))
        for each, index_GK in ((from_GQR, cells_GK), (to_GQR, nearest_GK))
    )
    return one, other


def _vicreg(x_GKP: Tensor, y_GKP: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """Return l: VICReg with statistics over G, the mean over K."""
    squared = torch.vmap(lambda x_GP: squared_off_diagonal(covariance_of(x_GP)), in_dims=1)
    correlated = torch.stack([squared(each_GKP).mean() for each_GKP in (x_GKP, y_GKP)]).mean() / x_GKP.shape[2]
    low = (low_deviation(x_GKP) + low_deviation(y_GKP)) / 2
    return invariance * (x_GKP - y_GKP).square().mean() + variance * low + covariance * correlated
