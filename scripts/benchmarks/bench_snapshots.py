"""Benchmark snapshots: how long training waits for an epoch's snapshots and checkpoint, with and without writer thread.

    python scripts/benchmarks/bench_snapshots.py      (about a minute)

Four ResNet-18 arms with a quarter of the channels train three epochs on the digits on one thread, once with the writer
thread and once waiting for every write. The stall of an epoch is the time spent in `CheckpointWriter.save`, in percent
of the epoch.
"""

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

from coupled.config.schema import from_resolved
from coupled.coordinator import Coordinator
from coupled.monitoring.terminal import safe_streams
from coupled.parallel.process_group import process_group
from coupled.storage.checkpoint_writer import CheckpointWriter

SETTINGS: dict[str, Any] = {
    "name": "bench",
    "epochs": 3,
    "device": "cpu",
    "num_threads": 1,
    "dataset": {"name": "digits", "image_size": 16},
    "batch": {"size": 128},
    "encoder": {"name": "resnet18", "width_multiplier": 0.25},
    "projector": {"hidden_dim": 64, "output_dim": 32},
    "optimizer": {"warmup_epochs": 1},
    "arms": {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"},
}


class _Timed(contextlib.AbstractContextManager["_Timed"]):
    """Time every call of `CheckpointWriter.save` in the context; if `synchronous`, it waits until all is written."""

    def __init__(self, synchronous: bool) -> None:
        self.synchronous, self.calls = synchronous, list[tuple[float, float]]()

    def __enter__(self) -> "_Timed":
        self.save = save = CheckpointWriter.save

        def timed(writer: CheckpointWriter, *arguments: Any, **named: Any) -> None:
            began = time.monotonic()
            save(writer, *arguments, **named)
            if self.synchronous:
                writer.background.finish()
            self.calls.append((began, time.monotonic()))

        setattr(CheckpointWriter, "save", timed)  # noqa: B010 - mypy refuses the plain assignment
        return self

    def __exit__(self, *_: object) -> None:
        setattr(CheckpointWriter, "save", self.save)  # noqa: B010


def stall(synchronous: bool) -> float:
    """Return the percentage of an epoch that training waits, in the median epoch, measured from `save` to `save`."""
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, _Timed(synchronous) as timed, process_group("cpu") as group, quiet:
        Coordinator(from_resolved(SETTINGS), group, Path(folder) / "run").train()
    calls = timed.calls
    shares = [(end - began) / (end - calls[number][1]) for number, (began, end) in enumerate(calls[1:])]
    return 100 * sorted(shares)[len(shares) // 2]


def snapshot_rows() -> list[dict[str, Any]]:
    """Measure one row: the stall in percent of an epoch with the writer thread (goal: below 1) and without it."""
    ours, baseline = stall(synchronous=False), stall(synchronous=True)
    return [
        {
            "name": "snapshot stall, share of an epoch (goal: below 1 %)",
            "ours": ours,
            "baseline": baseline,
            "ratio": baseline / ours,
            "goal": 1,
            "unit": "%",
            "ours_peak_mib": float("nan"),
            "baseline_peak_mib": float("nan"),
        }
    ]


if __name__ == "__main__":
    safe_streams()
    for row in snapshot_rows():
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
