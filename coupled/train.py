"""Train all arms of a run in lockstep.

torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml
         [--run-dir runs/demo] [--resume [--accept-changed-images] | --overwrite] [--until-step K] [key=value ...]
"""

import sys

if __name__ == "__main__":  # this folder leaves sys.path, so that no file in it hides a module
    here = __file__.rpartition("/")[0]
    sys.path[:] = [here.rpartition("/")[0], *(place for place in sys.path if place != here)]
    from coupled import cli

    sys.exit(cli.main(["train", *sys.argv[1:]]))

import argparse
import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coupled.config.errors import Parser, complain, typed
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.parallel.launcher import end_with_agent, exit_status, under_torchrun


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit status: 2 for bad input, 1 for a failed run, 75 for one that a scheduler stopped, to be
    continued (0 under torchrun), 130 for Ctrl-C before or within a step.
    """
    try:
        options = parse(arguments)
    except ValueError as error:
        return complain("train.py", error)
    end_with_agent("train.py")
    try:
        return train(options)
    except KeyboardInterrupt:
        return interrupted("train.py")


def train(options: argparse.Namespace) -> int:
    """Settings -> process group -> coordinator -> run. Returns the exit status."""
    # torch is imported after the arguments are read, so that --help answers at once
    from coupled.arms.consistency import check_same_settings
    from coupled.config.load import load_settings
    from coupled.coordinator import Coordinator
    from coupled.parallel.failure_broadcast import FailureBroadcast, RunError
    from coupled.parallel.host_memory import keep_freed_memory
    from coupled.parallel.process_group import meet, process_group
    from coupled.storage.run_description import settings_of
    from coupled.storage.run_lock import MovedError
    from coupled.stream.seeds import set_determinism

    imports_done()
    try:
        meeting, preempted = meet(), False
    except ValueError as error:
        return complain("train.py", error)
    # the group is left after the alarm has told a failure: other ranks would take its closing for their own failure
    with contextlib.ExitStack() as opened, FailureBroadcast("train.py", meeting) as alarm:

        def earlier(name: str) -> dict[str, Any]:
            return settings_of(options.run or Path("runs") / name) if options.resume else {}

        settings = load_settings(options.config, options.overrides, earlier)
        check_same_settings(meeting, settings.resolved())
        set_determinism(settings.deterministic, settings.num_threads, settings.tf32)
        keep_freed_memory()
        joined = process_group(settings.device, settings.timeout_seconds, settings.parallel.arm_groups, meeting)
        group = opened.enter_context(joined)
        run = options.run or Path("runs") / settings.name
        if group.is_first:
            say(f"reading image set '{settings.dataset.name}'")
        # not kept: what refers to the process group should be gone before the group is
        coordinator = Coordinator(settings, group, run)
        try:
            stopped, preempted = coordinator.train(
                options.resume, options.overwrite, options.until_step, options.accept_changed_images
            )
        except MovedError as error:
            raise RunError(f"{error}; continue it with: {next_time(options, group.world_size, error.now)}") from None
        if stopped and group.is_first:
            again = next_time(options, group.world_size)
            say(f"{stopped}; nothing is lost: the same command with --resume continues it: {again}")
        elif group.is_first:
            say(f"{run}: complete; next: {next_command(list(settings.arms), run)}")
    return alarm.status or exit_status(preempted)


def next_command(arms: Sequence[str], run: Path) -> str:
    """The command line that looks at the run next: weight gaps, or of a single arm, which has none, its quality."""
    program = "weight_gap.py" if len(arms) > 1 else "quality.py"
    return shlex.join(["python", typed(Path(__file__).parents[1] / "analysis" / program), "--run", str(run)])


def next_time(options: argparse.Namespace, processes: int, moved_to: Path | None = None) -> str:
    """The command line that continues the run to its end on as many processes, in the folder `moved_to` if it was
    moved; for ranks that one command cannot start, that of each rank.
    """
    run = moved_to or options.run
    where = ["--run-dir", str(run)] if run else []
    program = [typed(Path(__file__)), "--resume", "--config", str(options.config), *where, *options.overrides]
    if under_torchrun() and os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        return shlex.join(["torchrun", "--standalone", f"--nproc_per_node={processes}", *program])
    return ("of every rank, started as before: " if processes > 1 else "") + shlex.join(["python", *program])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: options and `key=value` overrides in any order. Raises ValueError."""
    parser = Parser(prog="train.py", description="Train all arms of a run in lockstep.")
    parser.add_argument("--config", type=Path, required=True, help="settings, a YAML file such as configs/demo.yaml")
    # torchrun refuses `--run`, which could be its own --run-path abbreviated, even behind the name of the script
    where = "folder of the run (default: runs/<name of the run>); under torchrun write --run-dir"
    parser.add_argument("--run", "--run-dir", dest="run", type=Path, metavar="DIR", help=where)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="continue the run in the folder, or start it if none is there"
    )
    existing.add_argument("--overwrite", action="store_true", help="delete the run in the folder and start afresh")
    accept = "with --resume: go on although images have changed since the run began; run.json says from which step"
    parser.add_argument("--accept-changed-images", action="store_true", help=accept)
    parser.add_argument("--until-step", type=int, metavar="K", help="stop after step K of the run, to be continued")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changed settings, such as optimizer.base_lr=0.2"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.accept_changed_images and not options.resume:
        raise ValueError("--accept-changed-images: only with --resume; a new run takes the images as they are")
    return options
