"""The forecast of memory: what is counted, what is free, and when a run is refused."""

import re
from pathlib import Path

import pytest
import torch
from support import tiny

from coupled import train
from coupled.models import memory
from coupled.models.memory import Forecast, free_memory, memory_line
from coupled.models.probe import Probe

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1 000 MiB free, and no control groups."""
    for name in ("MEMINFO", "OWN_CGROUPS", "CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    (tmp_path / "MEMINFO").write_text("MemTotal: 9999999 kB\nMemAvailable:  921600 kB\nSwapFree:  102400 kB\n")
    return tmp_path


def limit(folder: Path, limit: str, used: int, names: tuple[str, str] = ("memory.max", "memory.current")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")


def test_free_is_the_least_of_the_machine_and_every_control_group(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container or a SLURM job the machine's own number is of no use."""
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


def test_all_that_is_as_large_as_the_weights_is_counted() -> None:
    """Weights, gradients and moments of every arm at once; the activations of one arm."""
    seen = Probe(saved=5, saved_an_image=1000, weights=70, unused=frozenset())
    at = {"images": 8, "images_at_once": 8, "batch": 16, "views": 2, "image_size": 4}
    need = memory.forecast(seen, [60, 40], "adamw", **at, device=CPU)
    assert need[:2] == (5 + 16 * 1000, 4 * 100)
    assert memory.forecast(seen, [60, 40], "sgd", **at, device=CPU).arms == 300
    more_views = memory.forecast(seen, [60, 40], "adamw", **{**at, "views": 4}, device=CPU)
    assert more_views.activations == 5 + 32 * 1000
    local = memory.forecast(seen, [60, 40], "adamw", **at, device=CPU, local_views=6, local_size=2)
    assert local.activations == 5 + (16 + 6 * 8 // 4) * 1000  # a view of half the side keeps a quarter
    assert (
        memory.forecast(seen, [60, 40], "adamw", **{**at, "images_at_once": 2}, device=CPU).activations == 5 + 4 * 1000
    )
    on_gpu = memory.forecast(seen, [60, 40], "adamw", **at, device=torch.device("cuda"))
    assert need.more - on_gpu.more == 70 + 300  # the start, and what is being written, are in main memory


def test_what_certainly_does_not_fit_is_refused_and_what_may_not_fit_is_said() -> None:
    """The system ends a process that takes too much without a word on why."""
    need = Forecast(activations=300 * MIB, arms=100 * MIB, more=200 * MIB)
    assert memory_line(need, None, 16, 2, CPU) == "a step needs about 600 MiB of memory"
    assert memory_line(need, 600 * MIB, 16, 2, CPU).endswith("of 600 MiB free on the machine")
    assert memory_line(need, 599 * MIB, 16, 2, CPU).startswith("warning: a step needs about 600 MiB")
    parts = "300 MiB are activations of 16 views, 100 MiB weights, gradients and moments of 2 arms; use a smaller"
    with pytest.raises(ValueError, match=rf"^batch\.size: .*{parts} batch\.size, dataset"):
        memory_line(need, 399 * MIB, 16, 2, CPU)
    with pytest.raises(ValueError, match=r"^encoder\.name: "):
        memory_line(need._replace(arms=301 * MIB), 399 * MIB, 16, 2, CPU)


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
def test_the_program_says_what_it_needs_and_is_refused_before_it_writes(
    machine: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    status: int,
    said: str,
) -> None:
    """Before the weights are made, which may not fit either."""
    monkeypatch.chdir(machine)
    Path("run.yaml").write_text(tiny.TINY_YAML)
    determinism = torch.are_deterministic_algorithms_enabled()
    assert train.main(["--config", "run.yaml", "--max-steps", "1", *overrides]) == status
    torch.use_deterministic_algorithms(determinism)
    captured = capsys.readouterr()
    assert re.search(said, captured.err if status else captured.out)
    assert captured.err.count("\n") == (status == 2)
    assert Path("runs").exists() == (status == 0)
