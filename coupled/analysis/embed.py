"""Write the embeddings of images by one arm, one row per image. `--project` writes two-dimensional maps instead (see
representations/maps.py).

Layer h is the embedding, z the projection. Images are clean views, normalised with mean and std of the run's train
images; the network is in evaluation mode. The rows of h equal `run.encoder(arm, epoch)` applied to these views. They
are ordered by split, then as in the dataset; images of a folder are ordered by path.
Shape letters: N images, D width of the layer.
"""

import io
import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coupled.analysis import output_parsers
from coupled.analysis.driver import run_program
from coupled.analysis.representations import maps
from coupled.analysis.representations.embeddings import Embedder, choose_device
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.representations.other_images import embedded, images_by_split, images_name, normalisation
from coupled.analysis.run import Run, open_run
from coupled.analysis.selection import choices, select_snapshot
from coupled.analysis.tidy_csv import write_table
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import write_durably
from coupled.stream.seeds import determinism

SUFFIXES = (".parquet", ".npy", ".csv")
ONE, SEVERAL = ("arm", "epoch"), ("arms", "epochs")  # options without and with --project


class Embeddings(NamedTuple):
    """Embeddings, float32 [N, D], and a table of their images: split, image (index in the split), file and label."""

    rows_ND: NDArray[np.float32]
    images: pd.DataFrame


def compute(
    run: Run,
    arm: str | None = None,
    *,
    epoch: int | None = None,
    layer: str = "h",
    images: str | Path | Callable[..., Any] | None = None,
    dataset_root: Path | str | None = None,
    split: Sequence[str] | str | None = None,
    num_images: int | None = None,
    device: str = "auto",
    accept_changed_images: bool = False,
) -> Embeddings:
    """Return the embeddings of images by one arm.

    Args:
        run: the run.
        arm: the arm (default: the run's only arm).
        epoch: number of epochs trained (default: the last that has a snapshot).
        layer: "h" (embedding) or "z" (projection).
        images: a dataset by name, the path of a folder of images, or a function that returns a dataset (default: the
            run's images).
        dataset_root: folder that holds the files of that dataset.
        split: "train", "test" or both (default: both, or all images of a folder that has no splits).
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        accept_changed_images: embed the run's images although they have changed since training.

    Returns:
        The rows [N, D] in a stable order, and a DataFrame of the same length with split, image, file and label. File
        and label are missing where they are unknown.

    Raises:
        ValueError: for an unknown arm, epoch, layer, split or dataset, or a damaged snapshot or image.

    Example:
        >>> rows, about = compute(run, "nscl", split="test", num_images=100)
        >>> rows.shape, list(about.columns)
        ((100, 32), ['split', 'image', 'file', 'label'])
    """
    arm, epoch = select_snapshot(run, arm, epoch)
    (layer,) = choices("layer", layer, OUTPUTS)
    root, name = None if dataset_root is None else Path(dataset_root), images_name(images, "images")
    by_split = images_by_split(run, name, root, split, accept_changed_images)
    embedder = Embedder(run, choose_device(device))
    with determinism(True, None):
        rows, about = embedded(embedder, by_split, num_images, [arm], epoch, layer, show_progress=True)
    return Embeddings(rows[arm].numpy(), about)


def write(path: Path, found: Embeddings, layer: str, about: dict[str, Any]) -> list[Path]:
    """Write the embeddings in the format of the suffix of `path`; return the paths of the files.

    CSV has one column per dimension, such as h_0. Parquet has one column `embedding` of lists, and `about` in the
    metadata of the table. .npy holds only the array; a CSV beside it lists the images. Raises ValueError for another
    suffix and for Parquet without pyarrow.
    """
    check_suffix(path)
    if path.suffix == ".npy":
        data = io.BytesIO()
        np.save(data, found.rows_ND)
        beside = path.with_suffix(".images.csv")
        write_durably(path, data.getvalue())
        write_table(beside, found.images)
        return [path, beside]
    if path.suffix == ".csv":
        columns = [f"{layer}_{dimension}" for dimension in range(found.rows_ND.shape[1])]
        rows = pd.DataFrame(found.rows_ND, columns=columns)
        write_table(path, pd.concat([found.images, rows], axis=1))
    else:
        write_durably(path, _parquet(found, about))
    return [path]


def check_suffix(path: Path) -> None:
    """Raise ValueError for a file that cannot be written: unknown suffix, or Parquet without pyarrow."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--output: got '{path}'; it must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        _pyarrow()


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError("--output: .parquet needs pyarrow: pip install pyarrow; or write .npy or .csv") from None
    return pyarrow


def _parquet(found: Embeddings, about: dict[str, Any]) -> bytes:
    pyarrow = _pyarrow()
    table = pyarrow.Table.from_pandas(found.images, preserve_index=False)
    flat = pyarrow.array(found.rows_ND.reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(flat, found.rows_ND.shape[1])
    table = table.append_column("embedding", rows)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), "coupled": json.dumps(about)})
    data = io.BytesIO()
    pyarrow.parquet.write_table(table, data)
    return data.getvalue()


def embed(options: Namespace) -> int:
    """Write the embeddings or the maps; return the exit status."""
    run = open_run(options.run, options.allow_code)
    names = ("layer", "images", "dataset_root", "split", "num_images", "device", "accept_changed_images")
    shared = {name: getattr(options, name) for name in names}
    newest = "" if options.run else " (the newest under runs/)"
    if options.project:
        say(f"run {run.path}{newest}: {options.project} of {options.layer}")
        return maps.write(run, options.project, options.output, arms=options.arms, epochs=options.epochs, **shared)
    if options.output is None:
        raise ValueError(f"--output: missing; give a file that ends in {', '.join(SUFFIXES)}")
    check_suffix(options.output)
    arm, epoch = select_snapshot(run, options.arm, options.epoch)
    say(f"run {run.path}{newest}: {arm}, epoch {epoch}")
    found = compute(run, arm, epoch=epoch, **shared)
    mean, std = normalisation(run)
    about = {"run": run.name, "arm": arm, "epoch": epoch, "layer": options.layer, "mean": mean, "std": std}
    paths = write(options.output, found, options.layer, about)
    say(f"{' and '.join(map(str, paths))}: {len(found.rows_ND)} images, {found.rows_ND.shape[1]} dimensions")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = output_parsers.embed()

    def program(options: Namespace) -> int:
        idle = sorted(parser.given & {*(ONE if options.project else SEVERAL)})
        if idle:
            instead = dict(zip((*ONE, *SEVERAL), (*SEVERAL, *ONE), strict=True))[idle[0]]
            use = "with" if options.project else "without"
            raise ValueError(f"--{idle[0]}: not used {use} --project; use --{instead}")
        return embed(options)

    return run_program(program, parser, arguments)
