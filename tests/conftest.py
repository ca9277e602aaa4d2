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


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that starts ranks stays together, with one pool and never twice at once; so do the files that look at one
    measured run, and the tests of every other file, with the runs that they share.
    """
    measured = {item.getparent(pytest.Module) for item in items if "measured_run" in getattr(item, "fixturenames", ())}
    for item in items:
        module = item.getparent(pytest.Module)
        assert module
        starts_ranks = hasattr(module.obj, "ranks") or module.name == "test_soak.py"
        name = "ranks" if starts_ranks else "measured run" if module in measured else str(module.path)
        item.add_marker(pytest.mark.xdist_group(name))
