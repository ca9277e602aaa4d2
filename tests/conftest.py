"""The pool of ranks lives as long as the test run.

With pytest-xdist `--dist loadfile` keeps the tests of a file in one process, so that they share its runs. Each process
has a pool of its own. Not `loadgroup`: it writes the group into `item._nodeid`, which pytest 9.2 no longer reads.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support import forked, garbage, ranks

gc.disable()  # until all modules are imported; almost all of their objects stay

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts with `&`; programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# as in an activated environment: what is suggested to a user of the installed command is `coupled ...`
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

hypothesis.settings.register_profile("no deadline", deadline=None)  # no test is about time, and machines are loaded
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _pool_ends_with_the_test_run() -> Iterator[None]:
    yield
    ranks.stop()
    forked.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, then those of whole runs, so that none of them is left alone for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, len(item.path.parts)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Start the garbage collector, which passes over what was imported."""
    garbage.collect_rarely()
    gc.enable()
