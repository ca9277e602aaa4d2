"""Check that the snapshots of an imported run are unchanged. There is no record of its training to check."""

from collections.abc import Iterator

import torch

from coupled.analysis.representations.embeddings import kind, network_of
from coupled.analysis.run import Run
from coupled.analysis.verification.snapshots import faults_of_tensors
from coupled.models.network import shared_tensors
from coupled.storage.run_description import imported_epochs
from coupled.storage.snapshots import BadSnapshotError


def faults_of_import(run: Run) -> Iterator[str]:
    """Yield everything that is wrong with the manifest and the snapshots, one line each."""
    expected = imported_epochs(run.description)
    try:
        stored = {arm: run.snapshots.epochs(arm) for arm in {**expected, **dict.fromkeys(run.snapshots.arms())}}
        with torch.device("meta"):
            tensors = {
                arm: {name: kind(tensor) for name, tensor in shared_tensors(network_of(run, arm)).items()}
                for arm in stored
            }
    except ValueError as error:
        yield str(error)
        return
    for arm, epochs in stored.items():
        if epochs != expected.get(arm, []):
            listed = f"expected snapshots of epochs {expected.get(arm, [])}, found {epochs}"
            yield f"{run.snapshots.manifest}: arm '{arm}': {listed}"
        for epoch in dict.fromkeys(epochs):
            try:
                found = run.snapshots.read(arm, epoch)
                yield from faults_of_tensors(str(run.snapshots.path(arm, epoch)), found, tensors[arm])
            except BadSnapshotError as error:
                yield str(error)
