"""Train all arms of a run in lockstep.

torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml
         [--run-dir runs/demo] [--resume | --overwrite] [--until-step K] [key=value ...]
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from coupled.checked import Parser, complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Settings -> process group -> coordinator -> run. Returns the exit status: 2 for bad input, 1 for a failed run."""
    try:
        options = parse(arguments)
    except ValueError as error:
        return complain("train.py", error)
    # torch is imported after the arguments are read, so that --help answers at once
    from coupled.agreement import check_same_settings
    from coupled.choices import suited
    from coupled.coordinator import Coordinator
    from coupled.failures import Alarm
    from coupled.host_memory import keep_freed_memory
    from coupled.process_group import meet, process_group
    from coupled.settings import load
    from coupled.stream.seeds import set_determinism

    try:
        meeting = meet()
    except ValueError as error:
        return complain("train.py", error)
    # the group is left after the alarm has told a failure: other ranks would take its closing for their own failure
    with contextlib.ExitStack() as opened, Alarm("train.py", meeting) as alarm:
        settings = load(options.config, options.overrides, suited)
        check_same_settings(meeting, settings.resolved())
        set_determinism(settings.deterministic, settings.threads, settings.tf32)
        keep_freed_memory()
        joined = process_group(settings.device, settings.timeout_seconds, settings.placement.arms, meeting)
        group = opened.enter_context(joined)
        run = options.run or Path("runs") / settings.name
        # not kept: what refers to the process group should be gone before the group is
        stopped = Coordinator(settings, group, run).train(options.resume, options.overwrite, options.until_step)
        if stopped and group.is_first:
            again = command_again(arguments)
            print(f"{stopped}; nothing is lost: the same command with --resume continues it: {again}", flush=True)
        elif group.is_first:
            print(f"{run}: complete; next: python analysis/weight_gap.py --run {run}", flush=True)
    return alarm.status


def command_again(arguments: Sequence[str] | None) -> str:
    """The command line that continues the run."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    return "train.py " + shlex.join(["--resume", *(word for word in given if word not in ("--resume", "--overwrite"))])


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
    parser.add_argument("--until-step", type=int, metavar="K", help="stop after step K of the run, to be continued")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changed settings, such as optimizer.base_lr=0.2"
    )
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
