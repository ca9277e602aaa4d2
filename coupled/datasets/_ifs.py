"""Iterated function systems: random contractive affine maps, and how often a random walk visits each pixel.

Barnsley, Fractals Everywhere (1988); classes of such systems as images to learn from: Kataoka et al., "Pre-training
without Natural Images", arXiv 2101.08515. Only additions, products, quotients, square roots and integers are used,
which every machine rounds alike (no trigonometry, no logarithm, no BLAS): the same bits give the same image anywhere.

A map (a, b, c, d, e, f) takes (x, y) to (a x + b y + e, c x + d y + f).
Shape letters: I systems drawn side by side, M maps of a system, T steps, W walkers, S image size.
"""

import numpy as np

MAPS = 4
NUMBERS = 7 * MAPS  # random numbers that make a system
NARROWEST, WIDEST = 0.3, 0.8  # operator norm of a map
JITTER = 0.15  # each entry of a map varies by this share: its norm stays below .8 (1 + .15 sqrt 2) = .97
BURN_IN = 20  # steps that are not counted: at a norm of .55, 6e-6 of the way to the attractor is left
FILLED = (0.22, 0.6)  # share of a probe's pixels that the attractor of a class must touch
PROBE_SIZE = 24
CANDIDATES = 16


def uniform(raw: np.ndarray) -> np.ndarray:
    """64 random bits -> float64 in [0, 1), a multiple of 2^-53; same shape."""
    return (raw >> np.uint64(11)) * 2.0**-53


def systems(uniform_IR: np.ndarray) -> np.ndarray:
    """Maps [I, M, 6] from R = 7 M uniform numbers a system: entries in [-1, 1], each matrix scaled to norm .3-.8."""
    numbers_IM7 = uniform_IR.reshape(-1, MAPS, 7)
    maps_IM6 = numbers_IM7[..., :6] * 2 - 1
    wanted_IM1 = NARROWEST + (WIDEST - NARROWEST) * numbers_IM7[..., 6:]
    maps_IM6[..., :4] *= wanted_IM1 / _norms(maps_IM6)[..., None]
    return maps_IM6


def _norms(maps_IM6: np.ndarray) -> np.ndarray:
    """Largest singular values [I, M] of the 2x2 matrices: 2 s^2 = t + sqrt(t^2 - 4 det^2), t = sum of the squares."""
    a, b, c, d = np.moveaxis(maps_IM6[..., :4], -1, 0)
    total_IM = a * a + b * b + c * c + d * d
    root_IM = np.sqrt(np.maximum(total_IM * total_IM - 4 * determinants(maps_IM6) ** 2, 0))
    return np.sqrt((total_IM + root_IM) / 2)


def jittered(maps_M6: np.ndarray, uniform_IR: np.ndarray) -> np.ndarray:
    """Variations [I, M, 6] of one system; R = 6 M numbers each."""
    return maps_M6 * (1 + JITTER * (2 * uniform_IR.reshape(-1, MAPS, 6) - 1))


def determinants(maps_IM6: np.ndarray) -> np.ndarray:
    """Determinants [I, M] of the 2x2 matrices."""
    return maps_IM6[..., 0] * maps_IM6[..., 3] - maps_IM6[..., 1] * maps_IM6[..., 2]


def choices(weights_M: np.ndarray, bits: np.random.Philox, size: int) -> np.ndarray:
    """Which map each walker takes at each step, [T, W], for an image of `size`: six counted points a pixel."""
    sums_M = np.cumsum(weights_M)
    edges_M = sums_M / sums_M[-1]
    steps, walkers = BURN_IN + 3 * size, 2 * size
    return np.searchsorted(edges_M[:-1], uniform(bits.random_raw((steps, walkers))), side="right")


def visits(maps_IM6: np.ndarray, choices_TW: np.ndarray, size: int) -> np.ndarray:
    """Counts [I, M, S, S]: how often a walker came to a pixel by each map (the chaos game).

    All systems use the same choices. Each attractor is moved and scaled to span the image; its aspect ratio is kept.
    """
    x_TWI, y_TWI = _walk(maps_IM6, choices_TW)
    span_I = np.maximum(np.ptp(x_TWI, axis=(0, 1)), np.ptp(y_TWI, axis=(0, 1)))
    column_TWI, row_TWI = _pixel(x_TWI, span_I, size), _pixel(y_TWI, span_I, size)
    system_I = np.arange(len(maps_IM6))
    map_TW1 = choices_TW[BURN_IN:, :, None]
    cell_TWI = ((system_I * MAPS + map_TW1) * size + row_TWI) * size + column_TWI
    counts = np.bincount(cell_TWI.ravel(), minlength=len(maps_IM6) * MAPS * size * size)
    return counts.reshape(-1, MAPS, size, size)


def _walk(maps_IM6: np.ndarray, choices_TW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    maps_M6I = np.ascontiguousarray(maps_IM6.transpose(1, 2, 0))
    steps, walkers = choices_TW.shape
    points_T2WI = np.empty((steps, 2, walkers, len(maps_IM6)))
    x_WI, y_WI = np.zeros((2, walkers, len(maps_IM6)))
    for step, choice_W in enumerate(choices_TW):
        a, b, c, d, e, f = maps_M6I[choice_W].transpose(1, 0, 2)
        x_WI, y_WI = a * x_WI + b * y_WI + e, c * x_WI + d * y_WI + f
        points_T2WI[step] = x_WI, y_WI
    return points_T2WI[BURN_IN:, 0], points_T2WI[BURN_IN:, 1]


def _pixel(x_TWI: np.ndarray, span_I: np.ndarray, size: int) -> np.ndarray:
    middle_I = (x_TWI.min(axis=(0, 1)) + x_TWI.max(axis=(0, 1))) / 2
    place_TWI = (x_TWI - middle_I) * (size / span_I) + size / 2
    return np.clip(place_TWI.astype(np.int64), 0, size - 1)


def class_system(bits: np.random.Philox) -> np.ndarray:
    """The first system [M, 6] in the stream `bits` whose attractor fills a reasonable part of the image."""
    while True:
        numbers_IR = uniform(bits.random_raw((CANDIDATES, NUMBERS)))
        choices_TW = choices(np.ones(MAPS), bits, PROBE_SIZE)
        maps_IM6 = systems(numbers_IR)
        touched_I = (visits(maps_IM6, choices_TW, PROBE_SIZE).sum(axis=1) > 0).mean(axis=(1, 2))
        accepted = np.flatnonzero((touched_I >= FILLED[0]) & (touched_I <= FILLED[1]))
        if len(accepted):
            return maps_IM6[accepted[0]]
