"""Benchmark a step of the arms: against the bare networks, by number of arms, by batch size; and what it spends.

    python scripts/benchmarks/bench_coupling.py [--device cuda] [--seconds 120]

The bare networks are forward, backward and optimizer alone, on views that lie on the device. On a CPU the networks are
the demo's (a ResNet-18 with a quarter of the channels, 16 px). On a GPU they are whole ResNets at 32 px, B = 1 024,
bfloat16, with and without `compile` and `deterministic`.
"""

import contextlib
import itertools
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from rows import Case, Options, Row, in_turn, row, run
from torch.profiler import ProfilerActivity, profile

from coupled.arms.arm import Arm
from coupled.config.controls import SHARED
from coupled.config.load import resolve
from coupled.coordinator import Coordinator
from coupled.parallel.host_memory import keep_freed_memory
from coupled.parallel.process_group import process_group
from coupled.stream.batches import Batch

ARMS = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
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
TINY: dict[str, Any] = {
    **ON_CPU,
    "dataset": {"name": "digits", "image_size": 8},
    "encoder": {"name": "resnet18", "width_multiplier": 0.0625},
    "arms": {"cl": "dcl", "ce": "cross_entropy"},
}
ON_GPU: dict[str, Any] = {
    **ON_CPU,
    "log_every": 5,
    "dataset": {"name": "fractals", "classes": 10, "train_per_class": 1000, "image_size": 32},
    "batch": {"size": 1024},
    "encoder": {"name": "resnet18", "width_multiplier": 1.0},
    "projector": {"hidden_dim": 2048, "output_dim": 128},
    "precision": "bfloat16",
    "channels_last": True,
}


@contextlib.contextmanager
def coordinator(options: Options, **changed: Any) -> Iterator[Coordinator]:
    """Yield a silent coordinator in a temporary folder, with the settings of the device."""
    keep_freed_memory()  # as train.py does
    base = TINY if options.tiny else ON_GPU if options.gpu else ON_CPU
    settings = resolve({**base, "device": options.device, **changed})
    with tempfile.TemporaryDirectory() as folder, process_group(options.device) as group:
        yield Coordinator(settings, group, Path(folder) / "run")


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


def coupled_row(name: str, options: Options, changed: Mapping[str, Any]) -> Row:
    """Measure the coupled step, batches included, against the bare step."""
    with coordinator(options, **changed) as coupled:
        ready, at_once = next(passed(coupled)), coupled.settings.log_every or 1

        def bare_steps() -> None:
            for _ in range(at_once):
                bare_step(coupled.arms, ready)

        ours, bare = (seconds / at_once for seconds in in_turn(program_steps(coupled), bare_steps))
        peak = torch.cuda.max_memory_allocated() / 2**20 if options.gpu else float("nan")
    return row(name, ours, bare, 0.95, ours_mib=peak)


@cache
def cost(options: Options, size: int, number: int) -> float:
    """Return the seconds of a step for each image and arm."""
    names = [(f"{name}{twin}", objective) for twin in range(4) for name, objective in ARMS.items()]
    enough = {**ON_GPU["dataset"], "image_size": 32 if options.gpu else 16}
    changed = {} if options.tiny else {"dataset": enough, "batch": {"size": size}}
    with coordinator(options, arms=dict(names[:number]), **changed) as coupled:
        return in_turn(program_steps(coupled), repeats=2)[0] / (coupled.settings.log_every or 1) / size / number


def growth_row(name: str, options: Options, size: int, number: int) -> Row:
    """Measure the cost per image and arm against one arm with the smallest batch."""
    return row(name, cost(options, size, number), cost(options, 256, 1), 0.9)


def profile_rows(options: Options) -> list[Row]:
    """Measure the ten largest costs of a step: time of the operations themselves, their share as a note."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.gpu else [])]
    with coordinator(options) as coupled:
        take, steps = program_steps(coupled), coupled.settings.log_every or 1
        take()
        with profile(activities=activities, acc_events=True) as profiled:
            take()
            if options.gpu:
                torch.cuda.synchronize()
    side = "self_device_time_total" if options.gpu else "self_cpu_time_total"
    costs = {each.key: getattr(each, side) / 1e3 / steps for each in profiled.key_averages()}
    total, largest = sum(costs.values()), sorted(costs, key=lambda key: -costs[key])[:10]
    rows = [row(f"profile of a step: {name[:60]}", costs[name], float("nan"), unit="ms") for name in largest]
    return [{**each, "note": f"{each['ours'] / total:.0%} of {total:.1f} ms"} for each in rows]


def cases(options: Options) -> list[Case]:
    """List the rows, the most important first."""
    no_gpu = "" if options.gpu else "no GPU"
    found = list[Case]()
    if not options.gpu:
        name = "coupled step of 4 arms, the demo's ResNet-18, against the bare networks"
        found.append(Case(name, partial(coupled_row, name, options, {})))
    for encoder, compiled, deterministic in itertools.product(("resnet18", "resnet50"), (True, False), (True, False)):
        how = f"compile {'on' if compiled else 'off'}, deterministic {'on' if deterministic else 'off'}"
        name = f"coupled step of 4 arms, {encoder}, {how}, on a GPU, against the bare networks"
        changed = {"encoder": {"name": encoder}, "compile": compiled, "deterministic": deterministic}
        found.append(Case(name, partial(coupled_row, name, options, changed), no_gpu))
    found.insert(4 if options.gpu else 1, Case("profile of a step", partial(profile_rows, options)))
    for number in (2,) if options.tiny else (2, 4, 8, 16):
        name = f"cost per image and arm, {number} arms against 1"
        found.append(Case(name, partial(growth_row, name, options, 256, number)))
    for size in () if options.tiny else (512, 1024, 2048):
        name = f"cost per image, B = {size} against 256"
        found.append(Case(name, partial(growth_row, name, options, size, 1)))
    return found


if __name__ == "__main__":
    run(cases, __doc__ or "", {})
