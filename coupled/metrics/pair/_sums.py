"""The sums for one-pass pair metrics, accumulated in one pass over the images in float64.

A row x of width D becomes (x - pilot, |x - pilot|^2, 1), of width X = D + 2. The product of two such matrices contains
every sum that linear CKA, its debiased form, RSA and Procrustes need. There is no n x n matrix, the order of batches
does not matter, and the sums of two parts of the images add up to those of the whole. The pilot is the mean of the
first batch. It keeps features with a large mean precise; the results do not depend on it.

Shape letters: B rows of a batch, n rows in all, D and E widths of two representations, X = D + 2, Y = E + 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def _plain(rows_BD: Tensor) -> Tensor:
    return rows_BD


def _unit(rows_BD: Tensor) -> Tensor:
    norms_B1 = torch.linalg.vector_norm(rows_BD, dim=1, keepdim=True, dtype=torch.float64)
    return rows_BD / norms_B1.where(norms_B1 > 0, 1)


def _unit_centred(rows_BD: Tensor) -> Tensor:
    from_first_BD = rows_BD.double() - rows_BD[:, :1]  # a row of equal entries becomes zero, exactly
    return _unit(from_first_BD - from_first_BD.mean(dim=1, keepdim=True))


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"plain": _plain, "unit": _unit, "unit_centred": _unit_centred}
_BLOCK = 160  # columns of a half product that are computed at once; for X = 514 it takes 3/4 of the time of a full one


class Rows(NamedTuple):
    """A batch for `CrossSums.update`: rows minus the pilot, their squared norms, and ones."""

    pilot_D: Tensor
    augmented_BX: Tensor


class RowStream:
    """Converts batches of one representation to `Rows`; the first batch sets the pilot.

    `transform` is a key of `TRANSFORMS`: "plain" does not change the rows; "unit" divides each row by its norm;
    "unit_centred" first subtracts the mean of the row's entries. A row of zeros stays zero.
    """

    def __init__(self, transform: str) -> None:
        self.transform = TRANSFORMS[transform]
        self.pilot_D: Tensor | None = None

    def rows(self, batch_BD: Tensor) -> Rows:
        """Return the `Rows` of a batch [B, D] of any floating-point type, on its device."""
        rows_BD = self.transform(batch_BD)
        if self.pilot_D is None:
            first_D = rows_BD[0].double()
            # the mean of differences is exact for equal rows, so their sums are exactly zero
            self.pilot_D = first_D + (rows_BD - first_D).mean(dim=0)
        augmented_BX = self.pilot_D.new_empty(len(rows_BD), rows_BD.shape[1] + 2)
        centred_BD = torch.sub(rows_BD, self.pilot_D, out=augmented_BX[:, :-2])
        augmented_BX[:, -2] = centred_BD.norm(dim=1).square()
        augmented_BX[:, -1] = 1
        return Rows(self.pilot_D, augmented_BX)


@dataclass(frozen=True)
class Moments:
    """The input of a metric: sums over the n centred rows x_i [D], y_i [E] of two representations."""

    n: int
    means: tuple[Tensor, Tensor]  # the subtracted means, [D] and [E]
    products_DE: Tensor  # sum of x_i y_i^T
    squares: tuple[float, float]  # sum of |x_i|^2, sum of |y_i|^2
    thirds: tuple[Tensor, Tensor]  # sum of x_i |y_i|^2 [D], sum of |x_i|^2 y_i [E]
    squares_product: float  # sum of |x_i|^2 |y_i|^2


def equal_rows(xx: Moments, yy: Moments, xy: Moments) -> bool:
    """Whether the rows x_i and y_i are equal: ||X - Y||^2 is the trace of xx + yy - 2 xy. False for constant features,
    which have no score.
    """
    return (
        xx.squares[0] > 0
        and torch.equal(xy.products_DE, xx.products_DE)
        and torch.equal(xx.products_DE, yy.products_DE)
    )


class CrossSums:
    """Sums over the rows of two representations of the same images; y = x for sums of an arm with itself."""

    def __init__(self) -> None:
        self.pilots: tuple[Tensor, Tensor] | None = None
        self._full_XY: Tensor | None = None
        self._half_XX: Tensor | None = None  # of batches with equal rows; its upper triangle counts

    @classmethod
    def of(cls, pilots: tuple[Tensor, Tensor], total_XY: Tensor) -> "CrossSums":
        """Create sums from pilots and `total`."""
        sums = cls()
        sums.pilots, sums._full_XY = pilots, total_XY
        return sums

    @classmethod
    def empty(cls, x_BD: Tensor, y_BE: Tensor) -> "CrossSums":
        """Create the sums of no rows, with the widths and on the device of these."""
        pilots = tuple(rows.new_zeros(rows.shape[1], dtype=torch.float64) for rows in (x_BD, y_BE))
        return cls.of((pilots[0], pilots[1]), pilots[0].new_zeros(len(pilots[0]) + 2, len(pilots[1]) + 2))

    def update(self, x: Rows, y: Rows) -> None:
        """Add a batch; row b of `x` and row b of `y` belong to the same image.

        If the rows are equal, half of their product is computed. Arms with equal weights then have the same sums as an
        arm with itself, and score exactly 1.
        """
        if self.pilots is None:
            self.pilots = (x.pilot_D, y.pilot_D)
        if _equal(x.augmented_BX, y.augmented_BX):
            self._half_XX = _room(self._half_XX, x, y)
            for start in range(0, len(self._half_XX), _BLOCK):
                rows_BK = x.augmented_BX[:, start : start + _BLOCK]
                self._half_XX[start : start + _BLOCK, start:].addmm_(rows_BK.T, x.augmented_BX[:, start:])
        else:
            self._full_XY = _room(self._full_XY, x, y)
            self._full_XY.addmm_(x.augmented_BX.T, y.augmented_BX)

    def merge(self, other: "CrossSums") -> None:
        """Add the sums of other images; their pilots may differ."""
        if other.pilots is None:
            return
        if self.pilots is None or self.total()[-1, -1] == 0:  # the pilot of sums without rows is not a mean
            self.pilots, self._full_XY, self._half_XX = other.pilots, other.total().clone(), None
        else:
            moves = other.pilots[0] - self.pilots[0], other.pilots[1] - self.pilots[1]
            self._full_XY, self._half_XX = self.total() + _moved(other.total(), moves), None

    def without(self, part: "CrossSums") -> "CrossSums":
        """Return the sums without the images of `part`, which must be included in these sums."""
        assert self.pilots is not None and part.pilots is not None, "no rows yet"  # noqa: PT018
        moves = part.pilots[0] - self.pilots[0], part.pilots[1] - self.pilots[1]
        return CrossSums.of(self.pilots, self.total() - _moved(part.total(), moves))

    def moments(self) -> Moments:
        """Return the sums after the mean is subtracted from every row."""
        sums_XY, pilots = self.total(), self.pilots
        assert pilots is not None
        n = sums_XY[-1, -1]
        moves = -sums_XY[:-2, -1] / n, -sums_XY[-1, :-2] / n
        sums_XY = _moved(sums_XY, moves)
        return Moments(
            n=int(n),
            means=(pilots[0] - moves[0], pilots[1] - moves[1]),
            products_DE=sums_XY[:-2, :-2],
            squares=(float(sums_XY[-2, -1]), float(sums_XY[-1, -2])),
            thirds=(sums_XY[:-2, -2], sums_XY[-2, :-2]),
            squares_product=float(sums_XY[-2, -2]),
        )

    def total(self) -> Tensor:
        """Return the sum of the products of the augmented rows, [X, Y]."""
        assert self.pilots is not None, "no rows yet"
        parts = [] if self._full_XY is None else [self._full_XY]
        if self._half_XX is not None:
            parts.append(self._half_XX.triu() + self._half_XX.triu(1).T)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _equal(one_BX: Tensor, other_BY: Tensor) -> bool:
    # comparing the first rows is usually enough to tell different arms apart
    return one_BX is other_BY or (torch.equal(one_BX[:1], other_BY[:1]) and torch.equal(one_BX, other_BY))


def _room(sums_XY: Tensor | None, x: Rows, y: Rows) -> Tensor:
    if sums_XY is None:
        return x.augmented_BX.new_zeros(x.augmented_BX.shape[1], y.augmented_BX.shape[1])
    return sums_XY


def _moved(sums_XY: Tensor, moves: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sums after every x becomes x + moves[0] and every y becomes y + moves[1].

    This is a linear map of the augmented rows, and so of the rows (for x) and columns (for y) of the sums.
    """
    moved_XY = sums_XY.clone()
    for side, move in zip((moved_XY, moved_XY.T), moves, strict=True):
        side[-2] += 2 * move @ side[:-2] + move.dot(move) * side[-1]
        side[:-2].addr_(move, side[-1])
    return moved_XY
