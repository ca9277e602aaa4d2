"""Check every file of a run folder, and compare two runs.

Checks run.json, steps.csv and epochs.csv, every snapshot, the checkpoints, and that the images can still be read. Each
finding is one line. The exit status is 0 without findings, 1 with findings, 2 for bad input. With `--against`, if
nothing is wrong with either run, the findings are their differences: the step up to which the inputs were identical (by
inputs_digest), the settings that differ, and for arms of the same name the first epoch at which weights differ and the
largest gap of a tensor, ||a - b|| over the mean of ||a|| and ||b||, with its epoch. With `--output` the findings are
also written to verify.csv in that folder, with the last epoch that was checked; without findings it has one row with an
empty finding.
"""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coupled.analysis import parsers
from coupled.analysis.against import other_run
from coupled.analysis.driver import run_program
from coupled.analysis.representations.embeddings import load_images
from coupled.analysis.run import Run, open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.verification.given_weights import faults_of_frozen, faults_of_given_weights
from coupled.analysis.verification.imported import faults_of_import
from coupled.analysis.verification.rows import faults_of_rows, faults_of_saves, input_columns, read_rows
from coupled.analysis.verification.snapshots import faults_of_snapshots, weight_difference
from coupled.config.errors import differences as setting_differences
from coupled.config.schema import Settings
from coupled.datasets import SPLITS
from coupled.monitoring.terminal import counted, say
from coupled.storage import log_digests
from coupled.storage.atomic_files import encoded, write_durably
from coupled.storage.dataset_record import check_listing
from coupled.storage.run_description import description_digest, is_as_written, read_run_json


def compute(run: Run, against: Run | None = None) -> list[str]:
    """Return everything that is wrong with a run.

    Args:
        run: the run.
        against: a second run. If nothing is wrong with either run, their differences are findings.

    Returns:
        The findings, one line each; empty if nothing is wrong and, with `against`, the runs do not differ.

    Raises:
        ValueError: if the settings of a run name user-defined code that has not been imported.

    Example:
        >>> compute(run)
        []
    """
    return list(findings(run, against))


def findings(run: Run, against: Run | None, note: Callable[[str], None] = lambda text: None) -> Iterator[str]:
    """Yield the findings of `compute`. `note` is called with the line that the inputs of both runs are identical."""
    whole = True
    for each in (run, against) if against else (run,):
        for text in faults(each):
            whole = False
            yield text
    if against and whole:
        yield from differences(run, against, note)


def faults(run: Run) -> Iterator[str]:
    """Yield everything that is wrong with the run, one line each."""
    dataset, settings_sha256 = run.description["dataset"], run.description["settings_sha256"]
    yield from faults_of_description(run.path, run.settings)
    yield from check_listing(run.path, dataset)
    if "imported" in run.description:
        yield from faults_of_import(run)
        yield from faults_of_images(run.path, run.settings, dataset)
        return
    try:
        lines = log_digests.read(run.path, settings_sha256)
    except ValueError as error:
        yield str(error)
        lines = []
    yield from faults_of_rows(run.path, run.settings, lines)
    epochs_done = lines[-1].epoch if lines else None
    yield from faults_of_snapshots(run.snapshots, run.settings, len(dataset.get("classes", ())), epochs_done)
    yield from faults_of_given_weights(run.snapshots, run.settings, run.description)
    yield from faults_of_frozen(run.snapshots, run.settings)
    yield from faults_of_saves(run.path, settings_sha256, lines)
    yield from faults_of_images(run.path, run.settings, dataset)


def faults_of_description(run: Path, settings: Settings) -> Iterator[str]:
    """Check the digest of run.json and that of its settings."""
    path, content = run / "run.json", read_run_json(run)
    if not is_as_written(content):
        of, found = content.get("digest"), description_digest(content)
        changed = f"changed since it was written: expected digest {of}, found {found}"
        yield f"{path}: {changed if 'digest' in content else 'no digest; a change of the file cannot be detected'}"
    if content["settings_sha256"] != settings.sha256():
        of, found = settings.sha256(), content["settings_sha256"]
        yield f"{path}: settings_sha256: expected the digest of its settings, {of}, found {found}"


def faults_of_images(run: Path, settings: Settings, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Check that the images of the run can still be read, which the other analyses need."""
    for split in SPLITS:
        try:
            load_images(settings, split, dataset, run)
        except (ValueError, OSError) as error:
            yield f"the {split} images cannot be read: {error}"


def differences(run: Run, against: Run, note: Callable[[str], None]) -> Iterator[str]:
    """Yield the differences of two valid runs, one line each; `note` is called with the line on identical inputs."""
    if any("imported" in each.description for each in (run, against)):
        text, identical = "inputs: not compared, because an imported run has no record of them", True
    else:
        text, identical = compare_inputs(run.path / "steps.csv", against.path / "steps.csv")
    if identical:
        note(text)
    else:
        yield text
    for key, one, other in setting_differences(run.description["settings"], against.description["settings"]):
        yield f"settings: {key}: {one} and {other}"
    for arm in run.snapshots.arms():
        if text := weight_difference(run.snapshots, against.snapshots, arm):
            yield text


def compare_inputs(path: Path, against: Path) -> tuple[str, bool]:
    """Return a line on the step up to which two steps.csv have equal input digests, and whether all are equal."""
    tables = read_rows(path), read_rows(against)
    columns = [column for column in input_columns(tables[0]) if column in input_columns(tables[1])]
    one, other = ([[row[column] for column in columns] for row in rows] for rows in tables)
    pairs = enumerate(zip(one, other, strict=False))
    steps = next((step for step, (a, b) in pairs if a != b), min(len(one), len(other)))
    text = f"inputs: identical up to step {steps} of {len(one)} and {len(other)}"
    return text, steps == len(one) == len(other)


def verify(options: Namespace) -> int:
    """Print the findings; return 1 if there are any."""
    run = open_run(options.run, options.allow_code)
    against = other_run(options.against, options.allow_code) if options.against else None
    found: list[str] = []
    for text in findings(run, against, note=say):
        say(text)
        found.append(text)
    runs = f"{run.path} and {against.path}" if against else f"{run.path}"
    imported = any("imported" in each.description for each in (run, against) if each)
    unchanged = "its snapshots are unchanged since the import (there is no record of its training)"
    checked = unchanged if imported else "nothing is wrong"
    say(counted(len(found), "finding") if found else f"{runs}: {checked}, and the images can be read")
    if options.output:
        write_findings(options.output / "verify.csv", last_epoch(run), found)
    return int(bool(found))


def last_epoch(run: Run) -> int:
    """Return the last epoch with a snapshot in the manifest; -1 if there is none or the manifest cannot be read."""
    try:
        return max((entry.epoch for entry in run.snapshots.entries()), default=-1)
    except ValueError:  # an unreadable manifest is one of the findings
        return -1


def write_findings(path: Path, epoch: int, findings: Sequence[str]) -> None:
    """Write verify.csv."""
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
    """Run the program and return its exit status."""
    return run_program(verify, parsers.verify(), arguments)
