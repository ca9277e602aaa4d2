"""A run as an object: what its folder holds, and what the analysis programs say of it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupled.analysis import run_outputs
from coupled.config.code_of_settings import check_imported, import_of_run
from coupled.config.controls import USUAL_REFERENCE as USUAL_REFERENCE
from coupled.config.controls import random_sources
from coupled.config.controls import usual_reference as usual_reference
from coupled.config.schema import Settings, from_resolved
from coupled.storage.run_description import read_run_json
from coupled.storage.snapshots import SnapshotStore

if TYPE_CHECKING:  # the weight gap is read on machines without timm, torchvision and images
    import pandas as pd
    from torch import Tensor, nn

    from coupled.datasets import AnyImageDataset
    from coupled.models.network import Network

DIGITS = 16  # of a digest, as tables hold it


class Run:
    """A run folder: its settings, snapshots and images, and the measures of the analysis programs as DataFrames.

    Nothing in the folder is changed: the programs of the command line write tables, the methods here return them.

    Args:
        path: the folder of the run, which holds run.json.
        allow_code: import the user's code that run.json names, if it is what the run was trained with.

    Attributes:
        path: the folder.
        description: run.json as a dictionary, its settings with their defaults written out.
        snapshots: the store of the weights of every arm and epoch.
        tables: the folder in which the programs write their CSV files.

    Raises:
        ValueError: if the folder has no run.json, or one that is not the description of a run.

    Example:
        >>> run = coupled.open_run("runs/demo")  # doctest: +SKIP
        >>> run.weight_gap(compare=["nscl"], epochs=[0, 10]).query("aggregate == 'global'")  # doctest: +SKIP
        >>> encoder = run.encoder("nscl", epoch=10)  # doctest: +SKIP
    """

    def __init__(self, path: Path | str, allow_code: bool = False) -> None:
        self.path = Path(path)
        self.description = read_description(self.path)
        if allow_code:
            import_of_run(self.description["settings"], self.description.get("code_files") or {})
        self.snapshots = open_store(self.path, self.description)
        self.tables = self.path / "analysis"

    def __repr__(self) -> str:
        return f"Run('{self.path}', arms: {', '.join(self.arms) or 'none yet'})"

    @property
    def name(self) -> str:
        """The name of the run in its settings."""
        return str(self.description["name"])

    @cached_property
    def settings(self) -> Settings:
        """The resolved settings of the run."""
        settings = from_resolved(self.description["settings"], "run.json")
        check_imported(settings.code)
        return settings

    @property
    def arms(self) -> list[str]:
        """The arms that have a snapshot, in the order of the run."""
        return self.snapshots.arms()

    @property
    def reference(self) -> str:
        """The arm that others are compared with: `cl`, or the first arm of a run without it."""
        return usual_reference(self.arms)

    def epochs(self, arms: Sequence[str] | None = None) -> list[int]:
        """The epochs of which all of `arms` (default: every arm of the run) have a snapshot, ascending."""
        there = [set(self.snapshots.epochs(arm)) for arm in (self.arms if arms is None else arms)]
        return sorted(set.intersection(*there)) if there else []

    def snapshot_digests(self) -> dict[tuple[str, int], str]:
        """The digest of each snapshot by (arm, epoch), as the tables hold it."""
        return {(entry.arm, entry.epoch): entry.digest[:DIGITS] for entry in self.snapshots.entries()}

    def state_dict(self, arm: str, epoch: int) -> "dict[str, Tensor]":
        """All tensors of a snapshot by name, its digest checked. Raises ValueError if it is missing or damaged."""
        return self.snapshots.read(arm, epoch)

    def network(self, arm: str, epoch: int) -> "Network":
        """Encoder and projector of `arm` after `epoch` epochs, on the CPU in evaluation mode.

        Args:
            arm: name of the arm.
            epoch: number of epochs trained; 0 is the shared initialisation.

        Returns:
            A module that maps views [V, B, 3, S, S] to {"embedding": [V, B, D], "projection": [V, B, P]}.

        Raises:
            ValueError: if there is no such snapshot, or it is damaged or does not fit the settings of the run.
        """
        from coupled.analysis.representations.embeddings import load_weights, network_of

        tensors = self.state_dict(arm, epoch)
        network = network_of(self)
        load_weights(network, tensors, str(self.snapshots.path(arm, epoch)))
        return network.eval()

    def encoder(self, arm: str, epoch: int) -> "nn.Module":
        """The encoder of `arm` after `epoch` epochs: a timm model on the CPU in evaluation mode.

        It maps images [B, 3, S, S], normalised with the `mean` and `std` of `images`, to embeddings [B, D]. Arguments
        and errors as of `network`.
        """
        encoder: nn.Module = self.network(arm, epoch).encoder
        return encoder

    def images(self, split: str, accept_changed_images: bool = False) -> "AnyImageDataset":
        """The images of "train" or "test", checked against the digest in run.json.

        Args:
            split: "train" or "test".
            accept_changed_images: take images of the same classes although they are not those of the run; said on
                stderr.

        Returns:
            A dataset with `labels_N`, `class_names`, `mean` and `std`.

        Raises:
            ValueError: if the images are not there, or not those of the run.
        """
        from coupled.analysis.representations.embeddings import load_images

        return load_images(self.settings, split, self.description["dataset"], self.path, accept_changed_images)

    def weight_gap(self, **options: Any) -> "pd.DataFrame":
        """Distances between the arms' weights: the rows of weight_gap.csv.

        Options, errors and an example: `coupled.analysis.weight_gap.compute`.
        """
        from coupled.analysis.weight_gap import compute

        return compute(self, **options)

    def alignment(self, **options: Any) -> "pd.DataFrame":
        """Similarity of the arms' representations: the rows of train_alignment.csv and test_alignment.csv.

        Options, errors and an example: `coupled.analysis.alignment.compute`.
        """
        from coupled.analysis.alignment import compute

        return compute(self, **options)

    def quality(self, **options: Any) -> "pd.DataFrame":
        """How good each arm's representation is by itself: the rows of quality.csv.

        Options, errors and an example: `coupled.analysis.quality.compute`.
        """
        from coupled.analysis.quality import compute

        return compute(self, **options)

    def collapse(self, **options: Any) -> "pd.DataFrame":
        """Spread, spectra and collapse of each arm's representation: the rows of collapse.csv.

        Options, errors and an example: `coupled.analysis.collapse.compute`.
        """
        from coupled.analysis.collapse import compute

        return compute(self, **options)

    def losses(self, **options: Any) -> "pd.DataFrame":
        """Every arm under every contrastive loss: the rows of losses.csv.

        Options, errors and an example: `coupled.analysis.losses.compute`.
        """
        from coupled.analysis.losses import compute

        return compute(self, **options)

    def bounds(self, **options: Any) -> "pd.DataFrame":
        """The papers' bounds beside what was measured: the rows of bounds.csv.

        Options, errors and an example: `coupled.analysis.bounds.compute`.
        """
        from coupled.analysis.bounds import compute

        return compute(self, **options)

    embed = run_outputs.embed
    project = run_outputs.project
    export = run_outputs.export

    def verify(self) -> list[str]:
        """What is wrong with the folder, a line each; empty if it is whole and its images can be read."""
        from coupled.analysis import verify

        return verify.compute(self)


def open_run(path: Path | str | None = None, allow_code: bool = False) -> Run:
    """The run in the folder `path`; without it the one under runs/ whose run.json was written last.

    Raises:
        ValueError: if there is no such run, or its run.json is not the description of a run.

    Example:
        >>> run = open_run("runs/demo")  # doctest: +SKIP
        >>> run.arms, run.epochs()  # doctest: +SKIP
        (['cl', 'nscl'], [0, 1, 2])
    """
    return Run(newest_run(Path("runs")) if path is None else path, allow_code)


def newest_run(folder: Path) -> Path:
    """The run in `folder` whose run.json was written last. Raises ValueError if there is none."""
    runs = sorted((path.stat().st_mtime_ns, path.parent) for path in folder.glob("*/run.json"))
    if not runs:
        raise ValueError(f"run_dir: not given, and there is no run under '{folder.resolve()}'; pass a run folder")
    return runs[-1][1]


def read_description(run: Path) -> dict[str, Any]:
    """run.json, checked, its settings with their defaults written out. Raises ValueError of one line."""
    path = run / "run.json"
    if not path.is_file():
        raise ValueError(f"run_dir: '{run}' is no run folder: it has no run.json")
    description = read_run_json(run)
    for key in sorted({"name", "settings", "settings_sha256", "dataset"} - set(description)):
        raise ValueError(f"{path}: not the description of a run: it has no key '{key}'")
    try:
        settings = from_resolved(description["settings"], "settings").resolved()
        random_sources(settings["arms"])  # refuses the twin of no arm
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {**description, "settings": settings}


def open_store(run: Path, about: Mapping[str, Any]) -> SnapshotStore:
    """The snapshots of the run, each held against its description when it is opened."""
    return SnapshotStore(run / "snapshots", {"run": about["name"], "settings_sha256": about["settings_sha256"]})
