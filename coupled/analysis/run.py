"""The class `Run`: the contents of a run folder, and the analysis programs as methods."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from coupled.analysis import run_classifiers, run_losses, run_measures, run_outputs
from coupled.analysis.run_folder import newest_run as newest_run
from coupled.analysis.run_folder import open_store as open_store
from coupled.analysis.run_folder import read_description as read_description
from coupled.config.code_of_settings import check_imported, import_of_run
from coupled.config.controls import USUAL_REFERENCE as USUAL_REFERENCE
from coupled.config.controls import usual_reference as usual_reference
from coupled.config.schema import Settings, from_resolved

if TYPE_CHECKING:  # the weight gap needs neither timm nor torchvision
    from torch import Tensor, nn

    from coupled.datasets import AnyImageDataset
    from coupled.models.network import Network

DIGITS = 16  # hexadecimal digits of a digest in a table


class Run:
    """A run folder: its settings, snapshots and images, and the results of the analysis programs as DataFrames.

    The methods return tables and change nothing in the folder; the programs of the command line write the tables.

    Args:
        path: the folder of the run, which holds run.json.
        allow_code: import the user-defined code that run.json names, if it is unchanged since training.

    Attributes:
        path: the folder.
        description: run.json as a dictionary; its settings include all defaults.
        snapshots: the store of the weights of every arm and epoch.
        tables: the folder in which the programs write their CSV files.

    Raises:
        ValueError: if the folder has no run.json, or run.json does not describe a run.

    Example:
        >>> run = Run("runs/tiny")
        >>> run
        Run('runs/tiny', arms: cl, nscl)
        >>> gaps = run.weight_gap(compare=["nscl"])
        >>> encoder = run.encoder("nscl", epoch=1)
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
        """The arm that the others are compared with: `cl`, or the first arm in a run without `cl`."""
        return usual_reference(self.arms)

    def epochs(self, arms: Sequence[str] | None = None) -> list[int]:
        """Return the epochs at which all of the arms have a snapshot.

        Args:
            arms: names of arms (default: every arm of the run).

        Returns:
            Numbers of epochs, ascending; empty if there is none.

        Raises:
            ValueError: if the list of the snapshots is damaged.

        Example:
            >>> run.epochs()
            [0, 1]
        """
        there = [set(self.snapshots.epochs(arm)) for arm in (self.arms if arms is None else arms)]
        return sorted(set.intersection(*there)) if there else []

    def snapshot_digests(self) -> dict[tuple[str, int], str]:
        """Return the digest of each snapshot, as it appears in the tables.

        Returns:
            The first 16 hexadecimal digits of the blake2b digest of the file, by (arm, epoch).

        Raises:
            ValueError: if the list of the snapshots is damaged.

        Example:
            >>> sorted(run.snapshot_digests())
            [('cl', 0), ('cl', 1), ('nscl', 0), ('nscl', 1)]
        """
        return {(entry.arm, entry.epoch): entry.digest[:DIGITS] for entry in self.snapshots.entries()}

    def state_dict(self, arm: str, epoch: int) -> "dict[str, Tensor]":
        """Return all tensors of a snapshot.

        Args:
            arm: name of the arm.
            epoch: number of epochs trained; 0 is the shared initialisation.

        Returns:
            Tensors on the CPU by name: `encoder.*`, `projector.*` and those of the heads.

        Raises:
            ValueError: if there is no such snapshot, or its digest differs from the one in the manifest.

        Example:
            >>> run.state_dict("cl", epoch=0)["encoder.conv1.weight"].shape
            torch.Size([4, 3, 3, 3])
        """
        return self.snapshots.read(arm, epoch)

    def network(self, arm: str, epoch: int) -> "Network":
        """Return encoder and projector of `arm` after `epoch` epochs, on the CPU in evaluation mode.

        Args:
            arm: name of the arm.
            epoch: number of epochs trained; 0 is the shared initialisation.

        Returns:
            A module that maps views [V, B, 3, S, S] to {"embedding": [V, B, D], "projection": [V, B, P]}.

        Raises:
            ValueError: if there is no such snapshot, or it is damaged or does not fit the settings of the run.

        Example:
            >>> import torch
            >>> outputs = run.network("cl", epoch=1)(torch.zeros(2, 5, 3, 8, 8))
            >>> outputs["embedding"].shape, outputs["projection"].shape
            (torch.Size([2, 5, 32]), torch.Size([2, 5, 16]))
        """
        from coupled.analysis.representations.embeddings import load_weights, network_of

        tensors = self.state_dict(arm, epoch)
        network = network_of(self, arm)
        load_weights(network, tensors, str(self.snapshots.path(arm, epoch)))
        return network.eval()

    def encoder(self, arm: str, epoch: int) -> "nn.Module":
        """Return the encoder of `arm` after `epoch` epochs: a timm model on the CPU in evaluation mode.

        Args:
            arm: name of the arm.
            epoch: number of epochs trained; 0 is the shared initialisation.

        Returns:
            A module that maps images [B, 3, S, S], normalised with the `mean` and `std` of `images`, to embeddings
            [B, D].

        Raises:
            ValueError: as `network`.

        Example:
            >>> import torch
            >>> run.encoder("nscl", epoch=1)(torch.zeros(5, 3, 8, 8)).shape
            torch.Size([5, 32])
        """
        encoder: nn.Module = self.network(arm, epoch).encoder
        return encoder

    def images(self, split: str, accept_changed_images: bool = False) -> "AnyImageDataset":
        """Return the images of "train" or "test", checked against the digest in run.json.

        Args:
            split: "train" or "test".
            accept_changed_images: accept images that have changed since training, if their classes are the same; a
                warning is printed on stderr.

        Returns:
            A dataset with `labels_N`, `class_names`, `mean` and `std`.

        Raises:
            ValueError: if the images are missing or are not those of the run.

        Example:
            >>> images = run.images("test")
            >>> len(images.labels_N), images.class_names[:3]
            (357, ('0', '1', '2'))
        """
        from coupled.analysis.representations.embeddings import load_images

        return load_images(self.settings, split, self.description["dataset"], self.path, accept_changed_images)

    weight_gap = run_measures.weight_gap
    alignment = run_measures.alignment
    quality = run_measures.quality
    linear_evaluation = run_classifiers.linear_evaluation
    pretext = run_classifiers.pretext
    calibration = run_classifiers.calibration
    robustness = run_classifiers.robustness
    collapse = run_measures.collapse
    losses = run_measures.losses
    bounds = run_measures.bounds
    merge = run_measures.merge
    barrier = run_losses.barrier
    gradients = run_losses.gradients
    verify = run_measures.verify
    embed = run_outputs.embed
    project = run_outputs.project
    export = run_outputs.export


def open_run(path: Path | str | None = None, allow_code: bool = False) -> Run:
    """Return the run in a folder, or the newest run under runs/.

    Args:
        path: the folder (default: the one under runs/ whose run.json was written last).
        allow_code: import the user-defined code that run.json names, if it is unchanged since training.

    Returns:
        The run. Nothing in its folder is changed.

    Raises:
        ValueError: if there is no such run, or its run.json does not describe a run.

    Example:
        >>> run = open_run("runs/tiny")
        >>> run.arms, run.epochs()
        (['cl', 'nscl'], [0, 1])
    """
    return Run(newest_run(Path("runs")) if path is None else path, allow_code)
