"""Train all arms of a run in lockstep.

torchrun --standalone --nproc_per_node=1 coupled/train.py --config configs/demo.yaml
         [--run-dir runs/demo] [--resume | --overwrite] [key=value ...]
"""

import argparse
import os
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
            Coordinator(settings, group, run).train(options.resume, options.overwrite)
    except (ValueError, FloatingPointError) as error:
        rank = int(os.environ.get("RANK", 0))
        print(f"train.py: {'' if rank == 0 else f'rank {rank}: '}{error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


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
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changed settings, such as optimizer.base_lr=0.2"
    )
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
