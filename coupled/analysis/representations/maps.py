"""Two-dimensional maps of embeddings of the same images, one map per arm and epoch.

Each map is computed independently, from a seed of the run and on one thread, so equal calls give equal maps. The
orientation of umap and tsne is arbitrary: each map is rotated and reflected to fit the map of the first arm at its
epoch, and that one to the previous epoch. A pca map keeps its axes; only their signs are changed.
Shape letters: N images, D width of a layer.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from coupled.analysis.driver import claim, tracked
from coupled.analysis.output_parsers import MAP_IMAGES, METHODS
from coupled.analysis.plots.drawing import save
from coupled.analysis.plots.map_figure import draw
from coupled.analysis.representations.embeddings import Embedder, choose_device
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.representations.other_images import dataset_label, embedded, images_by_split, images_name
from coupled.analysis.run import Run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selection import choices, listed, named, select_arms
from coupled.analysis.tidy_csv import write_table
from coupled.config.arm_sections import not_shared_text
from coupled.monitoring.terminal import say
from coupled.storage.run_lock import run_lock
from coupled.stream.seeds import determinism, random_uint32

TABLE = "map.csv"
FEWEST = 5  # images that a map needs


def compute(
    run: Run,
    method: str,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    layer: str = "h",
    images: str | Path | Callable[..., Any] | None = None,
    dataset_root: Path | str | None = None,
    split: Sequence[str] | str | None = None,
    num_images: int | None = None,
    device: str = "auto",
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return two-dimensional maps of the same images by several arms.

    Args:
        run: the run.
        method: "umap" (needs umap-learn), "tsne" or "pca".
        arms: the arms (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: the last that all of these arms have).
        layer: "h" (embedding) or "z" (projection).
        images: a dataset by name, the path of a folder of images, or a function that returns a dataset (default: the
            run's images).
        dataset_root: folder that holds the files of that dataset.
        split: "train", "test" or both (default: both).
        num_images: at most this many images per split, always the same ones (default: 2000).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        accept_changed_images: use the run's images although they have changed since training.

    Returns:
        The rows of map.csv with its columns (see `schemas.SCHEMAS`).

    Raises:
        ValueError: for an unknown method, arm, epoch, layer, split or dataset, a damaged snapshot, fewer than 5 images,
            or embeddings that are not finite.

    Example:
        >>> found = compute(run, "pca", split="test", num_images=50)
        >>> found.groupby("arm").size().to_dict()
        {'cl': 50, 'nscl': 50}
    """
    (method,), (layer,) = choices("project", method, METHODS), choices("layer", layer, OUTPUTS)
    project = projector(method, int(random_uint32(run.settings.seed, "analysis/map", shape=(1,))[0]))
    wanted = named(run.snapshots, None if arms is None else listed(arms))
    chosen = select_arms(run, arms=wanted, epochs=run.epochs(wanted)[-1:] if epochs is None else epochs)
    root, name = None if dataset_root is None else Path(dataset_root), images_name(images, "images")
    by_split = images_by_split(run, name, root, split, accept_changed_images)
    dataset = run.settings.dataset.name if name is None else dataset_label(name, root)
    embedder, digests = Embedder(run, choose_device(device)), run.snapshot_digests()
    parts: list[pd.DataFrame] = []
    like_N2: NDArray[np.float64] | None = None  # the map to which the next one is fitted
    with determinism(True, None):
        for epoch, arm in tracked(product(chosen.epochs, chosen.arms), "maps"):
            if arm == chosen.arms[0]:
                rows, about = embedded(embedder, by_split, num_images or MAP_IMAGES, chosen.arms, epoch, layer)
            if len(about) < FEWEST:
                raise ValueError(f"--project: got {len(about)} images; a map needs {FEWEST} or more")
            if not rows[arm].isfinite().all():
                raise ValueError(f"--project: the embeddings of arm '{arm}' at epoch {epoch} are not finite")
            map_N2 = project(rows[arm].double().numpy())
            map_N2 = map_N2 if like_N2 is None else turned(map_N2, like_N2, method)
            like_N2 = map_N2 if like_N2 is None or arm == chosen.arms[0] else like_N2
            cells = {"epoch": epoch, "arm": arm, "layer": layer, "method": method, "dataset": dataset}
            cells |= {"num_images": len(about), "arm_digest": digests[arm, epoch]}
            parts.append(pd.DataFrame({**cells, **about, "x": map_N2[:, 0], "y": map_N2[:, 1]}))
    return pd.concat(parts, ignore_index=True)[list(SCHEMAS[TABLE].columns)]


def projector(method: str, seed: int) -> Any:
    """Return a function from rows [N, D] to centred points [N, 2]. Raises ValueError for umap without umap-learn."""
    if method == "umap":
        try:
            import umap
        except ImportError:
            raise ValueError("--project: umap needs umap-learn: pip install umap-learn") from None

        def fit(rows_ND: NDArray[np.float64]) -> Any:
            neighbours = min(15, len(rows_ND) - 1)
            return umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(rows_ND)

    elif method == "tsne":
        from sklearn.manifold import TSNE

        def fit(rows_ND: NDArray[np.float64]) -> Any:
            perplexity = min(30.0, (len(rows_ND) - 1) / 3)
            return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows_ND)

    else:
        from sklearn.decomposition import PCA

        def fit(rows_ND: NDArray[np.float64]) -> Any:
            return PCA(min(2, *rows_ND.shape), svd_solver="full").fit_transform(rows_ND)

    def project(rows_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        if np.ptp(rows_ND, axis=0).max() == 0:  # one point
            return np.zeros((len(rows_ND), 2))
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # several threads would add in a different order each time
            found = np.asarray(fit(rows_ND), dtype=np.float64)
        map_N2 = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
        centred_N2: NDArray[np.float64] = map_N2 - map_N2.mean(0)
        return centred_N2

    return project


def turned(map_N2: NDArray[np.float64], like_N2: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """Rotate and reflect the map to fit `like_N2` (orthogonal Procrustes); for pca only change the signs of axes."""
    if method == "pca":
        signs_2 = np.where((map_N2 * like_N2).sum(0) < 0, -1.0, 1.0)
        return map_N2 * signs_2
    turn_22, _ = orthogonal_procrustes(map_N2, like_N2)
    turned_N2: NDArray[np.float64] = map_N2 @ turn_22
    return turned_N2


def write(run: Run, method: str, output: Path | None, **options: Any) -> int:
    """Write map.csv and figures/map.png and .pdf into the folder `output`; return the exit status."""
    folder = output or run.tables
    if folder.suffix in (".csv", ".npy", ".parquet", ".png", ".pdf"):
        raise ValueError(f"--output: got '{folder}'; with --project it must be a folder")
    with run_lock(folder, "--output"):
        claim(folder, {key: run.description[key] for key in ("name", "settings_sha256")})
        rows = compute(run, method, **options)
        note = not_shared_text(run.description["settings"])
        write_table(folder / TABLE, rows)
        paths = [folder / TABLE, *save(draw(rows), folder / "figures" / "map", note)]
    for path in paths:
        say(path)
    return 0
