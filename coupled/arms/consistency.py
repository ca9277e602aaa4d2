"""Checks that all ranks run one experiment: equal settings, equal initial weights, equal weights after an epoch."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import Rendezvous, gather_json
from coupled.storage.snapshots import tensors_digest

SETTINGS = "coupled/settings"


def check_same_settings(rendezvous: Rendezvous, settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless rank 0 has the same resolved `settings` as this rank. Needs no process group."""
    if rendezvous.rank == 0:
        rendezvous.store.set(SETTINGS, json.dumps(settings))
        return
    of_first = json.loads(rendezvous.store.get(SETTINGS))
    here = json.loads(json.dumps(settings))
    differing = [key for key in {**of_first, **here} if of_first.get(key) != here.get(key)]
    if differing:
        key = differing[0]
        raise ValueError(
            f"{key}: rank {rendezvous.rank} has {here.get(key)}, rank 0 has {of_first.get(key)};"
            " start every rank with the same command and the same settings file"
        )


def check_equal_start(shared: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise `RunError` unless the shared tensors of all arms on all ranks are equal; `shared` are of this rank."""
    of_ranks = gather_json({arm: tensors_digest(tensors) for arm, tensors in shared.items()})
    found = [(rank, arm, digest) for rank, digests in enumerate(of_ranks) for arm, digest in digests.items()]
    _, first, expected = found[0]
    for rank, arm, digest in found:
        if digest != expected:
            raise RunError(
                f"arm '{arm}' on rank {rank} starts with other weights than arm '{first}' on rank 0: its shared tensors"
                f" have digest {digest}, expected {expected}; use the same library versions on every machine"
            )


def check_equal_starts(
    starts: Mapping[str, Mapping[str, Tensor]], inits: Mapping[str, str], projectors: Mapping[str, str]
) -> None:
    """Check that arms with one initialisation start with one encoder, and those with one projector with equal weights.

    `starts` are the shared tensors of the arms of this rank. `inits` and `projectors` of all arms are texts, which are
    equal for arms with the same random source and the same projector settings. Raises `RunError` on a difference.
    """
    groups = [({"encoder"}, inits), ({"projector"}, {arm: f"{inits[arm]} {projectors[arm]}" for arm in inits})]
    for parts, group_of in groups:
        for group in sorted({*group_of.values()}):
            check_equal_start(
                {
                    arm: {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in parts}
                    for arm, tensors in starts.items()
                    if group_of[arm] == group
                }
            )


def check_no_drift(arms: Mapping[str, Mapping[str, Tensor]], epoch: int) -> None:
    """Raise `RunError`, naming arm, tensor and rank, unless the ranks that share an arm have equal tensors.

    `arms` are the tensors of this rank's arms after `epoch`, kept ones such as queues included. Called by all ranks of
    the world together.
    """
    of_ranks = gather_json({arm: tensors_digest(tensors) for arm, tensors in arms.items()})
    drifted = next(_differing(of_ranks), None)
    if drifted is None:
        return
    arm = drifted[0]
    tensors = arms.get(arm, {})
    name, rank = next(_differing(gather_json({name: tensors_digest({name: tensors[name]}) for name in tensors})))
    raise RunError(
        f"arm '{arm}': tensor '{name}' on rank {rank} differs from the other ranks after epoch {epoch}. The run stopped"
        " and keeps no snapshot of this epoch; --resume continues from the last checkpoint"
    )


def _differing(of_ranks: list[dict[str, str]]) -> Iterator[tuple[str, int]]:
    """Yield (key, rank) for each rank whose digest of the key is not the most common one.

    On a tie the digest of the lowest rank is taken as the most common one.
    """
    for key in dict.fromkeys(key for digests in of_ranks for key in digests):
        there = {rank: digests[key] for rank, digests in enumerate(of_ranks) if key in digests}
        commonest = Counter(there.values()).most_common(1)[0][0]
        yield from ((key, rank) for rank, digest in there.items() if digest != commonest)


def check_same_folder(run: Path, step: int) -> None:
    """Raise `RunError` unless all ranks find the folder `run`, with a checkpoint of the same `step` (-1: none)."""
    found = gather_json([(run / "run.json").is_file(), step])
    seen = [
        "no run.json" if not there else "no checkpoint" if of_rank < 0 else f"a checkpoint of step {of_rank}"
        for there, of_rank in found
    ]
    for rank, (there, of_rank) in enumerate(found):
        if not there or of_rank != found[0][1]:
            raise RunError(
                f"rank {rank} finds {seen[rank]} in '{run}', rank 0 finds {seen[0]}: all machines must see the same"
                " folder; use a --run-dir on a shared file system"
            )
