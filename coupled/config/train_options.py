"""The command line of `coupled train`. Imported to print a help, so nothing large is imported here."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coupled.config.command_line import Parser, command_parser, packaged_configs


def parser() -> Parser:
    """The command line; `words` are CONFIG, unless --config gives it, and overrides."""
    examples = ["demo", "demo --run-dir runs/long --resume epochs=200 optimizer.base_lr=0.2"]
    files = [
        "run.json                   resolved settings, versions, digests",
        "steps.csv, epochs.csv      losses, rates, digests of the inputs",
        "snapshots/<arm>/           the weights of every epoch",
        "checkpoints/               to continue from",
        "all in the run folder, runs/<name of the run> without --run-dir",
    ]
    about = "Train all arms of a run in lockstep. torchrun shares the batch out over several processes."
    result = command_parser("train", about, examples, files)
    settings = f"settings: a YAML file, or a name of one in the package ({', '.join(packaged_configs())})"
    result.add_argument("--config", metavar="CONFIG", help=f"{settings}; may come first, without --config")
    where = "folder of the run (default: runs/<name of the run>)"
    result.add_argument("--run-dir", type=Path, metavar="DIR", help=where)
    existing = result.add_mutually_exclusive_group()
    resume = "continue the run in the folder, or start it if none is there"
    existing.add_argument("--resume", action="store_true", help=resume)
    existing.add_argument("--overwrite", action="store_true", help="delete the run in the folder and start afresh")
    accept = "with --resume: go on although images have changed since the run began; run.json says from which step"
    result.add_argument("--accept-changed-images", action="store_true", help=accept)
    most = "stop after step K of the run, to be continued"
    result.add_argument("--max-steps", type=int, metavar="K", help=most)
    shown = "print the resolved settings as YAML and end; nothing is written"
    result.add_argument("--print-config", action="store_true", help=shown)
    changed = "CONFIG, unless --config gives it, and changed settings, such as optimizer.base_lr=0.2"
    result.add_argument("overrides", nargs="*", metavar="CONFIG|key=value", help=changed)
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: options and `key=value` overrides in any order. Raises ValueError."""
    options = parser().parse_intermixed_args(arguments)
    if options.config is None:
        if not options.overrides or ("=" in options.overrides[0] and not Path(options.overrides[0]).is_file()):
            known = ", ".join(packaged_configs())
            raise ValueError(f"CONFIG: missing; give a settings file or the name of one in the package ({known})")
        options.config, *options.overrides = options.overrides
    if options.accept_changed_images and not options.resume:
        raise ValueError("--accept-changed-images: only with --resume; a new run takes the images as they are")
    return options
