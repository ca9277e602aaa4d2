"""The sums from which every pair metric is computed, gathered in one pass over the images, float64 throughout.

A row x of width D enters as (x - pilot, |x - pilot|^2, 1), of width X = D + 2. One product of two such matrices then
holds every sum that linear CKA, its debiased form and RSA need: no n x n matrix is ever made, batches may come in any
order, and the sums of two parts of the images add up to those of the whole. The pilot, the mean of the first batch,
keeps features with a large mean exact; the results do not depend on it.

Shape letters: B rows of a batch, n rows in all, D and E widths of two representations, X = D + 2, Y = E + 2.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def _plain(rows_BD: Tensor) -> Tensor:
    return rows_BD


def _unit(rows_BD: Tensor) -> Tensor:
    norms_B1 = rows_BD.norm(dim=1, keepdim=True)
    return rows_BD / norms_B1.where(norms_B1 > 0, 1)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"plain": _plain, "unit": _unit}


class Rows(NamedTuple):
    """A batch ready for `CrossSums.update`: rows less the pilot, their squared norms, and ones."""

    pilot_D: Tensor
    augmented_BX: Tensor


class RowStream:
    """Makes `Rows` of the batches of one representation; the first batch sets the pilot.

    `transform` is a key of `TRANSFORMS`: "plain" leaves the rows as they are, "unit" divides each by its norm,
    and a row of zeros stays so.
    """

    def __init__(self, transform: str) -> None:
        self.transform = TRANSFORMS[transform]
        self.pilot_D: Tensor | None = None

    def rows(self, batch_BD: Tensor) -> Rows:
        """Rows of a batch [B, D] of any floating type, on its device."""
        rows_BD = self.transform(batch_BD.double())
        if self.pilot_D is None:
            first_D = rows_BD[0]
            # summing differences: the mean of equal rows is then that row, exactly, and their sums are exactly zero
            self.pilot_D = first_D + (rows_BD - first_D).mean(dim=0)
        augmented_BX = rows_BD.new_ones(len(rows_BD), rows_BD.shape[1] + 2)
        centred_BD = torch.sub(rows_BD, self.pilot_D, out=augmented_BX[:, :-2])
        torch.linalg.vecdot(centred_BD, centred_BD, out=augmented_BX[:, -2])
        return Rows(self.pilot_D, augmented_BX)


class CrossSums:
    """Sums over the rows x_i [D], y_i [E] of two representations of the same images; self sums have y = x.

    After `centred()` the rows are x_i less their mean, and the properties below are sums over i of those.
    """

    def __init__(self) -> None:
        self.sums_XY: Tensor | None = None
        self.pilots: tuple[Tensor, Tensor] | None = None

    def update(self, x: Rows, y: Rows) -> None:
        """Add a batch: row b of `x` and of `y` belong to the same image."""
        if self.sums_XY is None:
            self.pilots = (x.pilot_D, y.pilot_D)
            self.sums_XY = x.augmented_BX.new_zeros(x.augmented_BX.shape[1], y.augmented_BX.shape[1])
        self.sums_XY.addmm_(x.augmented_BX.T, y.augmented_BX)

    def merge(self, other: "CrossSums") -> None:
        """Add the sums of other images, whatever their pilots."""
        if other.sums_XY is None or other.pilots is None:
            return
        if self.sums_XY is None or self.pilots is None:
            self.sums_XY, self.pilots = other.sums_XY.clone(), other.pilots
            return
        moves = [theirs - ours for theirs, ours in zip(other.pilots, self.pilots, strict=True)]
        self.sums_XY += _moved(_moved(other.sums_XY, moves[0]).T, moves[1]).T

    def centred(self) -> "CrossSums":
        """The same sums with the means of the rows as pilots."""
        assert self.sums_XY is not None
        assert self.pilots is not None
        n = self.sums_XY[-1, -1]
        moves = -self.sums_XY[:-2, -1] / n, -self.sums_XY[-1, :-2] / n
        result = CrossSums()
        result.sums_XY = _moved(_moved(self.sums_XY, moves[0]).T, moves[1]).T
        result.pilots = (self.pilots[0] - moves[0], self.pilots[1] - moves[1])
        return result

    @property
    def _sums(self) -> Tensor:
        assert self.sums_XY is not None, "no rows yet"
        return self.sums_XY

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self._sums[-1, -1])

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The pilots: after `centred()` the means [D], [E] of the rows."""
        assert self.pilots is not None, "no rows yet"
        return self.pilots

    @property
    def products(self) -> Tensor:
        """Sum of x_i y_i^T [D, E]."""
        return self._sums[:-2, :-2]

    @property
    def squares(self) -> tuple[float, float]:
        """Sum of |x_i|^2, sum of |y_i|^2."""
        return float(self._sums[-2, -1]), float(self._sums[-1, -2])

    @property
    def thirds(self) -> tuple[Tensor, Tensor]:
        """Sum of x_i |y_i|^2 [D], sum of |x_i|^2 y_i [E]."""
        return self._sums[:-2, -2], self._sums[-2, :-2]

    @property
    def squares_product(self) -> float:
        """Sum of |x_i|^2 |y_i|^2."""
        return float(self._sums[-2, -2])


def _moved(sums_XY: Tensor, move_D: Tensor) -> Tensor:
    """The sums when every x becomes x + move: a linear map of the augmented rows, so of the rows of the sums."""
    moved_XY = sums_XY.clone()
    moved_XY[:-2] += move_D[:, None] * sums_XY[-1]
    moved_XY[-2] += 2 * move_D @ sums_XY[:-2] + move_D.dot(move_D) * sums_XY[-1]
    return moved_XY
