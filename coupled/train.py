"""Train all arms of a run in lockstep.

torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml
         [--run-dir runs/demo] [--resume | --overwrite] [--until-step K] [key=value ...]
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Settings -> process group -> coordinator -> run. Returns the exit status: 2 for bad input, 1 for a failed run."""
    options = parse(arguments)
    # torch is imported after the arguments are read, so that --help answers at once
    from coupled.coordinator import Coordinator
    from coupled.process_group import process_group
    from coupled.settings import load
    from coupled.stream.seeds import set_determinism

    try:
        settings = load(options.config, options.overrides)
        set_determinism(settings.deterministic, settings.threads)
        run = options.run or Path("runs") / settings.name
        with process_group(settings.device) as group:
            stopped = Coordinator(settings, group, run).train(options.resume, options.overwrite, options.until_step)
    except (ValueError, FloatingPointError, OSError) as error:
        rank = int(os.environ.get("RANK", 0))
        text = " ".join(str(error.strerror or error if isinstance(error, OSError) else error).split())
        text = text.encode(errors="backslashreplace").decode()  # half of a character, from a byte that is no UTF-8
        print(f"train.py: {'' if rank == 0 else f'rank {rank}: '}{text}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    if stopped and group.is_first:
        print(f"{stopped}; nothing is lost: the same command with --resume continues it: train.py {again(arguments)}")
    return 0


def again(arguments: Sequence[str] | None) -> str:
    """The command line that continues the run."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    return shlex.join(["--resume", *(word for word in given if word not in ("--resume", "--overwrite"))])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: options and `key=value` overrides in any order; argparse exits with status 2 on bad input."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train all arms of a run in lockstep.")
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
