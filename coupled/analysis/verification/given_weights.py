"""Check that all arms of a run started from `encoder.weights`, and that frozen tensors did not change."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import untrained_network
from coupled.analysis.verification.snapshots import initial_ulps
from coupled.config.schema import Settings
from coupled.models.freezing import constant_tensors
from coupled.storage.snapshots import SnapshotStore, tensors_digest


def faults_of_given_weights(store: SnapshotStore, settings: Settings, description: Mapping[str, Any]) -> Iterator[str]:
    """Check that at epoch 0 the encoder of every arm has the digest in run.json, except in an arm that `perturb`
    changes there. Unreadable snapshots are skipped, because `faults_of_snapshots` reports them.
    """
    if settings.encoder.weights is None:
        return
    expected = description.get("start", {}).get("encoder_digest")
    if not expected:
        yield "run.json: no start.encoder_digest, which a run with encoder.weights has"
        return
    arms = settings.resolved()["arms"]
    for arm in (name for name in arms if not initial_ulps(arms[name])):
        tensors = _tensors(store, arm, 0)
        found = tensors_digest({name: each for name, each in tensors.items() if name.startswith("encoder.")})
        if tensors and found != expected:
            yield (
                f"{store.path(arm, 0)}: the encoder does not start from {settings.encoder.weights}: expected digest"
                f" {expected}, found {found}"
            )


def faults_of_frozen(store: SnapshotStore, settings: Settings) -> Iterator[str]:
    """Yield the first snapshot of every arm in which a frozen tensor of the encoder has changed."""
    if not settings.encoder.freeze:
        return
    with torch.device("meta"):
        encoder = untrained_network(settings).encoder
    try:
        names = [f"encoder.{name}" for name in constant_tensors(encoder, settings.encoder.freeze)]
    except ValueError as error:
        yield str(error)
        return
    for arm in settings.arms:
        first: dict[str, Tensor] = {}
        for epoch in _epochs(store, arm):
            tensors = _tensors(store, arm, epoch)
            first = first or tensors
            both = [name for name in names if name in tensors and name in first]
            moved = [name for name in both if not torch.equal(tensors[name], first[name])]
            if moved:
                yield f"{store.path(arm, epoch)}: '{moved[0]}' is frozen, but differs from its value at the start"
                break


def _tensors(store: SnapshotStore, arm: str, epoch: int) -> dict[str, Tensor]:
    """The tensors of a snapshot; empty if it is not readable."""
    try:
        return store.read(arm, epoch)
    except ValueError:
        return {}


def _epochs(store: SnapshotStore, arm: str) -> list[int]:
    """The epochs of an arm; empty if the manifest is not readable."""
    try:
        return store.epochs(arm)
    except ValueError:
        return []
