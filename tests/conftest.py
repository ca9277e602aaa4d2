"""The pool of ranks lives as long as the test run; which tests stay in one process when pytest-xdist has several."""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
from support import ranks
from support.tiny import REPOSITORY
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SHARED = {"ranks": "import ranks\n", "measured run": "measured_run"}  # group -> what its files name

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts with `&`; programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("no deadline", deadline=None)  # no test is about time, and machines are loaded
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _pool_ends_with_the_test_run() -> Iterator[None]:
    yield
    ranks.stop()


class ByWhatTheyShare(LoadScopeScheduling):
    """All that starts ranks stays in one process, with one pool and never twice at once; so do the files that look at
    one measured run, and the tests of every other file, with the runs that they share.

    Not pytest-xdist's own `loadgroup`: with pytest 9.2 its 3.8.0 does not see the groups, and says nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        source = (REPOSITORY / file).read_text(encoding="utf-8")
        return next((name for name, sign in SHARED.items() if sign in source), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByWhatTheyShare(config, log)
