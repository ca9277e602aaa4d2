"""The pool of ranks lives as long as the test run; which tests stay in one process when pytest-xdist has several."""

from collections.abc import Iterator

import hypothesis
import pytest
import ranks

hypothesis.settings.register_profile("no deadline", deadline=None)  # no test is about time, and machines are loaded
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _pool_ends_with_the_test_run() -> Iterator[None]:
    yield
    ranks.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that starts ranks stays together, with one pool and never twice at once; so do the tests of every other file,
    with the runs that they share.
    """
    for item in items:
        module = item.getparent(pytest.Module)
        assert module
        name = "ranks" if hasattr(module.obj, "ranks") or module.name == "test_soak.py" else module.name
        item.add_marker(pytest.mark.xdist_group(name))
