"""The rendezvous: how the ranks of a launch find each other before the process group exists."""

import json
import os
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

LOOK_SECONDS = 0.02


class Launch(NamedTuple):
    """How the ranks were started.

    The launcher's name of the launch, its agents (one per machine), and the highest number of restarts of an agent.
    """

    name: str
    agents: tuple[str, ...]
    restarts: int


NOBODY = Launch("", (), 0)


@dataclass(frozen=True)
class Rendezvous:
    """This rank, the world size, the shared key-value store, and how the ranks were started."""

    rank: int
    world_size: int
    store: Any
    launch: Launch


def store_error(error: Exception) -> str:
    """Return one line for an error of torch in creating or reaching the store of rank 0."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"rendezvous: rank {os.environ['RANK']} cannot use the store of rank 0 at {address}; check MASTER_ADDR,"
        f" MASTER_PORT and the output of rank 0: {str(error).splitlines()[0]}"
    )


def gather_over_store(
    store: Any, rank: int, world_size: int, own: list[Any], until: float
) -> tuple[str, list[list[Any]]]:
    """Return the identifier of rank 0 and the list `own` of every rank; `own[0]` is an identifier of this process.

    Ranks of different restarts may meet in one store, because each machine counts its restarts separately. Rank 0
    therefore publishes the lists of the ranks that have joined. A rank that is not among them waits for a newer rank 0.
    """
    if rank == 0:
        store.set("leader", own[0])
        keys = [f"{own[0]}/join/{other}" for other in range(1, world_size)]
        while not all(store.check([key]) for key in keys):
            if time.monotonic() > until:
                missing = ", ".join(key.rpartition("/")[2] for key in keys if not store.check([key]))
                raise TimeoutError(
                    f"rendezvous: of {world_size} ranks these did not join in time: {missing}; see their output"
                )
            time.sleep(LOOK_SECONDS)
        of_ranks = [own, *(json.loads(store.get(key)) for key in keys)]
        store.set(f"{own[0]}/go", json.dumps(of_ranks))
        return own[0], of_ranks
    joined = ""
    while time.monotonic() <= until:
        if not store.check(["leader"]):  # `get` would wait, and raise an error of torch
            time.sleep(LOOK_SECONDS)
            continue
        leader = store.get("leader").decode()
        if leader != joined:
            store.set(f"{leader}/join/{rank}", json.dumps(own))
            joined = leader
        if store.check([f"{leader}/go"]):
            of_ranks = json.loads(store.get(f"{leader}/go"))
            if of_ranks[rank] == own:
                return leader, of_ranks
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"rendezvous: rank {rank} found no rank 0 in time; see the output of rank 0")
