"""The option `--against`: compare each arm of a run with the arm of the same name in another run.

The arms of the other run are called `<folder>:<arm>`. No arm can have a colon in its name, so the rows cannot be
confused with those of a single run. Their tables are in `analysis/against/<folder>` of the first run.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupled.analysis.run import Run
from coupled.config.by_name import did_you_mean
from coupled.storage.snapshots import Entry, SnapshotStore

if TYPE_CHECKING:
    from coupled.datasets import AnyImageDataset


class JointSnapshots(SnapshotStore):
    """The snapshots of two runs as one store; the arms of the second run are called `<label>:<arm>`."""

    def __init__(self, own: SnapshotStore, other: SnapshotStore, label: str) -> None:
        super().__init__(own.folder)
        self.own, self.other, self.label = own, other, label

    def entries(self) -> list[Entry]:
        """The entries of both runs; the files of the second run are absolute paths."""
        folder = self.other.folder.absolute()
        theirs = (replace(e, arm=f"{self.label}:{e.arm}", file=str(folder / e.file)) for e in self.other.entries())
        return [*self.own.entries(), *theirs]

    def check(self, arm: str, epoch: int) -> None:
        """Check a snapshot as `SnapshotStore.check` does, in the run of the arm."""
        store, name = self._of(arm)
        store.check(name, epoch)

    @contextmanager
    def open(self, arm: str, epoch: int) -> Iterator[Any]:
        """Open a snapshot as `SnapshotStore.open` does, in the run of the arm."""
        store, name = self._of(arm)
        with store.open(name, epoch) as handle:
            yield handle

    def _of(self, arm: str) -> tuple[SnapshotStore, str]:
        label, _, name = arm.rpartition(":")
        return self.other if label else self.own, name


class JointRun(Run):
    """Two runs as one; settings and images are those of the first. The images of both runs must be the same."""

    snapshots: JointSnapshots

    def __init__(self, run: Run, other: Run) -> None:
        super().__init__(run.path)
        self.own, self.other, self.label = run, other, other.path.resolve().name
        self.snapshots = JointSnapshots(run.snapshots, other.snapshots, self.label)
        self.tables = self.tables / "against" / self.label

    def images(self, split: str, accept_changed_images: bool = False) -> "AnyImageDataset":
        """As `Run.images`. Raises ValueError if the two runs differ in their images or the image size."""
        for key in (f"{split}_digest", "image_size"):
            one, other = (
                each.settings.image_size if key == "image_size" else each.description["dataset"].get(key)
                for each in (self, self.other)
            )
            if one != other:
                what = "image_size" if key == "image_size" else f"digest of the {split} images"
                raise ValueError(
                    f"--against: '{self.path}' and '{self.other.path}' have different images: {what} {one} and {other};"
                    " representations can be compared only on the same images"
                )
        return super().images(split, accept_changed_images)


def joined(run: Run, against: "Run | Path | str | None", allow_code: bool = False) -> Run:
    """The run joined with another one, or the run itself for None. Raises ValueError if there is no such run.

    With `allow_code` the user-defined code named in run.json of the other run is imported, as by `open_run`.
    """
    if against is None:
        return run
    return JointRun(run, against if isinstance(against, Run) else other_run(against, allow_code))


def other_run(path: "Path | str", allow_code: bool = False) -> Run:
    """The run in the folder of `--against`. Raises ValueError, which names this option, if it is not a run folder."""
    try:
        return Run(path, allow_code)
    except ValueError as error:
        raise ValueError(f"against: {str(error).removeprefix('run_dir: ')}") from None


def run_of(run: Run, arm: str) -> Run:
    """The run to which an arm belongs."""
    return run.other if isinstance(run, JointRun) and ":" in arm else run


def own_name(arm: str) -> str:
    """The name of an arm in its run, without the label of the run."""
    return arm.rpartition(":")[2]


def identity(run: Run) -> dict[str, Any]:
    """The entries of source.json: the name and settings of the run whose rows a folder holds."""
    about = {key: run.description[key] for key in ("name", "settings_sha256")}
    return {**about, "against": identity(run.other)} if isinstance(run, JointRun) else about


def same_arms(run: JointRun, compare: Sequence[str] | None, reference: str | None) -> list[tuple[str, str]]:
    """Each of `compare` (default: every arm that both runs have) with the same arm of the other run."""
    own, theirs = run.own.arms, run.other.arms
    if reference is not None:
        raise ValueError(
            f"--reference: got '{reference}'; with --against the reference of each arm is the arm of the same name;"
            " leave this option out"
        )
    for arm in compare or ():
        for path, there in ((run.path, own), (run.other.path, theirs)):
            if arm not in there:
                near = "" if arm in {*own, *theirs} else did_you_mean(arm, there)
                raise ValueError(f"--compare: '{path}' has no arm '{arm}' (arms: {', '.join(there) or 'none'}){near}")
    both = [arm for arm in own if arm in (theirs if compare is None else compare)]
    if not both:
        raise ValueError(
            f"--against: '{run.path}' (arms: {', '.join(own) or 'none'}) and '{run.other.path}' (arms:"
            f" {', '.join(theirs) or 'none'}) have no arm of the same name"
        )
    return [(arm, f"{run.label}:{arm}") for arm in both]


def common_epochs(run: JointRun, pairs: Collection[tuple[str, str]]) -> list[int]:
    """The epochs at which all arms of the pairs have a snapshot. Raises ValueError if there is none."""
    epochs = run.epochs([arm for pair in pairs for arm in pair])
    if not epochs:
        raise ValueError(f"--against: '{run.path}' and '{run.other.path}' have no snapshots of the same epoch")
    return epochs
