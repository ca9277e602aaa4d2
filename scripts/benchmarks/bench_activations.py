"""Measure what `activation_checkpointing` and `batch.micro_batch` save: peak memory and time of a step of one arm.

    python scripts/benchmarks/bench_activations.py [--size B] [--encoders NAME ...]     (about three minutes on a CPU)

Each row is a fresh process that takes two steps. The memory is the peak of what torch allocates in the first step:
activations, gradients and momentum. The time is that of the second step, in CPU seconds or on a GPU in seconds. Ratios
are to the same step with neither setting.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from coupled.config.load import resolve
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import process_group

SETTINGS: dict[str, Any] = {
    "name": "benchmark",
    "dataset": {"name": "digits", "image_size": 32},
    "projector": {"output_dim": 64},
    "arms": {"cl": "dcl"},
}
WAYS: dict[str, Callable[[int], dict[str, Any]]] = {  # settings for a batch of this size
    "neither": lambda size: {"batch": {"size": size}},
    "activation_checkpointing": lambda size: {"batch": {"size": size}, "activation_checkpointing": True},
    "micro_batch B/8": lambda size: {"batch": {"size": size, "micro_batch": size // 8}},
    "both": lambda size: {"batch": {"size": size, "micro_batch": size // 8}, "activation_checkpointing": True},
}
WITH_BATCH_NORM = ("resnet", "efficientnet", "mobilenet", "regnet", "densenet")  # these are refused with micro-batches


def take_two_steps(encoder: str, size: int, way: str) -> None:
    """Take two steps in this process; print as JSON the seconds of the second one and the peak MiB of the first one."""
    on_gpu = torch.cuda.is_available()
    torch.set_num_threads(1)
    settings = resolve(SETTINGS | {"encoder": {"name": encoder}, **WAYS[way](size)})
    clock = time.perf_counter if on_gpu else time.process_time
    with tempfile.TemporaryDirectory() as folder, process_group("auto") as group:
        coordinator = Coordinator(settings, group, Path(folder) / "run")
        (arm,), batches = coordinator.arms, coordinator.step_batches(1)

        def step(number: int) -> None:
            arm.read(arm.gradients(next(batches)[""]).tolist())  # waits for the device
            arm.update(0.1, number)

        peak = (_peak_on_gpu if on_gpu else _peak_of_tensors)(lambda: step(1))
        began = clock()
        step(2)
        print(json.dumps([clock() - began, peak]))


def _peak_on_gpu(step: Callable[[], None]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _peak_of_tensors(step: Callable[[], None]) -> float:
    """Return the peak MiB that torch allocates on the CPU; the process holds more, because freed memory has holes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        step()
    assert profiled.profiler
    events = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    events.sort(key=lambda each: each.start_ns())
    return max(itertools.accumulate(each.nbytes() for each in events)) / 2**20


def measured(encoder: str, size: int, way: str) -> tuple[float, float]:
    """Return seconds of a step and peak MiB of a fresh process."""
    command = [sys.executable, __file__, "--way", way, "--size", str(size), "--encoders", encoder]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, mib = json.loads(ended.stdout.splitlines()[-1])
    return seconds, mib


def main() -> None:
    """Print a table, one line a process."""
    parser = argparse.ArgumentParser(prog="bench_activations.py", description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, metavar="B", help="images of a batch (default: 64)")
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "vit_tiny_patch16_224"], metavar="NAME")
    parser.add_argument("--way", choices=WAYS, help="measure this way alone, in this process")
    options = parser.parse_args()
    if options.way:
        take_two_steps(options.encoders[0], options.size, options.way)
        return
    print(f"{'encoder':24}{'setting':28}{'s a step':>10}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}", flush=True)
    for encoder in options.encoders:
        base = (0.0, 0.0)
        for way, settings in WAYS.items():
            if "micro_batch" in settings(options.size)["batch"] and encoder.startswith(WITH_BATCH_NORM):
                continue
            seconds, mib = measured(encoder, options.size, way)
            base = (seconds, mib) if way == "neither" else base
            ratios = seconds / base[0], mib / base[1]
            print(f"{encoder:24}{way:28}{seconds:10.2f}{ratios[0]:7.2f}x{mib:10.0f}{ratios[1]:7.2f}x", flush=True)


if __name__ == "__main__":
    main()
