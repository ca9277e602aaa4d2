"""Rows for the metrics from numpy arrays, torch tensors, or blocks of rows.

Shape letters: n rows (images) in all, b rows of a block, D and E widths of two representations.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.metrics.pair._sums import CrossSums, Moments, RowStream

Matrix: TypeAlias = Tensor | NDArray[Any] | Iterable[Any]  # [n, D], or an iterable of blocks [b, D]

BLOCK = 256  # rows; the batch size of the programs, so that a value has the same bits as in their CSV files


def value_from_sums(value: Callable[[Moments, Moments, Moments], float], transform: str, x: Matrix, y: Matrix) -> float:
    """Return `value` of the sums over all rows, in one pass, with memory for D x E sums and a block of rows."""
    streams = RowStream(transform), RowStream(transform)
    xx, yy, xy = CrossSums(), CrossSums(), CrossSums()
    for x_bD, y_bE in paired_blocks(x, y):
        x_rows, y_rows = streams[0].rows(x_bD), streams[1].rows(y_bE)
        xx.update(x_rows, x_rows)
        yy.update(y_rows, y_rows)
        xy.update(x_rows, y_rows)
    return value(xx.moments(), yy.moments(), xy.moments())


def value_from_rows(value: Callable[[Tensor, Tensor], float], x: Matrix, y: Matrix) -> float:
    """Return `value` of all rows at once."""
    x_blocks, y_blocks = zip(*paired_blocks(x, y), strict=True)
    return value(torch.cat(x_blocks), torch.cat(y_blocks))


def paired_blocks(x: Matrix, y: Matrix) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of `x` and `y` with the same images. Raises ValueError if either is invalid or they do not match."""
    x_count = y_count = 0
    for x_bD, y_bE in ((block, block) for block in blocks(x, "x")) if x is y else zip_longest(*_both(x, y)):
        x_count += 0 if x_bD is None else len(x_bD)
        y_count += 0 if y_bE is None else len(y_bE)
        if x_count == y_count:  # all blocks but the last have BLOCK rows
            if x_bD.device != y_bE.device:
                raise ValueError(f"x is on {x_bD.device} and y on {y_bE.device}; move one to the device of the other")
            yield x_bD, y_bE
    if x_count != y_count:
        raise ValueError(f"x has {x_count} rows and y has {y_count}; row i of both must belong to the same image")
    check_count(x_count, "x and y")


def _both(x: Matrix, y: Matrix) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    return blocks(x, "x"), blocks(y, "y")


def all_rows(x: Matrix, name: str, least: int = 2) -> Tensor:
    """Return the rows [n, D] of `x`. Raises ValueError if it is invalid or has fewer than `least` rows."""
    parts = list(blocks(x, name))
    check_count(sum(map(len, parts)), name, least)
    return torch.cat(parts)


def check_count(count: int, name: str, least: int = 2) -> None:
    """Raise ValueError for fewer than `least` rows."""
    if count < least:
        raise ValueError(f"{name}: {count} row{'' if count == 1 else 's'}; at least {least} are needed")


def check_at_least(value: int, least: int, name: str) -> None:
    """Raise ValueError if an option is not an integer of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: got {value!r}; expected an integer of at least {least}")


def blocks(x: Matrix, name: str) -> Iterator[Tensor]:
    """The rows of `x` as floating tensors of BLOCK rows, the last one shorter, however `x` itself is cut.

    Raises ValueError that starts with `name` if `x` is not 2-D, has blocks of different widths, or a value that is
    not a finite real number.
    """
    rest_bD: Tensor | None = None
    first, width = 0, None
    for matrix in parts_of(x, name):
        if matrix.ndim != 2:
            shape = "x".join(map(str, matrix.shape)) or "a single number"
            raise ValueError(f"{name}: expected 2-D rows [n, d], found {matrix.ndim}-D ({shape})")
        if width not in (None, matrix.shape[1]):
            raise ValueError(f"{name}: a block has {matrix.shape[1]} columns, the first block has {width}")
        width = matrix.shape[1]
        if width == 0:
            raise ValueError(f"{name}: the rows have no columns")
        for start in range(0, len(matrix), BLOCK):  # converted in pieces: a memory map is never read as a whole
            piece_bD = _finite(_floating(matrix[start : start + BLOCK], name), name, first)
            first += len(piece_bD)
            rest_bD = piece_bD if rest_bD is None else torch.cat([rest_bD, piece_bD])
            while len(rest_bD) >= BLOCK:
                yield rest_bD[:BLOCK]
                rest_bD = rest_bD[BLOCK:]
    if rest_bD is not None and len(rest_bD):
        yield rest_bD


def parts_of(data: Any, name: str) -> Iterator[Any]:
    """Yield the tensors or numpy arrays of `data`; a list of numbers or of lists is one array."""
    if isinstance(data, Tensor) or hasattr(data, "__array__") or np.isscalar(data):
        parts: Iterable[Any] = (data,)
    elif isinstance(data, list | tuple) and not any(hasattr(each, "__array__") for each in data):
        parts = (data,)
    elif isinstance(data, Iterable):
        parts = data
    else:
        raise ValueError(f"{name}: expected an array, a tensor or blocks of rows, found {type(data).__name__}")
    for part in parts:
        if isinstance(part, Tensor):
            yield part.detach()
            continue
        try:
            array = np.asarray(part)
        except ValueError:  # numpy's message does not name the argument
            raise ValueError(f"{name}: the rows differ in length") from None
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: expected real numbers, found {array.dtype}")
        yield array


def tensor_of(array: NDArray[Any]) -> Tensor:
    """Return the array as a tensor on the CPU; copied only if torch cannot share the memory."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _floating(rows: Any, name: str) -> Tensor:
    if not isinstance(rows, Tensor):
        known = rows.dtype.newbyteorder("=") in (np.float16, np.float32, np.float64)
        rows = tensor_of(rows.astype(rows.dtype.newbyteorder("=") if known else np.float64, copy=False))
    if rows.is_complex():
        raise ValueError(f"{name}: expected real numbers, found {rows.dtype}")
    return (rows if rows.is_floating_point() else rows.double()).contiguous()


def _finite(rows_bD: Tensor, name: str, first: int) -> Tensor:
    bad = (~rows_bD.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"{name}: row {first + row}, column {column} is {float(rows_bD[row, column])}; all values must be finite"
        )
    return rows_bD
