"""Whether a run folder is whole, and how far two runs are the same.

python analysis/verify.py [--run-dir DIR] [--against DIR2] [--output DIR3]

Looks at run.json, both tables of rows, every snapshot, the checkpoints, and whether the images can still be read.
Prints a line for everything that is wrong, or differs between the two runs; the exit status is 0 if there is nothing of
the kind, 1 if there is, 2 for bad input. With --against it says up to which step the inputs were identical (by
inputs_digest), which settings differ, and for arms of the same name the first epoch at which weights differ. With
--output the findings are written to verify.csv in that folder, too, with the last epoch that was looked at: one row
with an empty finding if nothing is wrong.
"""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coupled.analysis import parsers
from coupled.analysis.driver import run_program
from coupled.analysis.representations.embeddings import load_images
from coupled.analysis.run import newest_run, open_store, read_description
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.verification.rows import faults_of_rows, faults_of_saves, inputs_of, rows_to_check
from coupled.analysis.verification.snapshots import faults_of_snapshots
from coupled.config.errors import differences as tree_differences
from coupled.config.schema import Settings, from_resolved
from coupled.datasets import SPLITS
from coupled.monitoring.terminal import say
from coupled.storage import log_digests
from coupled.storage.atomic_files import encoded, write_durably
from coupled.storage.dataset_record import check_listing
from coupled.storage.run_description import description_digest, is_as_written, read_run_json
from coupled.storage.snapshots import SnapshotStore


def faults(run: Path, description: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with the run, a line each."""
    settings = from_resolved(description["settings"], f"{run / 'run.json'}")
    yield from faults_of_description(run, settings)
    yield from check_listing(run, description["dataset"])
    try:
        lines = log_digests.read(run, description["settings_sha256"])
    except ValueError as error:
        yield str(error)
        lines = []
    yield from faults_of_rows(run, settings, lines)
    classes = len(description["dataset"].get("classes", ()))
    done = lines[-1].epoch if lines else None
    yield from faults_of_snapshots(open_store(run, description), settings, classes, done)
    yield from faults_of_saves(run, description["settings_sha256"], lines)
    yield from faults_of_images(run, settings, description["dataset"])


def faults_of_description(run: Path, settings: Settings) -> Iterator[str]:
    """run.json as a whole, and the digest of its settings."""
    path, content = run / "run.json", read_run_json(run)
    if not is_as_written(content):
        of, found = content.get("digest"), description_digest(content)
        changed = f"changed since it was written: expected digest {of}, found {found}"
        yield f"{path}: {changed if 'digest' in content else 'no digest: nothing tells whether it was changed'}"
    if content["settings_sha256"] != settings.sha256():
        of, found = settings.sha256(), content["settings_sha256"]
        yield f"{path}: settings_sha256: expected that of its settings, {of}, found {found}"


def faults_of_images(run: Path, settings: Settings, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Whether the images of the run can still be read, as every further analysis must."""
    for split in SPLITS:
        try:
            load_images(settings, split, dataset, run)
        except (ValueError, OSError) as error:
            yield f"the {split} images cannot be read: {error}"


def differences(run: Path, against: Path, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """In what two runs differ, a line each."""
    steps = [rows_to_check(folder / "steps.csv") for folder in (run, against)]
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
    stores = open_store(run, one), open_store(against, other)
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
    whole = f"{' and '.join(map(str, folders))}: nothing is wrong, and the images can be read"
    say(f"{len(findings)} findings" if findings else whole)
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
        [SCHEMAS[path.name].columns, *((epoch, each) for each in findings or [""])]
    )
    try:
        write_durably(path, encoded(text.getvalue()))
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--output: cannot write to '{path.parent}': {os.strerror(error.errno or 0)}") from None
    say(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(verify, parsers.verify(), arguments)
