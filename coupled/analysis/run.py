"""Run folders: which run, arms and epochs a program is about, and the folder of tables, which one program holds."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from coupled.analysis.driver import skipping
from coupled.config.command_line import parse_epochs
from coupled.config.controls import draws
from coupled.config.schema import from_resolved
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import write_durably
from coupled.storage.run_description import read_run_json
from coupled.storage.run_lock import run_lock
from coupled.storage.snapshots import BadSnapshotError, SnapshotStore

DIGITS = 16  # of a digest, as tables hold it
USUAL_REFERENCE = "cl"


@dataclass(frozen=True)
class Selection:
    """What to look at: `arms`, compared with `reference` if there is one, at `epochs`; CSVs go to `output`."""

    description: dict[str, Any]  # run.json
    store: SnapshotStore
    reference: str
    arms: list[str]
    epochs: list[int]
    output: Path


def select(options: Namespace, writes: bool = True) -> Selection:
    """The choices of the command line, checked against the run; says which run it is. The program that `writes` holds
    the output folder until it ends.

    Raises ValueError that names the option and lists what exists: no run, unknown arm, missing epoch, and an output
    folder that belongs to another run or that another program holds.
    """
    run = options.run or newest_run(Path("runs"))
    description = read_description(run)
    store = open_store(run, description)
    compares = hasattr(options, "reference")
    reference = (options.reference or usual_reference(store.arms())) if compares else ""
    arms = choose_arms(store, reference, options.compare, options.skip_bad) if compares else named(store, options.arms)
    epochs = choose_epochs(store, [*filter(None, [reference]), *arms], options.epochs, options.skip_bad)
    pairs = getattr(options, "every_pair", False)
    against = "every pair of " if pairs else f"{reference} against " if reference else ""
    shown = ", ".join([reference, *arms] if pairs else arms)
    say(f"run {run}{'' if options.run else ' (the newest under runs/)'}: {against}{shown}")
    output = options.output or run / "analysis"
    if writes:
        options.until_it_ends.enter_context(run_lock(output, "--output"))
    claim(output, {key: description[key] for key in ("name", "settings_sha256")})
    return Selection(description, store, reference, arms, epochs, output)


def named(store: SnapshotStore, arms: Sequence[str] | None) -> list[str]:
    """The arms to measure, each once; all without `arms`. Raises ValueError that lists the arms there are."""
    there = store.arms()
    if not there:
        raise ValueError(f"--run-dir: '{store.folder.parent}' has no snapshots yet")
    for arm in arms or ():
        if arm not in there:
            raise ValueError(f"--arms: the run has no arm '{arm}' (arms: {', '.join(there)})")
    return list(dict.fromkeys(arms or there))


def usual_reference(arms: Sequence[str]) -> str:
    """The reference of a run where none is asked for: `cl`, or the first arm if there is none."""
    return USUAL_REFERENCE if USUAL_REFERENCE in arms else next(iter(arms), USUAL_REFERENCE)


def select_pairs(options: Namespace, writes: bool = True) -> tuple[Selection, list[tuple[str, str]]]:
    """The choices, and the pairs to compare: each arm with the reference, or of `--compare all` every pair."""
    every = options.compare == ["all"]  # settings.py lets no arm have this name
    changed = {"compare": None if every else options.compare, "every_pair": every}
    chosen = select(Namespace(**{**vars(options), **changed}), writes)
    if every:
        return chosen, list(combinations([chosen.reference, *chosen.arms], 2))
    return chosen, [(chosen.reference, arm) for arm in chosen.arms]


def newest_run(folder: Path) -> Path:
    """The run in `folder` whose run.json was written last. Raises ValueError if there is none."""
    runs = sorted((path.stat().st_mtime_ns, path.parent) for path in folder.glob("*/run.json"))
    if not runs:
        raise ValueError(f"--run-dir: not given, and there is no run under '{folder.resolve()}'; pass a run folder")
    return runs[-1][1]


def read_description(run: Path) -> dict[str, Any]:
    """run.json, checked, its settings with their defaults written out. Raises ValueError of one line."""
    path = run / "run.json"
    if not path.is_file():
        raise ValueError(f"--run-dir: '{run}' is no run folder: it has no run.json")
    description = read_run_json(run)
    for key in sorted({"name", "settings", "settings_sha256", "dataset"} - set(description)):
        raise ValueError(f"{path}: not the description of a run: it has no key '{key}'")
    try:
        settings = from_resolved(description["settings"], "settings").resolved()
        draws(settings["arms"])  # refuses the twin of no arm
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {**description, "settings": settings}


def open_store(run: Path, about: Mapping[str, Any]) -> SnapshotStore:
    """The snapshots of the run, each held against its description when it is opened."""
    return SnapshotStore(run / "snapshots", {"run": about["name"], "settings_sha256": about["settings_sha256"]})


def choose_arms(
    store: SnapshotStore, reference: str, compare: Sequence[str] | None, skip_bad: bool = False
) -> list[str]:
    """The arms to compare, each once; without `compare` all but the reference. Raises ValueError.

    With `skip_bad` an arm that is not there is said and passed over, unless none is left.
    """
    there = store.arms()
    others = [arm for arm in there if arm != reference]
    if not there:
        raise ValueError(f"--run-dir: '{store.folder.parent}' has no snapshots yet")
    if reference not in there:
        raise ValueError(f"--reference: the run has no arm '{reference}' (arms: {', '.join(there)})")
    for arm in compare or ():
        if arm == reference:
            raise ValueError(f"--compare: '{arm}' is the reference (other arms: {', '.join(others) or 'none'})")
        if arm not in there:
            with skipping(skip_bad and any(each in others for each in compare or ())):
                raise BadSnapshotError(f"--compare: the run has no arm '{arm}' (arms: {', '.join(there)})")
    if not others:
        raise ValueError(f"--compare: the run has no other arm than '{reference}'")
    return [arm for arm in dict.fromkeys(compare or others) if arm in others]


def choose_epochs(store: SnapshotStore, arms: Sequence[str], text: str | None, skip_bad: bool = False) -> list[int]:
    """The epochs that `text` names, ascending; without it all up to the last that every arm has.

    A running training writes its arms one after the other, hence "up to the last"; before that, an epoch that one arm
    has and another has not is an error, as is an asked-for epoch without a snapshot. Raises ValueError; with `skip_bad`
    such an epoch is said and passed over.
    """
    files = {(entry.arm, entry.epoch): store.folder / entry.file for entry in store.entries()}
    there = {arm: store.epochs(arm) for arm in arms}
    last = min(epochs[-1] for epochs in there.values())
    everything = {epoch for epochs in there.values() for epoch in epochs if epoch <= last}
    wanted = sorted(everything if text is None else parse_epochs(text))
    good = []
    for epoch in wanted:
        with skipping(skip_bad):
            for arm, epochs in there.items():
                if epoch not in epochs:
                    raise BadSnapshotError(
                        f"--epochs: arm '{arm}' has no snapshot of epoch {epoch} (epochs: {_spans(epochs)})"
                    )
                if not files[arm, epoch].is_file() and not skip_bad:  # or it is passed over when it is read
                    raise BadSnapshotError(
                        f"{files[arm, epoch]}: the manifest lists this snapshot, but the file is missing"
                    )
            good.append(epoch)
    return good


def _spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: 0-20, 30, 40."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def claim(output: Path, owner: dict[str, Any]) -> None:
    """Note in output/source.json whose rows the folder holds. Raises ValueError if they are another run's."""
    path = output / "source.json"
    if not path.is_file():
        write_durably(path, (json.dumps(owner) + "\n").encode())
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of which those of JSON and of UTF-8 are
        raise ValueError(f"{path}: not readable as JSON ({error}); choose another --output") from None
    if known != owner:
        raise ValueError(f"--output: '{output}' holds rows of another run (see {path}); choose another folder")
