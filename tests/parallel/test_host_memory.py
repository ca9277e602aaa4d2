"""Large tensors reuse memory pages."""

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import forked, tiny

from coupled import train
from coupled.parallel import host_memory

# 64 MiB a time: 16 384 pages. At first the heap grows, because a freed block does not fit the next one to the byte.
COUNTED = """
import resource, torch
from coupled.parallel.host_memory import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults(8)
kept = keep_freed_memory()
faults(24)
print(usual, kept, faults(8))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_repeated_allocation_of_a_large_tensor_causes_no_page_faults(tmp_path: Path) -> None:
    """At a batch of 1 024 the system's zeroing of pages took a third of a step."""
    (tmp_path / "counted.py").write_text(COUNTED)
    output, errors = forked.Program(tmp_path / "counted.py").communicate()
    assert output, errors
    usual, kept, faults = output.split()
    assert kept == "True"
    assert int(faults) < 100 < int(usual)


@pytest.mark.parametrize(("libc", "refused"), [("glibc", -1), ("glibc", -4), ("musl", 0), ("", 0)])
def test_without_mallopt_nothing_happens(libc: str, refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A libc without mallopt, such as musl or macOS's, must not end the run, and neither must a mallopt that fails."""
    calls: list[int] = []

    def mallopt(option: int, value: int) -> int:
        calls.append(option)
        return int(option != refused)

    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert not host_memory.keep_freed_memory()
    assert bool(calls) == (libc == "glibc")


@pytest.fixture
def _switches() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("_switches")
def test_training_configures_malloc_before_networks_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The training program must call `keep_freed_memory`."""

    def asked() -> bool:
        raise ValueError("asked")

    monkeypatch.setattr(host_memory, "keep_freed_memory", asked)
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    assert train.main(["--config", "run.yaml", "--max-steps", "1"]) == 2
    assert capsys.readouterr().err == "coupled train: asked\n"
