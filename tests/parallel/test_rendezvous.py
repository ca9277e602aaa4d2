"""How the ranks of a launch meet in a store."""

import time
from datetime import timedelta

import pytest
from torch.distributed import HashStore

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
