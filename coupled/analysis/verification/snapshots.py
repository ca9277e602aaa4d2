"""Check that the manifest of a run lists every expected snapshot, and that each has the expected tensors."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import kind, untrained_network
from coupled.analysis.representations.quality_tasks import needs_of_arms
from coupled.config.controls import random_sources
from coupled.config.schema import Settings
from coupled.metrics.weights import all_squares
from coupled.models.network import Network, copy_with_heads
from coupled.storage.snapshots import BadSnapshotError, SnapshotStore, snapshot_epochs

SHARED = ("encoder.", "projector.")  # the tensors that arms share at the start, unless an arm has its own projector
Kinds = dict[str, str]  # tensor -> its shape and type


def faults_of_snapshots(
    store: SnapshotStore, settings: Settings, num_classes: int, epochs_done: int | None
) -> Iterator[str]:
    """Yield everything that is wrong with the manifest and the snapshots of a run, one line each.

    Args:
        store: the snapshots.
        settings: those of the run.
        num_classes: number of classes of its dataset.
        epochs_done: number of epochs trained; None for the last epoch in the manifest.
    """
    try:
        stored = {arm: store.epochs(arm) for arm in settings.arms}
        expected = expected_tensors(settings, num_classes)
    except ValueError as error:
        yield str(error)
        return
    yield from faults_of_manifest(store, settings, stored, epochs_done)
    starts: dict[str, dict[str, Tensor]] = {}
    for arm, epochs in stored.items():
        for epoch in dict.fromkeys(epochs):
            try:
                tensors = store.read(arm, epoch)
            except BadSnapshotError as error:
                yield str(error)
                continue
            yield from faults_of_tensors(str(store.path(arm, epoch)), tensors, expected[arm])
            if epoch == 0:
                starts[arm] = {
                    name: tensors[name] for name in expected[arm] if name in tensors and name.startswith(SHARED)
                }
    yield from faults_of_starts(store, settings.resolved()["arms"], starts)


def expected_tensors(settings: Settings, classes: int) -> dict[str, Kinds]:
    """Return shape and type of the tensors of each arm's snapshots.

    Networks are built on the meta device. Raises ValueError for an encoder or objective that cannot be built.
    """
    arms, networks = {}, dict[str, Network]()
    with torch.device("meta"):
        for arm, needs in needs_of_arms(settings).items():
            projector = str(settings.projector_of(arm))
            if projector not in networks:
                networks[projector] = untrained_network(settings, arm)
            tensors = copy_with_heads(networks[projector], needs, classes, settings.seed).state_dict()
            arms[arm] = {name: kind(tensor) for name, tensor in tensors.items()}
    return arms


def faults_of_manifest(
    store: SnapshotStore, settings: Settings, stored: Mapping[str, Sequence[int]], epochs_done: int | None
) -> Iterator[str]:
    """Check that the manifest lists every kept epoch of every arm once and in order.

    An epoch whose save is running or was interrupted may be incomplete.
    """
    if epochs_done is None:
        epochs_done = max((epochs[-1] for epochs in stored.values() if epochs), default=0)
    kept = snapshot_epochs(settings.epochs, settings.snapshots.every_epochs, settings.snapshots.dense_until_epoch)
    for arm, epochs in stored.items():
        counted = [epoch for epoch in kept if epoch <= epochs_done]
        for epoch in (e for e in kept if epochs.count(e) > 1 or (e in counted and not epochs.count(e))):
            yield f"{store.manifest}: arm '{arm}', epoch {epoch}: expected one snapshot, found {epochs.count(epoch)}"
        # if `epochs` may change on --resume, the run may have had fewer epochs before, and this was its last epoch
        for epoch in sorted(set(epochs) - set(kept)) if "epochs" not in settings.may_change() else ():
            yield f"{store.manifest}: arm '{arm}', epoch {epoch}: not among the epochs that the settings keep"
    for arm in sorted(set(store.arms()) - set(settings.arms)):
        yield f"{store.manifest}: arm '{arm}' is not in the settings"
    order = [(entry.epoch, [*settings.arms, entry.arm].index(entry.arm)) for entry in store.entries()]
    if order != sorted(order):
        yield f"{store.manifest}: its lines are not in the order of epochs and arms"


def faults_of_tensors(path: str, tensors: Mapping[str, Tensor], expected: Kinds) -> Iterator[str]:
    """Check names, shapes and types of tensors, and that their values are finite."""
    found = {name: kind(tensor) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield f"{path}: tensor '{name}': expected {expected.get(name)}, found {found.get(name)}"
        elif tensors[name].is_floating_point() and not tensors[name].isfinite().all():
            yield f"{path}: tensor '{name}': expected finite numbers, found nan or inf"


def faults_of_starts(
    store: SnapshotStore, arms: Mapping[str, Mapping[str, Any]], starts: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[str]:
    """Check that arms with the same initialisation start with equal weights, except for a perturbed weight.

    Of arms with different projectors only the encoders are compared.
    """
    used, moved = random_sources(arms), {arm: initial_ulps(arms[arm]) for arm in starts}
    for one, other in combinations(starts, 2):
        if used[one].init != used[other].init:
            continue
        first, second = starts[one], starts[other]
        if arms[one].get("projector") != arms[other].get("projector"):
            first = {name: tensor for name, tensor in first.items() if name.startswith("encoder.")}
        allowed, differing = int(moved[one] != moved[other]), count_differing_elements(first, second)
        if differing != allowed:
            text = f"{'expected one perturbed weight, ' if allowed else ''}found {differing} weights that differ"
            yield f"{store.folder}: arms '{one}' and '{other}' do not start with equal weights at epoch 0: {text}"


def initial_ulps(arm: Mapping[str, Any]) -> int:
    """The units in the last place by which `perturb` changed a weight of `arm` before its first snapshot."""
    perturbed = arm.get("perturb") or {"step": 0, "ulps": 0}
    return int(perturbed["ulps"]) if perturbed["step"] == 0 else 0


def count_differing_elements(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> int:
    """The number of elements of the tensors of the same name and shape that differ."""
    alike = [name for name in one if name in other and one[name].shape == other[name].shape]
    return sum(int((one[name] != other[name]).sum()) for name in alike)


def weight_difference(one: SnapshotStore, other: SnapshotStore, arm: str) -> str:
    """Return a line on the first epoch at which an arm's weights differ between two runs, and on the largest gap.

    It is "" if all snapshots of the same epochs have the same bits. Distances are those of weight_gap.csv.
    """
    first, largest, unlike = None, (0.0, 0, ""), ""
    for epoch in sorted({*one.epochs(arm)} & {*other.epochs(arm)}):
        a, b = one.read(arm, epoch), other.read(arm, epoch)
        both = [name for name in a if name in b and a[name].shape == b[name].shape]
        unlike = unlike or min({*a, *b} - {*both}, default="")
        differing = [name for name in both if not torch.equal(a[name], b[name])]
        if first is None and (differing or unlike):
            first = epoch
        for name in (each for each in differing if a[each].is_floating_point()):
            gap = all_squares({"a": [a[name]], "b": [b[name]]}, [("a", "b")])["a", "b"].gap().gap
            largest = max(largest, (gap if isfinite(gap) else inf, epoch, name))
    if first is None:
        return ""
    gap, epoch, name = largest
    most = f"; most at epoch {epoch}: {name}, with a gap of {gap:.3g} (Frobenius)" if name else ""
    lacks = f"; {unlike} is in only one of the runs, or has another shape" if unlike else ""
    return f"arm '{arm}': the weights differ from epoch {first} on{most}{lacks}"
