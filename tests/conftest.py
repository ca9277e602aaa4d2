"""The pool of ranks lives as long as the test run."""

from collections.abc import Iterator

import pytest
import ranks


@pytest.fixture(scope="session", autouse=True)
def _pool_ends_with_the_test_run() -> Iterator[None]:
    yield
    ranks.stop()
