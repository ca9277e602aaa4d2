"""Whether a run folder is whole, and how far two runs are the same.

python analysis/verify.py [--run DIR] [--against DIR2] [--output DIR3]

Prints a line for everything that is wrong, or differs between the two runs; the exit status is 0 if there is nothing of
the kind, 1 if there is, 2 for bad input. With --against it says up to which step the inputs were identical (by
inputs_digest), which settings differ, and for arms of the same name the first epoch at which weights differ. With
--output the findings are written to verify.csv in that folder, too, with the last epoch that was looked at: one row
with an empty finding if nothing is wrong.
"""

from coupled.terminal import prepare_terminal, say

if __name__ == "__main__":
    prepare_terminal()

import csv
import io
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.command_line import Parser, add_run, run_program
from analysis.embeddings import untrained_network
from analysis.run_folder import newest_run, read_description
from coupled.checked import differences as tree_differences
from coupled.controls import draws
from coupled.durable import write_durably
from coupled.network import shared_tensors
from coupled.settings import Settings, from_resolved
from coupled.snapshots import BadSnapshotError, SnapshotStore, snapshot_epochs


def faults(run: Path, description: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with the run, a line each."""
    settings = from_resolved(description["settings"], f"{run / 'run.json'}")
    yield from faults_of_rows(run / "steps.csv", list(settings.arms))
    store = SnapshotStore(run / "snapshots")
    try:
        there = {arm: store.epochs(arm) for arm in settings.arms}
    except ValueError as error:
        yield str(error)
        return
    last = max((epochs[-1] for epochs in there.values() if epochs), default=-1)
    kept = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)
    for arm, epochs in there.items():
        for epoch in (e for e in kept if e <= max(last, 0) and epochs.count(e) != 1):
            yield f"{store.manifest}: arm '{arm}', epoch {epoch}: expected one snapshot, found {epochs.count(epoch)}"
        for epoch in sorted(set(epochs) - set(kept)):
            yield f"{store.manifest}: arm '{arm}', epoch {epoch}: not among the epochs that the settings keep"
    for arm in sorted(set(store.arms()) - set(settings.arms)):
        yield f"{store.manifest}: arm '{arm}' is not in the settings"
    yield from faults_of_snapshots(store, there, description, expected_shapes(settings))


def expected_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that every arm's snapshot has."""
    return shapes(shared_tensors(untrained_network(settings)))


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def faults_of_snapshots(
    store: SnapshotStore,
    there: Mapping[str, Sequence[int]],
    description: Mapping[str, Any],
    shared: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    """Files, digests, headers, names, shapes, finite numbers, and the equal start of the arms that share it."""
    starts: dict[str, dict[str, Tensor]] = {}
    for arm, epochs in there.items():
        expected = dict(shared)
        for epoch in dict.fromkeys(epochs):
            try:
                tensors = store.read(arm, epoch)
                with store.open(arm, epoch) as handle:
                    header = store.header(handle)
            except BadSnapshotError as error:
                yield str(error)
                continue
            path, found = store.path(arm, epoch), shapes(tensors)
            for key, of_run in (("run", "name"), ("settings_sha256", "settings_sha256")):
                if header.get(key) != description[of_run]:
                    yield f"{path}: {key}: expected {description[of_run]}, found {header.get(key)}"
            if epoch == 0:
                starts[arm] = {name: tensors[name] for name in shared if name in tensors}
                expected |= {name: shape for name, shape in found.items() if name not in shared}
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    yield f"{path}: tensor '{name}': expected shape {expected.get(name)}, found {found.get(name)}"
            for name in sorted(tensors):
                if tensors[name].is_floating_point() and not tensors[name].isfinite().all():
                    yield f"{path}: tensor '{name}': expected finite numbers, found nan or inf"
    arms = description["settings"]["arms"]
    used, moved = draws(arms), {arm: ulps_at_start(arms[arm]) for arm in starts}
    for one, other in combinations(starts, 2):
        if used[one].init != used[other].init:
            continue
        allowed, differing = int(moved[one] != moved[other]), elements_apart(starts[one], starts[other])
        if differing != allowed:
            text = f"{'but for one moved weight, ' if allowed else ''}found {differing} that differ"
            yield f"{store.folder}: arms '{one}' and '{other}' do not start with equal weights at epoch 0: {text}"


def ulps_at_start(arm: Mapping[str, Any]) -> int:
    """By how many units in the last place a weight of `arm` was moved before its first snapshot."""
    perturbed = arm.get("perturb") or {"step": 0, "ulps": 0}
    return int(perturbed["ulps"]) if perturbed["step"] == 0 else 0


def elements_apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> int:
    """The number of elements of the tensors of the same name and shape that differ."""
    alike = [name for name in one if name in other and one[name].shape == other[name].shape]
    return sum(int((one[name] != other[name]).sum()) for name in alike)


def read_steps(path: Path) -> list[dict[str, str]]:
    """The whole rows of steps.csv. Raises ValueError if there is no such table."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a table of steps, found no file")
    text = path.read_text(encoding="utf-8", errors="replace")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def inputs_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns of steps.csv that hold the digests of a stream's inputs."""
    return [column for column in (rows[0] if rows else ()) if column and column.endswith("inputs_digest")]


def faults_of_rows(path: Path, arms: Sequence[str]) -> Iterator[str]:
    """Every step once, in order, with its digest and a finite loss of every arm."""
    try:
        rows = read_steps(path)
    except ValueError as error:
        yield str(error)
        return
    digests = inputs_of(rows) or ["inputs_digest"]
    wanted = ("epoch", "step", *digests, "lr", *(f"{arm}_loss" for arm in arms))
    for number, row in enumerate(rows, 1):
        missing = [column for column in wanted if not row.get(column)]
        if missing or None in row:
            cells = ",".join(map(str, row.values()))
            yield f"{path}: row {number}: expected the columns of the header, found '{cells}'"
            return
        if row["step"] != str(number):
            yield f"{path}: row {number}: expected step {number}, found {row['step']}"
            return


def differences(run: Path, against: Path, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """In what two runs differ, a line each."""
    steps = [read_steps(folder / "steps.csv") for folder in (run, against)]
    streams = [column for column in inputs_of(steps[0]) if column in inputs_of(steps[1])]
    digests = [[[row[column] for column in streams] for row in rows] for rows in steps]
    same = next((k for k, (a, b) in enumerate(zip(*digests, strict=False)) if a != b), min(map(len, digests)))
    lengths = " and ".join(str(len(each)) for each in digests)
    text = f"inputs: identical up to step {same} of {lengths}"
    if same == len(digests[0]) == len(digests[1]):
        say(text)
    else:
        yield text
    for key, was, now in tree_differences(one["settings"], other["settings"]):
        yield f"settings: {key}: {was} and {now}"
    stores = SnapshotStore(run / "snapshots"), SnapshotStore(against / "snapshots")
    for arm in stores[0].arms():
        epochs = sorted(set(stores[0].epochs(arm)) & set(stores[1].epochs(arm)))
        apart = next((e for e in epochs if not equal(*(store.read(arm, e) for store in stores))), None)
        if apart is not None:
            yield f"arm '{arm}': the weights differ from epoch {apart} on"


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Same names and same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def verify(options: Namespace) -> int:
    """Print the findings; 1 if there are any."""
    folders = [options.run or newest_run(Path("runs")), *([options.against] if options.against else [])]
    about = [read_description(folder) for folder in folders]
    findings = []
    for folder, description in zip(folders, about, strict=True):
        for text in faults(folder, description):
            say(text)
            findings.append(text)
    if options.against and not findings:
        for text in differences(*folders, *about):
            say(text)
            findings.append(text)
    say(f"{len(findings)} findings" if findings else f"{' and '.join(map(str, folders))}: nothing is wrong")
    if options.output:
        write_findings(options.output / "verify.csv", last_epoch(folders[0]), findings)
    return int(bool(findings))


def last_epoch(run: Path) -> int:
    """The last epoch of which the manifest has a snapshot; -1 if there is none or it cannot be read."""
    try:
        return max((entry.epoch for entry in SnapshotStore(run / "snapshots").entries()), default=-1)
    except ValueError:  # a manifest that is not readable is one of the findings
        return -1


def write_findings(path: Path, epoch: int, findings: Sequence[str]) -> None:
    """Write verify.csv anew."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("last_epoch", "finding"), *((epoch, each) for each in findings or [""])]
    )
    write_durably(path, text.getvalue().encode())
    say(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = Parser(prog="verify.py", description="Whether a run is whole.", allow_abbrev=False)
    add_run(parser)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another run folder to compare with")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write verify.csv to (default: none)")
    return run_program(verify, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
