"""Benchmark the layouts: a step of four arms on two processes, data-parallel and arm-parallel, against one process.

    python scripts/benchmarks/bench_distributed.py [--seconds 120]

Every process has one thread. The share of communication is the time that a step on two ranks spends in collectives,
waiting included. With fewer free cores than processes, the rows measure the cost of sharing a core, not the gain from a
second core.
"""

import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_coupling import program_steps
from rows import Case, Options, Row, row, run, started

from coupled.config.schema import from_resolved
from coupled.coordinator import Coordinator
from coupled.parallel import process_group as ranks

STEPS_OF = {64: 12, 256: 3}  # steps to time, by the size of the global batch
WARM_UP = 2
READ_EVERY = 6
SETTINGS: dict[str, Any] = {
    "name": "benchmark",
    "device": "cpu",
    "epochs": 1,
    "dataset": {"name": "digits", "image_size": 16},
    "encoder": {"name": "resnet18", "width_multiplier": 0.25},
    "projector": {"hidden_dim": 64, "output_dim": 32},
    "optimizer": {"name": "sgd", "warmup_epochs": 0},
    "arms": {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"},
}
LAYOUTS = {"one process": (1, 1), "data-parallel": (2, 1), "arm-parallel": (2, 2)}  # processes, groups of arms


def measure(places: int, size: int, log_every: int) -> None:
    """Time steps on a rank. Rank 0 prints as JSON the median seconds of a step of all arms and of its collectives.

    `places` is the number of groups of arms, `size` that of the global batch; losses are read every `log_every` steps.
    """
    torch.set_num_threads(1)
    waited = [0.0]
    for name in ("all_reduce", "all_gather"):  # not counted: DDP's all-reduce, which overlaps with the backward
        setattr(ranks.dist, name, timed(getattr(ranks.dist, name), waited))
    settings = from_resolved(
        {**SETTINGS, "parallel": {"arm_groups": places}, "batch": {"size": size}, "log_every": log_every}
    )
    with ranks.process_group("cpu", arms=places) as group, tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(settings, group, Path(folder) / "run")
        seconds, in_collectives = [], []
        take = program_steps(coordinator)
        for _ in range(max(2, STEPS_OF[size] // log_every) + WARM_UP):
            ranks.barrier()
            before, waited[0] = time.perf_counter(), 0.0
            take()
            in_collectives.append(waited[0] / log_every)
            ranks.barrier()  # a step ends when the slower rank ends
            seconds.append((time.perf_counter() - before) / log_every)
        if group.is_first:
            medians = [statistics.median(values[WARM_UP:]) for values in (seconds, in_collectives)]
            print(json.dumps(medians))


def timed(function: Any, waited: list[float]) -> Any:
    """Return `function` with its seconds added to `waited`."""

    def call(*arguments: Any, **options: Any) -> Any:
        before = time.perf_counter()
        result = function(*arguments, **options)
        waited[0] += time.perf_counter() - before
        return result

    return call


def run_layout(size: int, processes: int, places: int, log_every: int = 1) -> tuple[float, float]:
    """Return the median seconds of a step, and of its collectives, on rank 0 of fresh processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(places), str(size), str(log_every)]
    with contextlib.ExitStack() as ending:
        ranks_of_run = [
            ending.enter_context(started(command, {**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
            for rank in range(processes)
        ]
        outputs = [process.communicate()[0] for process in ranks_of_run]
    if any(process.returncode for process in ranks_of_run):
        raise RuntimeError(f"a rank failed with {processes} processes and {places} groups of arms")
    seconds, in_collectives = json.loads(outputs[0])
    return seconds, in_collectives


def two_rows(size: int) -> list[Row]:
    """Measure both layouts of two processes against one, and the share of collectives in a data-parallel step."""
    found = {name: run_layout(size, *layout) for name, layout in LAYOUTS.items()}
    one, (seconds, in_collectives) = found["one process"][0], found["data-parallel"]
    return [
        row(f"step of 4 arms, B = {size}, on 2 processes, data-parallel, against one", seconds, one, 1.2),
        row(
            f"step of 4 arms, B = {size}, on 2 processes, arm-parallel, against one", found["arm-parallel"][0], one, 1.7
        ),
        row(f"collectives in a data-parallel step, B = {size}, against the step", in_collectives, seconds, 2),
    ]


def unread_row(name: str, size: int) -> Row:
    """Measure a data-parallel step whose losses are read every few steps, against every step."""
    unread, read = (run_layout(size, *LAYOUTS["data-parallel"], log_every=every)[0] for every in (READ_EVERY, 1))
    return row(name, unread, read, 1.0)


def cases(options: Options) -> list[Case]:
    """List the rows."""
    lacks = "starts processes" if options.tiny else "measured on a CPU only" if options.gpu else ""
    name = f"data-parallel step, B = 64, losses read every {READ_EVERY} steps, against every step"
    return [
        *(Case(f"step of 4 arms on 2 processes, B = {size}", partial(two_rows, size), lacks) for size in STEPS_OF),
        Case(name, partial(unread_row, name, 64), lacks),
    ]


if __name__ == "__main__":
    if "RANK" in os.environ:
        measure(*map(int, sys.argv[1:]))
    else:
        run(cases, __doc__ or "", {})
