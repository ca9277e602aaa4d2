"""The forecast of memory: what is counted, what is free, and when a run is refused."""

import ctypes
import platform
import re
from pathlib import Path

import pytest
import torch
from support import tiny

from coupled import train
from coupled.models import memory
from coupled.models.encoders import failures_named
from coupled.models.memory import ArmBytes, Forecast, free_memory, memory_line
from coupled.models.probe import Probe
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.host_memory import reusable_bytes

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1 000 MiB free, and no control groups."""
    for name in ("MEMINFO", "OWN_CGROUPS", "CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    monkeypatch.setattr(memory, "reusable_bytes", lambda: 0)
    (tmp_path / "MEMINFO").write_text("MemTotal: 9999999 kB\nMemAvailable:  921600 kB\nSwapFree:  102400 kB\n")
    return tmp_path


def limit(folder: Path, limit: str, used: int, names: tuple[str, str] = ("memory.max", "memory.current")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")


def test_free_memory_is_the_minimum_over_the_machine_and_all_cgroups(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container or a SLURM job the limit of the control group applies, not the machine's memory."""
    assert free_memory(CPU) == 1000 * MIB
    (machine / "OWN_CGROUPS").write_text("0::/job/step\n")
    limit(machine / "CGROUPS/job/step", "max", 7)
    limit(machine / "CGROUPS/job", str(500 * MIB), 100 * MIB)
    assert free_memory(CPU) == 420 * MIB
    (machine / "OWN_CGROUPS").write_text("4:memory:/old\n3:cpu:/other\n0::/\n")
    limit(machine / "CGROUPS/memory/old", str(300 * MIB), 0, ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    assert free_memory(CPU) == 320 * MIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == 80 * MIB
    for name in ("MEMINFO", "OWN_CGROUPS"):
        (machine / name).unlink()
    assert free_memory(CPU) is None


def test_memory_that_an_earlier_run_left_with_the_process_is_free(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook that trains twice would otherwise be refused the second time."""
    monkeypatch.setattr(memory, "reusable_bytes", lambda: 7 * MIB)
    assert free_memory(CPU) == 1007 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_what_is_freed_within_the_heap_can_be_used_again() -> None:
    """Freed blocks between used ones stay with the process."""
    blocks = [ctypes.create_string_buffer(2**16) for _ in range(200)]
    before = reusable_bytes()
    del blocks[::2]
    assert 90 * 2**16 < reusable_bytes() - before < 110 * 2**16


def test_weights_gradients_and_optimizer_state_are_counted() -> None:
    """All tensors, gradients and moments of every arm at once, and their copies; the activations of one arm."""
    seen = Probe(saved=5, saved_an_image=1000, weights=70, unused=frozenset())
    at = {"images": 8, "images_at_once": 8, "batch": 16, "views": 2, "image_size": 4}
    arms = [ArmBytes(60, 60), ArmBytes(80, 40)]  # the second has a target network
    need = memory.forecast(seen, arms, "adamw", **at, device=CPU)
    assert need[:2] == (5 + 16 * 1000, 140 + 3 * 100)
    assert memory.forecast(seen, arms, "sgd", **at, device=CPU).arms == 140 + 2 * 100
    more_views = memory.forecast(seen, arms, "adamw", **{**at, "views": 4}, device=CPU)
    assert more_views.activations == 5 + 32 * 1000
    local = memory.forecast(seen, arms, "adamw", **at, device=CPU, local_views=6, local_size=2)
    assert local.activations == 5 + (16 + 6 * 8 // 4) * 1000  # a view of half the side keeps a quarter
    states = 140 + 2 * 100
    kept = memory.forecast(seen, arms, "adamw", **at, device=CPU, keeps_copy=True)
    assert kept.more - need.more == states  # to go back to, if a loss is not finite
    ahead = memory.forecast(seen, arms, "adamw", **at, device=CPU, workers=3)
    assert ahead.more - need.more == 6 * 16 * 3 * 4 * 4**2
    few = memory.forecast(seen, arms, "adamw", **{**at, "images_at_once": 2}, device=CPU)
    assert few.activations == 5 + 4 * 1000
    nothing = Probe(saved=0, saved_an_image=0, weights=0, unused=frozenset())
    batches = ({**at, "batch": size} for size in (2**19, 2**20))
    small, large = (memory.forecast(nothing, [], "sgd", **each, device=CPU) for each in batches)
    assert small.more == large.more  # losses of large batches are computed in blocks
    on_gpu = memory.forecast(seen, arms, "adamw", **at, device=torch.device("cuda"))
    backward = (memory.BACKWARD["cpu"] - memory.BACKWARD["cuda"]) * need.activations
    # the start, and what is being written, are in main memory
    assert need.more - on_gpu.more == pytest.approx(70 + 2 * states + backward, abs=1)


def test_a_run_that_cannot_fit_is_refused_and_one_that_may_not_fit_warns() -> None:
    """The system kills a process that uses too much memory without a reason."""
    need = Forecast(activations=300 * MIB, arms=100 * MIB, more=200 * MIB)
    assert memory_line(need, None, 16, 2, CPU) == "a step needs about 600 MiB of memory"
    assert memory_line(need, 750 * MIB, 16, 2, CPU).endswith("of 750 MiB free on the machine")
    for free in (749, 480):
        assert memory_line(need, free * MIB, 16, 2, CPU).startswith("warning: a step needs about 600 MiB")
    parts = "300 MiB are activations of 16 views, 100 MiB weights, gradients and moments of 2 arms; use a smaller"
    keys = "batch.size, dataset.image_size, .*activation_checkpointing=true, .*parallel.arm_groups$"
    with pytest.raises(ValueError, match=rf"^batch\.size: .*{parts} {keys}"):
        memory_line(need, 479 * MIB, 16, 2, CPU)
    with pytest.raises(ValueError, match=r"^encoder\.name: "):
        memory_line(need._replace(arms=301 * MIB, more=0), 600 * MIB, 16, 2, CPU)


@pytest.mark.parametrize(
    ("overrides", "status", "said"),
    [
        (
            ["encoder.width_multiplier=16"],
            2,
            r"coupled train: encoder\.name: a step needs about \S+ MiB of memory of 1,000 MiB free .* encoder\.wid",
        ),
        (
            ["dataset.image_size=64", "batch.size=1024", "encoder.width_multiplier=1"],
            2,
            r"coupled train: batch\.size: a step needs about \S+ MiB of memory of 1,000 MiB free",
        ),
        (
            ["batch.size=1440", "arms={cl: dcl}"],
            0,
            r"a step needs about 4\d\d MiB of memory of 1,000 MiB free on the machine",
        ),
    ],
)
def test_memory_is_forecast_and_checked_before_anything_is_written(
    machine: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    status: int,
    said: str,
) -> None:
    """The check comes before the weights are allocated, which may not fit either."""
    monkeypatch.chdir(machine)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    determinism = torch.are_deterministic_algorithms_enabled()
    assert train.main(["--config", "run.yaml", "--max-steps", "1", *overrides]) == status
    torch.use_deterministic_algorithms(determinism)
    captured = capsys.readouterr()
    assert re.search(said, captured.err if status else captured.out)
    assert captured.err.count("\n") == (status == 2)
    assert Path("runs").exists() == (status == 0)


OBJECTIVE = """
from pathlib import Path
import torch
from coupled.objectives.dcl import dcl

calls = 0

def full(inputs, *, temperature=0.5):
    global calls
    calls += 1
    if calls > 8 and Path("full").exists():  # the first call is made twice: step 8, in the second epoch
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")
    return dcl(inputs, temperature=temperature)
"""


def test_a_failed_allocation_is_one_line_and_the_run_can_be_continued(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within the user's code, whose other errors are bad input."""
    monkeypatch.chdir(machine)
    Path("full").touch()
    Path("own.py").write_text(OBJECTIVE)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    options = ["--config", "run.yaml", "arms={cl: own.py:full, ce: cross_entropy}", "epochs=2"]
    determinism = torch.are_deterministic_algorithms_enabled()
    assert train.main([*options, "--run-dir", "runs/failed"]) == 1
    failed = capsys.readouterr().err
    assert failed.startswith("coupled train: out of memory: an allocation of 2.00 GiB failed, a step needs about ")
    assert "MiB, 1,000 MiB are free on the machine; use a smaller batch.size, dataset.image_size, " in failed
    assert failed.count("\n") == 1
    Path("full").unlink()
    assert train.main([*options, "--run-dir", "runs/failed", "--resume"]) == 0
    assert train.main([*options, "--run-dir", "runs/whole"]) == 0
    torch.use_deterministic_algorithms(determinism)
    assert len(tiny.snapshot_bytes(Path("runs/whole"))) == 6
    assert tiny.snapshot_bytes(Path("runs/failed")) == tiny.snapshot_bytes(Path("runs/whole"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "an allocation failed"),
        (torch.OutOfMemoryError("Tried to allocate 20.50 MiB."), "an allocation of 20.50 MiB failed"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 512 bytes. Error code 12"),
            "an allocation of 512 bytes failed",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "an allocation failed"),
    ],
)
def test_every_kind_of_failed_allocation_is_named(machine: Path, error: Exception, said: str) -> None:
    """A try of the encoder passes it on: the model is not at fault."""
    need = Forecast(activations=300 * MIB, arms=100 * MIB, more=200 * MIB)
    line = f"^out of memory: {said}, a step needs about 600 MiB, 1,000 MiB are free on the machine; use a smaller"
    with pytest.raises(RunError, match=line), memory.memory_errors(need), failures_named("resnet18", "the image size"):
        raise error


def test_other_errors_are_passed_on() -> None:
    """A bug must keep its traceback."""
    with pytest.raises(RuntimeError, match="shapes") as raised, memory.memory_errors():
        raise RuntimeError("shapes differ")
    assert not isinstance(raised.value, RunError)
