"""Proofs that the ranks run one experiment: equal settings, equal starts, and no drift between ranks afterwards."""

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
    """Raise ValueError unless rank 0 has the same resolved `settings` as this rank. Needs no process group yet."""
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
    """Raise `RunError` unless the shared tensors of all arms, on all ranks, have equal bytes; `shared` are the own."""
    of_ranks = gather_json({arm: tensors_digest(tensors) for arm, tensors in shared.items()})
    found = [(rank, arm, digest) for rank, digests in enumerate(of_ranks) for arm, digest in digests.items()]
    _, first, expected = found[0]
    for rank, arm, digest in found:
        if digest != expected:
            raise RunError(
                f"arm '{arm}' on rank {rank} does not start like arm '{first}' on rank 0:"
                f" its shared tensors have digest {digest}, expected {expected}"
            )


def check_no_drift(arms: Mapping[str, Mapping[str, Tensor]], epoch: int) -> None:
    """Raise `RunError`, naming arm, tensor and rank, unless the ranks that share an arm have equal tensors.

    `arms` are the parameters and buffers of this rank's arms after `epoch`. Called by all ranks of the world together.
    """
    of_ranks = gather_json({arm: tensors_digest(tensors) for arm, tensors in arms.items()})
    drifted = next(_differing(of_ranks), None)
    if drifted is None:
        return
    arm = drifted[0]
    tensors = arms.get(arm, {})
    name, rank = next(_differing(gather_json({name: tensors_digest({name: tensors[name]}) for name in tensors})))
    raise RunError(
        f"arm '{arm}': tensor '{name}' on rank {rank} differs from that on the other ranks after epoch {epoch}: the"
        " ranks no longer train one network, so the run stops; no snapshot of this epoch is kept"
    )


def _differing(of_ranks: list[dict[str, str]]) -> Iterator[tuple[str, int]]:
    """(key, rank) where the digest of a rank that has the key is not the commonest; on a tie that of the lowest rank
    counts.
    """
    for key in dict.fromkeys(key for digests in of_ranks for key in digests):
        there = {rank: digests[key] for rank, digests in enumerate(of_ranks) if key in digests}
        commonest = Counter(there.values()).most_common(1)[0][0]
        yield from ((key, rank) for rank, digest in there.items() if digest != commonest)


def check_same_folder(run: Path, step: int) -> None:
    """Raise `RunError` unless all ranks find the folder `run`, with a checkpoint of the same `step` (-1: none)."""
    found = gather_json([(run / "run.json").is_file(), step])
    for rank, (there, of_rank) in enumerate(found):
        if not there or of_rank != found[0][1]:
            what = f"a checkpoint of step {of_rank}" if of_rank >= 0 else "no checkpoint"
            raise RunError(
                f"rank {rank} finds {what if there else 'no run.json'} in '{run}', rank 0 one of step {found[0][1]}:"
                " all machines must see the same folder"
            )
