"""Where the ranks of a launch find each other before there is a process group."""

import json
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

LOOK_SECONDS = 0.02


class Launch(NamedTuple):
    """Who started the ranks: the launcher's name for it, its agents (one a machine), and how often at most one of them
    has started its ranks again after a failure.
    """

    name: str
    agents: tuple[str, ...]
    restarts: int


NOBODY = Launch("", (), 0)


@dataclass(frozen=True)
class Rendezvous:
    """This rank, the number of ranks, the key-value store that they share, and who started them."""

    rank: int
    world_size: int
    store: Any
    launch: Launch


def gather_over_store(
    store: Any, rank: int, world_size: int, own: list[Any], until: float
) -> tuple[str, list[list[Any]]]:
    """The first rank's mark and what every rank has in `own`, whose first element marks this life of the rank.

    Ranks of different restarts may find each other in one store: each machine counts its own. So rank 0 names the marks
    of those who came, and a rank that is not among them waits for a newer rank 0.
    """
    if rank == 0:
        store.set("leader", own[0])
        keys = [f"{own[0]}/join/{other}" for other in range(1, world_size)]
        while not all(store.check([key]) for key in keys):
            if time.monotonic() > until:
                missing = ", ".join(key.rpartition("/")[2] for key in keys if not store.check([key]))
                raise TimeoutError(f"of {world_size} ranks these did not come: {missing}")
            time.sleep(LOOK_SECONDS)
        of_ranks = [own, *(json.loads(store.get(key)) for key in keys)]
        store.set(f"{own[0]}/go", json.dumps(of_ranks))
        return own[0], of_ranks
    joined = ""
    while time.monotonic() <= until:
        leader = store.get("leader").decode()
        if leader != joined:
            store.set(f"{leader}/join/{rank}", json.dumps(own))
            joined = leader
        if store.check([f"{leader}/go"]):
            of_ranks = json.loads(store.get(f"{leader}/go"))
            if of_ranks[rank] == own:
                return leader, of_ranks
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"rank {rank} waited in vain for rank 0")
