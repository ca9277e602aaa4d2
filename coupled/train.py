"""Train all arms of a run in lockstep.

torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml
coupled train demo [--run-dir runs/demo] [--resume | --overwrite] [--max-steps K] [key=value ...]
"""

import sys

if __name__ == "__main__":  # remove this folder from sys.path: a file in it would hide a module of the same name
    here = __file__.rpartition("/")[0]
    sys.path[:] = [here.rpartition("/")[0], *(place for place in sys.path if place != here)]
    from coupled import cli

    sys.exit(cli.main(["train", *sys.argv[1:]]))

import argparse
import contextlib
import os
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupled.config.errors import report_error
from coupled.config.train_options import parse
from coupled.monitoring.commands import program_name, suggest, suggest_torchrun
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.parallel.launcher import end_with_agent, exit_status, under_torchrun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coupled.analysis.run import Run
    from coupled.config.schema import Settings
    from coupled.parallel.process_group import ProcessGroup, Rendezvous


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 2 for bad input, 1 for a failed run, 75 for a run that a scheduler
    stopped and that can be continued (0 under torchrun), 130 for Ctrl-C before or within a step.
    """
    program = program_name("train")
    try:
        options = parse(arguments)
    except ValueError as error:
        return report_error(program, error)
    end_with_agent(program)
    # torch is imported after the arguments are parsed, so that --help is fast
    try:
        from coupled.coordinator import Coordinator
        from coupled.parallel.failure_broadcast import FailureBroadcast, RunError
        from coupled.parallel.process_group import join_rendezvous
        from coupled.storage.run_lock import MovedError

        imports_done()
        if options.print_config:
            return print_config(options)
        rendezvous, preempted = join_rendezvous(), False
        # a failure is reported before the group is left: otherwise the other ranks would report one of their own
        with contextlib.ExitStack() as opened, FailureBroadcast(program, rendezvous) as failure:
            settings = settings_for(options)
            run = options.run_dir or Path("runs") / settings.name
            say_where_it_starts(run, options.resume)
            group = opened.enter_context(session(settings, rendezvous))
            try:
                # the coordinator is not kept in a variable: it refers to the process group, which is destroyed after it
                outcome = Coordinator(settings, group, run).train(
                    options.resume, options.overwrite, options.max_steps, options.accept_changed_images
                )
            except MovedError as error:
                again = next_time(options, group.world_size, error.now)
                raise RunError(f"{error}; continue it with: {again}") from None
            preempted = outcome.preempted
            if outcome.stopped and group.is_first:
                again = next_time(options, group.world_size)
                say(f"{outcome.stopped}; the run is saved; continue it with: {again}")
            elif group.is_first:
                say(f"{run}: complete; next: {next_command(list(settings.arms), run)}")
        return failure.status or exit_status(preempted)
    except (ValueError, TimeoutError) as error:  # TimeoutError: ranks that do not join
        return report_error(program, error)
    except KeyboardInterrupt:
        return interrupted(program)


def train(
    config: str | Path,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    max_steps: int | None = None,
    accept_changed_images: bool = False,
    on_epoch: "Callable[[Run, int], object] | None" = None,
    **settings: Any,
) -> "Run":
    """Train all arms of a run in lockstep, from Python; `coupled.train(...)` is this function.

    Under torchrun every process must call it. torch's global switches are restored when it returns or raises.

    Args:
        config: a settings file, or the name of a packaged one, such as "demo".
        run_dir: run folder; `runs/<name of the run>` if None.
        resume: continue the run in the folder, or start one if there is none.
        overwrite: delete the run in the folder and start again.
        max_steps: stop after this step of the run; `resume=True` continues it.
        accept_changed_images: with `resume`: continue although images have changed since the run began.
        on_epoch: function that rank 0 calls as on_epoch(run, epoch) after each trained epoch that has a snapshot, when
            the snapshot can be read. Training waits for it; with several ranks it must return within `timeout_seconds`.
            An exception in it ends the run and is raised here; the epoch is saved, and resume=True continues with the
            next one.
        settings: changed top-level settings, such as epochs=2 or optimizer={"base_lr": 0.1}; see `load_settings`.

    Returns:
        The run, with its DataFrames and encoders.

    Raises:
        ValueError: for an invalid setting or `on_epoch`, a folder that already holds a run, or a run that cannot be
            resumed.
        FloatingPointError: if an arm's loss or gradient is not finite.
        OSError: if a file cannot be written.
        RuntimeError: if memory runs out; it says what was needed and which settings to lower.
        KeyboardInterrupt: after a first Ctrl-C, SIGTERM or SIGUSR1, when the run is saved: it is not complete.

    Example:
        >>> import coupled
        >>> run = coupled.train("demo", epochs=2, arms={"cl": "dcl", "nscl": "nscl"})  # doctest: +SKIP
        >>> run = coupled.train("demo", "runs/start", epochs=0, dataset={"image_size": 8})  # doctest: +ELLIPSIS
        reading dataset 'digits'
        ...
        >>> run.arms, run.epochs()
        (['cl', 'nscl', 'scl', 'ce'], [0])
    """
    from coupled.analysis.run import open_run
    from coupled.config.load import load_settings
    from coupled.coordinator import Coordinator
    from coupled.parallel.failure_broadcast import FailureBroadcast
    from coupled.parallel.process_group import join_rendezvous

    if accept_changed_images and not resume:
        raise ValueError("accept_changed_images: needs resume=True; a new run always uses the images that it finds")
    if on_epoch is not None and not callable(on_epoch):
        raise ValueError(f"on_epoch: got {on_epoch!r}; allowed is a function f(run, epoch)")
    rendezvous = join_rendezvous()
    with contextlib.ExitStack() as opened:
        if rendezvous.world_size > 1:
            opened.enter_context(FailureBroadcast("coupled.train", rendezvous))
        final = load_settings(config, (), partial(earlier, run_dir, resume), **settings)
        folder = Path(run_dir) if run_dir else Path("runs") / final.name
        say_where_it_starts(folder, resume)
        group = opened.enter_context(session(final, rendezvous))
        hook = partial(call_on_epoch, on_epoch, folder) if on_epoch and group.is_first else None
        outcome = Coordinator(final, group, folder).train(resume, overwrite, max_steps, accept_changed_images, hook)
    if outcome.stopped and not outcome.asked:
        raise KeyboardInterrupt(f"{outcome.stopped}; the run is saved; continue it with resume=True")
    return open_run(folder)


def say_where_it_starts(run: Path, resume: bool) -> None:
    """Print that there is no run to resume, before anything is read: the folder's name may be mistyped."""
    from coupled.storage.run_lock import has_no_run

    if resume and os.environ.get("RANK", "0") == "0" and has_no_run(run):
        say(f"no saved state in '{run}': starts from step 0")


def call_on_epoch(on_epoch: "Callable[[Run, int], object]", folder: Path, epoch: int) -> None:
    """Call the user's function with the run, opened from its folder."""
    from coupled.analysis.run import open_run

    on_epoch(open_run(folder), epoch)


@contextlib.contextmanager
def session(settings: "Settings", rendezvous: "Rendezvous") -> "Iterator[ProcessGroup]":
    """Open the process group of a run and set torch's switches as its settings say; undo both on exit."""
    from coupled.arms.consistency import check_same_settings
    from coupled.parallel.host_memory import keep_freed_memory
    from coupled.parallel.process_group import process_group
    from coupled.stream.seeds import determinism

    check_same_settings(rendezvous, settings.resolved())
    groups, timeout = settings.parallel.arm_groups, settings.timeout_seconds
    with determinism(settings.deterministic, settings.num_threads, settings.tf32):
        keep_freed_memory()
        with process_group(settings.device, timeout, groups, rendezvous) as group:
            if group.is_first:
                say(f"reading dataset '{settings.dataset.name}'")
            yield group


def settings_for(options: argparse.Namespace) -> "Settings":
    """Return the settings of the command line; --resume takes missing values from the run. Raises ValueError."""
    from coupled.config.load import load_settings

    before = partial(earlier, options.run_dir, options.resume)
    return load_settings(options.config, options.overrides, before)


def earlier(run_dir: str | Path | None, resume: bool, name: str) -> dict[str, Any]:
    """Return the settings of the run to be continued, {} if there is none. Without `run_dir` the run is runs/`name`."""
    from coupled.storage.run_description import settings_of

    return settings_of(Path(run_dir or Path("runs") / name)) if resume else {}


def print_config(options: argparse.Namespace) -> int:
    """Print the resolved settings, on rank 0 only, and return the exit status."""
    import yaml

    try:
        text = yaml.safe_dump(settings_for(options).resolved(), sort_keys=False)
    except ValueError as error:
        return report_error(program_name("train"), error)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(text)
    return 0


def next_command(arms: Sequence[str], run: Path) -> str:
    """Return the command line that analyses the run: weight-gap, or quality for a run of one arm, which has no gap."""
    return suggest("weight-gap" if len(arms) > 1 else "quality", "--run-dir", str(run))


def next_time(options: argparse.Namespace, processes: int, moved_to: Path | None = None) -> str:
    """Return the command line that continues the run to its end on the same number of processes, in the folder
    `moved_to` if it was moved; if one command cannot start all ranks, the command of each rank.
    """
    run = moved_to or options.run_dir
    where = ["--run-dir", str(run)] if run else []
    words = ["--resume", "--config", options.config, *where, *options.overrides]
    if under_torchrun() and os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        return suggest_torchrun("train", processes, *words)
    return ("(on every rank, started as before) " if processes > 1 else "") + suggest("train", *words)


class _Program(types.ModuleType):
    """This module as a function: importing it sets the attribute `train` of the package, which users call."""

    def __call__(self, *arguments: Any, **options: Any) -> "Run":
        return train(*arguments, **options)


sys.modules[__name__].__class__ = _Program
