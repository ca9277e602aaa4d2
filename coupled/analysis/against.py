"""Two runs as one: `--against` compares each arm of a run with the arm of the same name in another run.

The arms of the other run are called `<folder>:<arm>`, which no arm of a run can be called, so that their rows cannot be
taken for rows of one run. They have tables of their own, in `analysis/against/<folder>` of the first run.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupled.analysis.run import Run
from coupled.storage.snapshots import Entry, SnapshotStore

if TYPE_CHECKING:
    from coupled.datasets import AnyImageDataset


class JointSnapshots(SnapshotStore):
    """The snapshots of two runs as one store; the arms of the second have `label` and a colon before their name."""

    def __init__(self, own: SnapshotStore, other: SnapshotStore, label: str) -> None:
        super().__init__(own.folder)
        self.own, self.other, self.label = own, other, label

    def entries(self) -> list[Entry]:
        """Those of both runs; the files of the second are absolute."""
        folder = self.other.folder.absolute()
        theirs = (replace(e, arm=f"{self.label}:{e.arm}", file=str(folder / e.file)) for e in self.other.entries())
        return [*self.own.entries(), *theirs]

    @contextmanager
    def open(self, arm: str, epoch: int) -> Iterator[Any]:
        """As `SnapshotStore.open`, of the run that the arm is of."""
        label, _, name = arm.rpartition(":")
        with (self.other if label else self.own).open(name, epoch) as handle:
            yield handle


class JointRun(Run):
    """A run beside another one; its images, which must be those of both, and its settings are those of the first."""

    snapshots: JointSnapshots

    def __init__(self, run: Run, other: Run) -> None:
        super().__init__(run.path)
        self.own, self.other, self.label = run, other, other.path.resolve().name
        self.snapshots = JointSnapshots(run.snapshots, other.snapshots, self.label)
        self.tables = self.tables / "against" / self.label

    def images(self, split: str, accept_changed_images: bool = False) -> "AnyImageDataset":
        """As `Run.images`. Raises ValueError if the two runs have not the same images, at the same size."""
        for key in (f"{split}_digest", "image_size"):
            one, other = (
                each.settings.image_size if key == "image_size" else each.description["dataset"].get(key)
                for each in (self, self.other)
            )
            if one != other:
                what = "image_size" if key == "image_size" else f"digest of the {split} images"
                raise ValueError(
                    f"--against: '{self.path}' and '{self.other.path}' see other images: {what} {one} and {other};"
                    " representations can only be compared of the same images"
                )
        return super().images(split, accept_changed_images)


def joined(run: Run, against: "Run | Path | str | None", allow_code: bool = False) -> Run:
    """The run beside another one, or the run itself for None. Raises ValueError if there is no such run.

    With `allow_code` the code that run.json of the other run names is imported, as by `open_run`.
    """
    if against is None:
        return run
    return JointRun(run, against if isinstance(against, Run) else other_run(against, allow_code))


def other_run(path: "Path | str", allow_code: bool = False) -> Run:
    """The run that `--against` names. Raises ValueError, which names this option, if the folder is none."""
    try:
        return Run(path, allow_code)
    except ValueError as error:
        raise ValueError(f"against: {str(error).removeprefix('run_dir: ')}") from None


def run_of(run: Run, arm: str) -> Run:
    """The run that an arm is of."""
    return run.other if isinstance(run, JointRun) and ":" in arm else run


def identity(run: Run) -> dict[str, Any]:
    """What tables of this run say that they are of."""
    about = {key: run.description[key] for key in ("name", "settings_sha256")}
    return {**about, "against": identity(run.other)} if isinstance(run, JointRun) else about


def same_arms(run: JointRun, compare: Sequence[str] | None, reference: str | None) -> list[tuple[str, str]]:
    """Each of `compare` (default: every arm that both runs have) with the same arm of the other run."""
    own, theirs = run.own.arms, run.other.arms
    if reference is not None:
        raise ValueError(
            f"--reference: got '{reference}'; with --against the reference of each arm is the arm of the same name:"
            " leave it out"
        )
    for arm in compare or ():
        for path, there in ((run.path, own), (run.other.path, theirs)):
            if arm not in there:
                raise ValueError(f"--compare: '{path}' has no arm '{arm}' (arms: {', '.join(there) or 'none'})")
    both = [arm for arm in own if arm in (theirs if compare is None else compare)]
    if not both:
        raise ValueError(
            f"--against: no arm of '{run.other.path}' ({', '.join(theirs) or 'none'}) has the name of one of"
            f" '{run.path}' ({', '.join(own) or 'none'})"
        )
    return [(arm, f"{run.label}:{arm}") for arm in both]


def common_epochs(run: JointRun, pairs: Collection[tuple[str, str]]) -> list[int]:
    """The epochs of which all arms of the pairs have a snapshot. Raises ValueError if there is none."""
    epochs = run.epochs([arm for pair in pairs for arm in pair])
    if not epochs:
        raise ValueError(f"--against: '{run.path}' and '{run.other.path}' have no snapshots of the same epoch")
    return epochs
