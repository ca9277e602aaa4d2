"""Embeddings, maps and exported encoders of a run. These functions are methods of `Run`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from coupled.analysis.embed import Embeddings
    from coupled.analysis.run import Run


def embed(run: "Run", arm: str | None = None, **options: Any) -> "Embeddings":
    """Return the embeddings by one arm of the run's images, of another dataset, or of a folder of images.

    Args:
        run: the run.
        arm: the arm (default: the run's only arm).
        options: keyword arguments of `coupled.analysis.embed.compute`: epoch, layer, images, dataset_root, split,
            num_images, device, accept_changed_images.

    Returns:
        The rows, float32 [N, D], and a DataFrame of the same length with split, image, file and label.

    Raises:
        ValueError: for an unknown arm, epoch, layer, split or dataset, or a damaged snapshot or image.

    Example:
        >>> rows, about = run.embed("nscl", split="test", num_images=100)
        >>> rows.shape
        (100, 32)
    """
    from coupled.analysis.embed import compute

    return compute(run, arm, **options)


def project(run: "Run", method: str, **options: Any) -> "pd.DataFrame":
    """Return two-dimensional maps of the same images by several arms.

    Args:
        run: the run.
        method: "umap" (needs umap-learn), "tsne" or "pca".
        options: keyword arguments of `coupled.analysis.representations.maps.compute`: arms, epochs, layer, images,
            dataset_root, split, num_images, device, accept_changed_images.

    Returns:
        The rows of map.csv, one per image, arm and epoch, with x and y.

    Raises:
        ValueError: for an unknown method, arm, epoch, layer, split or dataset, a damaged snapshot, fewer than 5 images,
            or embeddings that are not finite.

    Example:
        >>> found = run.project("pca", arms="cl", split="test", num_images=50)
        >>> len(found)
        50
    """
    from coupled.analysis.representations.maps import compute

    return compute(run, method, **options)


def export(run: "Run", folder: "Path | str", format: str, arm: str | None = None, **options: Any) -> "list[Path]":
    """Write the encoder of one arm as files that another program loads.

    Args:
        run: the run.
        folder: a folder that is new or empty.
        format: "timm", "torchvision", "onnx" or "huggingface".
        arm: the arm (default: the run's only arm).
        options: keyword arguments of `coupled.analysis.export.write`: epoch.

    Returns:
        The paths of the files.

    Raises:
        ValueError: for an unknown arm, epoch or format, a folder that is not empty, a damaged snapshot, a network that
            the target does not support, or a missing library.

    Example:
        >>> sorted(path.name for path in run.export("exported/cl", "timm", arm="cl"))
        ['README.md', 'load.py', 'metadata.json', 'model.safetensors']
    """
    from coupled.analysis.export import write

    return write(run, folder, format, arm, **options)
