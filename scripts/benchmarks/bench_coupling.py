"""Benchmark the cost of the coupling: against the bare networks, against separate runs, by number of arms and batch.

    python scripts/benchmarks/bench_coupling.py [--device cpu]      (about four minutes on two cores)

On a CPU the networks are the demo's (a ResNet-18 with a quarter of the channels, 16 px); on a GPU ResNet-50 at 32 px.
"""

import argparse
import contextlib
import io
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from coupled.arms.arm import Arm
from coupled.config.controls import SHARED
from coupled.config.schema import from_resolved
from coupled.coordinator import Coordinator
from coupled.monitoring.terminal import safe_streams
from coupled.parallel.host_memory import keep_freed_memory
from coupled.parallel.process_group import process_group
from coupled.stream.batches import Batch

Row = dict[str, Any]
ARMS = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
REPEATS = 5
ON_CPU: dict[str, Any] = {
    "name": "benchmark",
    "epochs": 1,
    "log_every": 1,
    "dataset": {"name": "digits", "image_size": 16},
    "batch": {"size": 256},
    "encoder": {"name": "resnet18", "width_multiplier": 0.25},
    "projector": {"hidden_dim": 64, "output_dim": 32},
    "optimizer": {"name": "lars", "warmup_epochs": 0},
    "arms": ARMS,
}
ON_GPU: dict[str, Any] = {
    **ON_CPU,
    "log_every": 10,
    "dataset": {"name": "fractals", "classes": 10, "train_per_class": 1000, "image_size": 32},
    "batch": {"size": 1024},
    "encoder": {"name": "resnet50", "width_multiplier": 1.0},
    "projector": {"hidden_dim": 2048, "output_dim": 128},
    "precision": "bfloat16",
    "channels_last": True,
}


@contextlib.contextmanager
def coordinator(device: str, **changed: Any) -> Iterator[Coordinator]:
    """Yield a silent coordinator in a temporary folder."""
    keep_freed_memory()  # as train.py does
    settings = {**(ON_GPU if device == "cuda" else ON_CPU), "device": device, **changed}
    with tempfile.TemporaryDirectory() as folder, process_group(device) as group:
        yield Coordinator(from_resolved(settings), group, Path(folder) / "run")


def passed(coordinating: Coordinator) -> Iterator[Batch]:
    """Return the batches of all epochs of the stream that all arms share."""
    return (inputs[SHARED] for epoch in itertools.count(1) for inputs in coordinating.step_batches(epoch))


def program_steps(coordinating: Coordinator) -> Callable[[], object]:
    """Return a function that runs the next `log_every` steps of the program, batches included."""
    lockstep, a_epoch = coordinating.lockstep, coordinating.steps_per_epoch

    def feed(done: int) -> Iterator[Mapping[str, Batch]]:
        yield from coordinating.step_batches(done // a_epoch + 1, done % a_epoch)
        for epoch in itertools.count(done // a_epoch + 2):
            yield from coordinating.step_batches(epoch)

    taken = lockstep.steps(0, sys.maxsize, feed, lambda step: 0)
    return lambda: deque(itertools.islice(taken, coordinating.settings.log_every), maxlen=0)


def bare_step(arms: list[Arm], batch: Batch) -> None:
    """Run only forward, backward and optimizer of the same networks, on tensors that are already on the device."""
    for arm in arms:
        arm.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.views_VB3SS.device.type, torch.bfloat16, enabled=arm.precision == "bfloat16"):
            outputs = arm.network(batch.views_VB3SS)
        sum(output.float().square().sum() for output in outputs.values()).backward()
        arm.optimizer.step()


def in_turn(*sides: Callable[[], object], device: str = "cpu") -> list[float]:
    """Return the median seconds of each side. They alternate, so the load of the machine affects all equally."""
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(REPEATS + 1):
        for side, taken in zip(sides, seconds, strict=True):
            began = time.perf_counter()
            side()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first call is a warm-up
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def coupled_row(device: str) -> Row:
    """Measure the coupled step, batches included, against the bare step."""
    with coordinator(device) as coupled:
        ready, at_once = next(passed(coupled)), coupled.settings.log_every or 1

        def bare_steps() -> None:
            for _ in range(at_once):
                bare_step(coupled.arms, ready)

        ours, bare = (seconds / at_once for seconds in in_turn(program_steps(coupled), bare_steps, device=device))
    goal = 0.95 if device == "cuda" else 0.9
    return row("coupled step of 4 arms, against the bare networks", ours, bare, goal)


def optimizer_row(device: str) -> Row:
    """Measure the optimizer step of four ResNet-50 arms against a loop over the parameters."""
    small: dict[str, Any] = {"dataset": {"name": "digits", "image_size": 8}, "batch": {"size": 16}}
    small["encoder"] = {"name": "resnet50"}  # the step does not depend on the images
    changed = {} if device == "cuda" else small
    with coordinator(device, optimizer={"name": "sgd", "warmup_epochs": 0}, **changed) as coupled:
        batch = next(passed(coupled))
        program_steps(coupled)()
        for arm in coupled.arms:
            arm.gradients(batch)
        loops = [torch.optim.SGD(arm.trained, 0.01, 0.9, weight_decay=1e-6, foreach=False) for arm in coupled.arms]
        ours, loop = in_turn(
            lambda: [arm.optimizer.step() for arm in coupled.arms],
            lambda: [each.step() for each in loops],
            device=device,
        )
    return row("optimizer step of 4 ResNet-50 arms, against a loop over parameters", ours, loop, 1.0)


def growth_rows(device: str) -> list[Row]:
    """Measure the cost per image and arm for growing batch and number of arms, against the smallest of each."""
    sizes, numbers = (256, 512, 1024, 2048, 4096), (1, 2, 4, 8)
    enough = {**ON_GPU["dataset"], "size": 32 if device == "cuda" else 16}

    def seconds(size: int, arms: int) -> float:
        names = {f"{name}{twin}": objective for twin in range(2) for name, objective in ARMS.items()}
        chosen = dict(itertools.islice(names.items(), arms))
        with coordinator(device, dataset=enough, batch={"size": size}, arms=chosen) as coupled:
            taken = in_turn(program_steps(coupled), device=device)[0]
            return taken / (coupled.settings.log_every or 1) / size / arms

    by_size = [seconds(size, 1) for size in sizes]
    by_arms = [by_size[0], *(seconds(sizes[0], number) for number in numbers[1:])]
    return [
        row(f"cost per image and arm, B = {size} against {sizes[0]}", taken, by_size[0], 0.9)
        for size, taken in zip(sizes[1:], by_size[1:], strict=True)
    ] + [
        row(f"cost per image and arm, {number} arms against 1", taken, by_arms[0], 0.9)
        for number, taken in zip(numbers[1:], by_arms[1:], strict=True)
    ]


def separate_row(device: str) -> Row:
    """Measure a whole run of four arms against four runs of one arm, each in a separate process."""
    ours = whole_run(device, list(ARMS))
    alone = [whole_run(device, [name]) for name in ARMS]
    found = row("run of 4 arms, against four runs of one", ours[0], sum(seconds for seconds, _ in alone), 1.0)
    return {**found, "ours_peak_mib": ours[1], "baseline_peak_mib": max(peak for _, peak in alone)}


def whole_run(device: str, names: list[str]) -> tuple[float, float]:
    """Return seconds and peak MiB of a fresh process that trains these arms for three epochs."""
    began = time.perf_counter()
    # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
    command = ["sh", "-c", '"$@" && true', "sh", sys.executable, __file__, "--device", device, "--run", *names]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, json.loads(ended.stdout.splitlines()[-1])


def run_arms(device: str, names: list[str]) -> None:
    """Train in this process and print its peak memory in MiB."""
    chosen, quiet = {name: ARMS[name] for name in names}, contextlib.redirect_stdout(io.StringIO())
    with coordinator(device, epochs=3, arms=chosen) as coupled, quiet:
        coupled.train()
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _resident_mib()
    print(json.dumps(peak))


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(name: str, ours: float, baseline: float, goal: float) -> Row:
    """Return a row of the benchmark, in seconds."""
    numbers = {"ours": ours, "baseline": baseline, "ratio": baseline / ours, "goal": goal, "unit": "s"}
    return {"name": name, **numbers, "ours_peak_mib": 0.0, "baseline_peak_mib": 0.0}


def each_row(device: str) -> Iterator[Row]:
    """Yield all rows of this file as they are measured."""
    yield coupled_row(device)
    yield optimizer_row(device)
    yield separate_row(device)
    yield from growth_rows(device)


def coupling_rows() -> list[Row]:
    """Return the rows for `benchmark.py`: measured on the GPU if there is one."""
    return list(each_row("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    safe_streams()
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--run", nargs="+", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_arms(options.device, options.run)
    else:
        for each in each_row(options.device):
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in each.items()), flush=True)
