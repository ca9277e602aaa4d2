"""What a run gives away: embeddings, maps and exported encoders. These functions are methods of `Run`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from coupled.analysis.embed import Embeddings
    from coupled.analysis.run import Run


def embed(run: "Run", arm: str | None = None, **options: Any) -> "Embeddings":
    """The embeddings of images by one arm: of the run's, of another dataset, or of a folder of pictures.

    Options, errors and an example: `coupled.analysis.embed.compute`.
    """
    from coupled.analysis.embed import compute

    return compute(run, arm, **options)


def project(run: "Run", method: str, **options: Any) -> "pd.DataFrame":
    """Two-dimensional maps of the same images by several arms: the rows of map.csv.

    Options, errors and an example: `coupled.analysis.representations.maps.compute`.
    """
    from coupled.analysis.representations.maps import compute

    return compute(run, method, **options)


def export(run: "Run", folder: "Path | str", format: str, arm: str | None = None, **options: Any) -> "list[Path]":
    """Write the encoder of one arm as files that another program loads; their paths.

    Options, errors and an example: `coupled.analysis.export.write`.
    """
    from coupled.analysis.export import write

    return write(run, folder, format, arm, **options)
