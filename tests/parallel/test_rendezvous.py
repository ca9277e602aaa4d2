"""How the ranks of a launch meet in a store."""

import time
from datetime import timedelta

import pytest
from support import forked
from torch.distributed import HashStore

from coupled.parallel.process_group import join_rendezvous
from coupled.parallel.rendezvous import gather_over_store


@pytest.mark.parametrize(
    ("rank", "message"), [(0, "of 2 ranks these did not join in time: 1"), (1, "rank 1 found no rank 0 in time")]
)
def test_a_rank_that_never_arrives_is_named(rank: int, message: str) -> None:
    """An error of torch, such as "Wait timeout", says neither who waits nor for whom."""
    store = HashStore()
    store.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(TimeoutError, match=f"^rendezvous: {message}; see t"):
        gather_over_store(store, rank, 2, ["identifier", "agent", 0], time.monotonic() + 0.1)


def test_a_rank_that_cannot_reach_rank_0_names_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at the port."""
    port = str(forked.free_port())
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TimeoutError, match=f"^rendezvous: rank 1 cannot use the store of rank 0 at 127.0.0.1:{port}; "):
        join_rendezvous(timeout_seconds=0.2)
