"""Run folders: which run, arms and epochs a program is about, and CSV files that grow by whole rows."""

import csv
import io
import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.command_line import skipping
from coupled.durable import append_durably, write_durably
from coupled.snapshots import BadSnapshotError, SnapshotStore
from coupled.terminal import say

DIGITS = 16  # of a digest, as tables hold it


@dataclass(frozen=True)
class Selection:
    """What a program is asked to look at: `arms`, compared with `reference` if there is one, at `epochs`; CSVs go to
    `output`.
    """

    description: dict[str, Any]  # run.json
    store: SnapshotStore
    reference: str
    arms: list[str]
    epochs: list[int]
    output: Path


def select(options: Namespace) -> Selection:
    """The choices of the command line, checked against the run; says which run it is.

    Raises ValueError that names the option and lists what exists: no run, unknown arm, missing epoch, and an output
    folder that belongs to another run.
    """
    run = options.run or newest_run(Path("runs"))
    description = read_description(run)
    store = SnapshotStore(run / "snapshots")
    reference = getattr(options, "reference", "")
    arms = choose_arms(store, reference, options.compare, options.skip_bad) if reference else named(store, options.arms)
    epochs = choose_epochs(store, [*filter(None, [reference]), *arms], options.epochs, options.skip_bad)
    pairs = getattr(options, "every_pair", False)
    against = "every pair of " if pairs else f"{reference} against " if reference else ""
    shown = ", ".join([reference, *arms] if pairs else arms)
    say(f"run {run}{'' if options.run else ' (the newest under runs/)'}: {against}{shown}")
    output = options.output or run / "analysis"
    claim(output, {key: description[key] for key in ("name", "settings_sha256")})
    return Selection(description, store, reference, arms, epochs, output)


def named(store: SnapshotStore, arms: Sequence[str] | None) -> list[str]:
    """The arms to measure, each once; all without `arms`. Raises ValueError that lists the arms there are."""
    there = store.arms()
    if not there:
        raise ValueError(f"--run: '{store.folder.parent}' has no snapshots yet")
    for arm in arms or ():
        if arm not in there:
            raise ValueError(f"--arms: the run has no arm '{arm}' (arms: {', '.join(there)})")
    return list(dict.fromkeys(arms or there))


def select_pairs(options: Namespace) -> tuple[Selection, list[tuple[str, str]]]:
    """The choices, and the pairs to compare: each arm with the reference, or of `--compare all` every pair."""
    every = options.compare == ["all"]  # settings.py lets no arm have this name
    chosen = select(Namespace(**{**vars(options), "compare": None if every else options.compare, "every_pair": every}))
    if every:
        return chosen, list(combinations([chosen.reference, *chosen.arms], 2))
    return chosen, [(chosen.reference, arm) for arm in chosen.arms]


def newest_run(folder: Path) -> Path:
    """The run in `folder` whose run.json was written last. Raises ValueError if there is none."""
    runs = sorted((path.stat().st_mtime_ns, path.parent) for path in folder.glob("*/run.json"))
    if not runs:
        raise ValueError(f"--run: not given, and there is no run under '{folder.resolve()}'; pass a run folder")
    return runs[-1][1]


def read_description(run: Path) -> dict[str, Any]:
    """The content of run.json. Raises ValueError if `run` is no run folder."""
    path = run / "run.json"
    if not path.is_file():
        raise ValueError(f"--run: '{run}' is no run folder: it has no run.json")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None
    missing = {"name", "settings", "settings_sha256", "image_set"} - set(description)
    if missing:
        raise ValueError(f"{path}: not the description of a run: it has no key '{min(missing)}'")
    return dict(description)


def choose_arms(
    store: SnapshotStore, reference: str, compare: Sequence[str] | None, skip_bad: bool = False
) -> list[str]:
    """The arms to compare, each once; without `compare` all but the reference. Raises ValueError.

    With `skip_bad` an arm that is not there is said and passed over, unless none is left.
    """
    there = store.arms()
    others = [arm for arm in there if arm != reference]
    if not there:
        raise ValueError(f"--run: '{store.folder.parent}' has no snapshots yet")
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


def parse_epochs(text: str) -> set[int]:
    """The numbers in a list such as "0,5,10:30:10": numbers, or first:last[:step] with the last included."""
    epochs: set[int] = set()
    for part in text.split(","):
        numbers = part.split(":")
        if len(numbers) > 3 or not all(n.strip().isdecimal() for n in numbers):
            raise ValueError(f"--epochs: got '{text}'; allowed is a list of numbers and first:last[:step]")
        first, last, step = [*map(int, numbers), *([int(numbers[0]), 1] if len(numbers) == 1 else [1])][:3]
        if step == 0 or last < first:
            raise ValueError(
                f"--epochs: got '{part}'; in first:last[:step] the step is 1 or more, the last not below the first"
            )
        epochs.update(range(first, last + 1, step))
    return epochs


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
    try:
        if not path.is_file():
            write_durably(path, (json.dumps(owner) + "\n").encode())
    except OSError as error:
        raise ValueError(f"--output: cannot write to '{output}': {error.strerror}") from None
    if json.loads(path.read_text(encoding="utf-8")) != owner:
        raise ValueError(f"--output: '{output}' holds rows of another run (see {path}); choose another folder")


def read_newest(path: Path, key: Sequence[str]) -> pd.DataFrame:
    """The rows of a table; of those that agree in the columns `key` the last, which is of the newest snapshots.

    Raises ValueError if there is no such file.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; weight_gap.py, alignment.py, quality.py, collapse.py in analysis/ write the tables"
        )
    return pd.read_csv(path).drop_duplicates(list(key), keep="last")


class TidyCsv:
    """A CSV file of long rows that gains them block by block; a row it has already is never written again.

    Two rows are the same if they agree in the columns `key`. Floats are written in full, NaN as an empty cell. A last
    row that was not written to its end is cut off. Raises ValueError if the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)
        self.places = [self.columns.index(name) for name in key]
        self.written = 0
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        header = (",".join(self.columns) + "\n").encode()
        rows = list(csv.reader(io.StringIO(whole.decode(errors="replace"))))[1:]
        ours = data.startswith(header) or header.startswith(data)
        if not ours or any(len(row) != len(self.columns) for row in rows):
            raise ValueError(
                f"{path}: its rows should be {','.join(self.columns)}; move the file away to start a new one"
            )
        if not whole or whole != data:
            write_durably(path, whole or header)
        self.held = {tuple(row[place] for place in self.places) for row in rows}

    def has(self, *key: object) -> bool:
        """Whether a row with these key cells is in the file."""
        return tuple(map(str, key)) in self.held

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Write the rows that are not in the file yet, in one write, and sync them to the disk."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            key = tuple(str(row[place]) for place in self.places)
            if key not in self.held:
                writer.writerow("" if isinstance(cell, float) and isnan(cell) else cell for cell in row)
                self.held.add(key)
                self.written += 1
        append_durably(self.path, text.getvalue())
