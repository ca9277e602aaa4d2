"""The garbage collector in the tests: it took about 7 % of their time."""

import gc


def collect_rarely() -> None:
    """Let the garbage collector pass over all objects that exist, and collect more rarely from now on."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
