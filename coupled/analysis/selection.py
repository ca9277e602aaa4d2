"""Select the arms, pairs and epochs of an analysis, and check that the run has them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from operator import index

from coupled.analysis.against import JointRun, common_epochs, same_arms
from coupled.analysis.driver import skipping
from coupled.analysis.run import Run
from coupled.config.by_name import did_you_mean
from coupled.config.command_line import parse_epochs
from coupled.storage.snapshots import BadSnapshotError, SnapshotStore

EVERY_PAIR = "all"  # of --compare; no arm has this name
Pair = tuple[str, str]  # reference, arm


@dataclass(frozen=True)
class Selection:
    """The selected arms and epochs. `pairs` and `reference` are empty if arms are not compared."""

    arms: list[str]  # without the reference
    epochs: list[int]
    reference: str = ""
    pairs: list[Pair] = field(default_factory=list)
    every_pair: bool = False
    against: str = ""  # the run whose arms are compared with the arms of the same name

    def __str__(self) -> str:
        """The text that a program prints."""
        if not self.reference:
            return ", ".join(self.arms)
        if self.against:
            return f"{', '.join(reference for reference, _ in self.pairs)} against the same arms of {self.against}"
        if self.every_pair:
            return f"every pair of {', '.join([self.reference, *self.arms])}"
        return f"{self.reference} against {', '.join(self.arms)}"


def select_arms(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    skip_corrupt: bool = False,
) -> Selection:
    """Select arms (default: all) and epochs (default: all that these arms have).

    Raises ValueError, which lists what exists.
    """
    chosen = named(run.snapshots, None if arms is None else listed(arms))
    return Selection(chosen, choose_epochs(run.snapshots, chosen, epochs, skip_corrupt))


def select_reference(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    epochs: Collection[int] | int | str | None = None,
    skip_corrupt: bool = False,
) -> Selection:
    """Select the pairs of the reference (default: that of the run) with each of `compare` (default: every other arm),
    at epochs that all of these arms have. Raises ValueError, which lists what exists.
    """
    reference = reference or run.reference
    arms = choose_arms(run.snapshots, reference, None if compare is None else listed(compare), skip_corrupt)
    chosen = choose_epochs(run.snapshots, [reference, *arms], epochs, skip_corrupt)
    return Selection(arms, chosen, reference, [(reference, arm) for arm in arms])


def select_pairs(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    epochs: Collection[int] | int | str | None = None,
    skip_corrupt: bool = False,
) -> Selection:
    """As `select_reference`; `compare="all"` selects every pair. With another run, arms of the same name are pairs."""
    every = compare is not None and listed(compare) == [EVERY_PAIR]
    if isinstance(run, JointRun):
        if every:
            raise ValueError(
                "--compare: got 'all', which compares every pair of arms; --against compares each arm with the arm of"
                " the same name in the other run; name arms, or leave --compare out for all arms that both runs have"
            )
        pairs = same_arms(run, None if compare is None else listed(compare), reference)
        first, *others = [arm for pair in pairs for arm in pair]
        wanted = common_epochs(run, pairs) if epochs is None else epochs
        chosen = choose_epochs(run.snapshots, [first, *others], wanted, skip_corrupt)
        return Selection(others, chosen, first, pairs, against=str(run.other.path))
    compare = None if every else compare
    found = select_reference(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    if not every:
        return found
    pairs = list(combinations([found.reference, *found.arms], 2))
    return Selection(found.arms, found.epochs, found.reference, pairs, every_pair=True)


def select_snapshot(run: Run, arm: str | None = None, epoch: int | None = None) -> tuple[str, int]:
    """Select an arm (default: the only one) and an epoch (default: the last). Raises ValueError with what exists."""
    arms = named(run.snapshots, None)
    if arm is None and len(arms) > 1:
        raise ValueError(f"--arm: missing; the run has the arms {', '.join(arms)}")
    arm = arms[0] if arm is None else arm
    if arm not in arms:
        raise ValueError(f"--arm: {no_arm(arm, arms)}")
    there = run.snapshots.epochs(arm)
    epoch = there[-1] if epoch is None else epoch
    if epoch not in there:
        raise ValueError(f"--epoch: arm '{arm}' has no snapshot of epoch {epoch} (epochs: {_spans(there)})")
    return arm, epoch


def check_labelled(run: Run, what: str) -> None:
    """Raise ValueError if the dataset of the run has no labels, which `what` needs."""
    if is_unlabelled(run):
        raise ValueError(f"{run.path}: the dataset of this run has no labels, which {what} needs")


def is_unlabelled(run: Run) -> bool:
    """Whether the dataset of the run has no labels."""
    return run.description["dataset"].get("classes") == []


def listed(values: Iterable[str] | str) -> list[str]:
    """One name or several as a list."""
    return [values] if isinstance(values, str) else list(values)


def choices(option: str, values: Iterable[str] | str, allowed: Collection[str]) -> list[str]:
    """The names without duplicates. Raises ValueError, which names the option, for a name that is not `allowed`."""
    names = list(dict.fromkeys(listed(values)))
    for name in names:
        if name not in allowed:
            raise ValueError(f"{option}: got '{name}'; allowed are {', '.join(allowed)}{did_you_mean(name, allowed)}")
    return names


def no_arm(arm: str, there: Sequence[str]) -> str:
    """The text about an unknown arm of a run, with the nearest and all known ones."""
    return f"the run has no arm '{arm}' (arms: {', '.join(there)}){did_you_mean(arm, there)}"


def named(store: SnapshotStore, arms: Sequence[str] | None) -> list[str]:
    """The arms to measure, without duplicates (default: all). Raises ValueError, which lists the arms of the run."""
    there = store.arms()
    if not there:
        raise ValueError(f"run_dir: '{store.folder.parent}' has no snapshots yet")
    for arm in arms or ():
        if arm not in there:
            raise ValueError(f"arms: {no_arm(arm, there)}")
    return list(dict.fromkeys(arms or there))


def choose_arms(
    store: SnapshotStore, reference: str, compare: Sequence[str] | None, skip_corrupt: bool = False
) -> list[str]:
    """The arms to compare, without duplicates (default: all but the reference). Raises ValueError.

    With `skip_corrupt` an unknown arm is reported and skipped, unless no arm is left.
    """
    there = store.arms()
    others = [arm for arm in there if arm != reference]
    if not there:
        raise ValueError(f"run_dir: '{store.folder.parent}' has no snapshots yet")
    if reference not in there:
        raise ValueError(f"reference: {no_arm(reference, there)}")
    for arm in compare or ():
        if arm == reference:
            raise ValueError(f"compare: '{arm}' is the reference (other arms: {', '.join(others) or 'none'})")
        if arm not in there:
            with skipping(skip_corrupt and any(each in others for each in compare or ())):
                raise BadSnapshotError(f"compare: {no_arm(arm, there)}")
    if not others:
        raise ValueError(f"compare: the run has no arm except '{reference}'; a comparison needs two arms")
    return [arm for arm in dict.fromkeys(compare or others) if arm in others]


def choose_epochs(
    store: SnapshotStore, arms: Sequence[str], wanted: Collection[int] | int | str | None, skip_corrupt: bool = False
) -> list[int]:
    """The `wanted` epochs in ascending order: numbers, or a text for `parse_epochs`.

    None selects all epochs up to the last one that every arm has, because a running training writes its arms one after
    the other. An epoch that some arm lacks raises ValueError; with `skip_corrupt` it is reported and skipped.
    """
    files = {(entry.arm, entry.epoch): store.folder / entry.file for entry in store.entries()}
    there = {arm: store.epochs(arm) for arm in arms}
    last = min(epochs[-1] for epochs in there.values())
    everything = {epoch for epochs in there.values() for epoch in epochs if epoch <= last}
    if isinstance(wanted, str):
        wanted = parse_epochs(wanted)
    elif not (wanted is None or isinstance(wanted, Iterable)):
        wanted = [wanted]
    good = []
    for epoch in sorted(everything if wanted is None else set(map(index, wanted))):
        with skipping(skip_corrupt):
            for arm, epochs in there.items():
                if epoch not in epochs:
                    raise BadSnapshotError(
                        f"epochs: arm '{arm}' has no snapshot of epoch {epoch} (epochs: {_spans(epochs)})"
                    )
                if not files[arm, epoch].is_file() and not skip_corrupt:  # else it is skipped when it is read
                    raise BadSnapshotError(
                        f"{files[arm, epoch]}: the manifest lists this snapshot, but the file is missing"
                    )
            good.append(epoch)
    return good


def _spans(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: 0-20, 30, 40."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
