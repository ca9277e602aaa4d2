"""The order of images: the global batches of an epoch as a pure function of (seed, epoch), for any world size.

Shape letters: N images of the dataset, K batches of the epoch, G images of the global batch.
"""

import numpy as np
from numpy.typing import NDArray

from coupled.stream.seeds import permutation, philox, random_uint32

SAMPLERS = ("uniform", "balanced")


def order(
    seed: int, epoch: int, labels_N: NDArray[np.int64], batch_size: int, sampler: str = "uniform"
) -> NDArray[np.int64]:
    """Return the global batches of one epoch as image indices [K, G], with K = N // G; no image occurs twice.

    `uniform`: a permutation of the images; the last, incomplete batch is dropped.
    `balanced`: every batch holds floor or ceil of G * n_c / N images of each class with n_c images.
    Raises ValueError if the batch is larger than the dataset or the sampler is unknown.
    """
    images = len(labels_N)
    if not 1 <= batch_size <= images:
        raise ValueError(f"batch.size: got {batch_size}; the dataset has {images} images, allowed is 1 to {images}")
    shuffled_N = permutation(images, philox(seed, "order", epoch))
    if sampler == "uniform":
        batches = images // batch_size
        return shuffled_N[: batches * batch_size].reshape(batches, batch_size)
    if sampler == "balanced":
        return _balanced(seed, epoch, shuffled_N, np.asarray(labels_N), batch_size)
    raise ValueError(f"batch.sampler: got '{sampler}'; allowed are {', '.join(SAMPLERS)}")


def _balanced(
    seed: int, epoch: int, shuffled_N: NDArray[np.int64], labels_N: NDArray[np.int64], batch_size: int
) -> NDArray[np.int64]:
    """Sort the shuffled images by class, drop the surplus at even distances, and assign the rest to batches in turn.

    Dropping at even distances keeps the share of every class to within one image. Assigning in turn splits each class
    evenly among the batches.
    """
    images = len(shuffled_N)
    batches, surplus = divmod(images, batch_size)
    sorted_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    if surplus:
        offset = random_uint32(seed, "order drop", epoch, shape=(1,)) * 2.0**-32
        dropped = np.floor((np.arange(surplus) + offset) * (images / surplus)).astype(np.int64)
        sorted_N = np.delete(sorted_N, dropped)
    dealt_KG = sorted_N.reshape(batch_size, batches).T[permutation(batches, philox(seed, "order batches", epoch))]
    places_KG = np.argsort(random_uint32(seed, "order places", epoch, shape=dealt_KG.shape), axis=1, kind="stable")
    return np.take_along_axis(dealt_KG, places_KG, axis=1)
