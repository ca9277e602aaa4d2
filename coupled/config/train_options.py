"""The command line of `coupled train`. `--help` imports this module, so it imports no large library."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coupled.config.command_line import Parser, command_parser, packaged_configs


def parser() -> Parser:
    """Return the parser of `coupled train`."""
    examples = ["demo", "demo --run-dir runs/long --resume epochs=200 optimizer.base_lr=0.2"]
    files = [
        "run.json                   resolved settings, versions, digests",
        "steps.csv, epochs.csv      losses, learning rates, digests of the inputs",
        "snapshots/<arm>/           the weights of every epoch",
        "checkpoints/               optimizer, step and random state, to continue the run",
        "(all in the run folder: --run-dir, or runs/<name of the run>)",
    ]
    about = "Train all arms of a run in lockstep. Under torchrun, several processes share each batch."
    result = command_parser("train", about, examples, files)
    settings = f"settings: a YAML file, or the name of a packaged one ({', '.join(packaged_configs())})"
    result.add_argument("--config", metavar="CONFIG", help=f"{settings}; may be the first argument, without --config")
    where = "run folder (default: runs/<name of the run>)"
    result.add_argument("--run-dir", type=Path, metavar="DIR", help=where)
    existing = result.add_mutually_exclusive_group()
    resume = "continue the run in the folder, or start one if there is none, and say so"
    existing.add_argument("--resume", action="store_true", help=resume)
    existing.add_argument("--overwrite", action="store_true", help="delete the run in the folder and start again")
    accept = "with --resume: continue although images have changed since the run began; run.json records the step"
    result.add_argument("--accept-changed-images", action="store_true", help=accept)
    most = "stop after step K of the run; --resume continues it"
    result.add_argument("--max-steps", type=int, metavar="K", help=most)
    shown = "print the resolved settings as YAML and exit; no file is written"
    result.add_argument("--print-config", action="store_true", help=shown)
    changed = "CONFIG (unless --config is used), then settings to change, such as optimizer.base_lr=0.2"
    result.add_argument("overrides", nargs="*", metavar="CONFIG|key=value", help=changed)
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line: options and `key=value` overrides in any order. Raises ValueError."""
    options = parser().parse_intermixed_args(arguments)
    if options.config is None:
        if not options.overrides or ("=" in options.overrides[0] and not Path(options.overrides[0]).is_file()):
            known = ", ".join(packaged_configs())
            raise ValueError(f"CONFIG: missing; pass a settings file or the name of a packaged one ({known})")
        options.config, *options.overrides = options.overrides
    if options.accept_changed_images and not options.resume:
        raise ValueError("--accept-changed-images: needs --resume; a new run always uses the images that it finds")
    return options
