"""Save the last embeddings of one seed on CIFAR-10, of all arms, so that the distances can be computed without a run.

    python scripts/reproduction/save_embeddings.py [--runs-dir runs/reproduction]

The file holds the embeddings h of the 3 000 test images: one array per arm, float16 [3000, 128], and the array `label`,
the names of the classes. The rows of all arms are those of the same images.
"""

from coupled.monitoring.terminal import imports_done, prepare_terminal, say

if __name__ == "__main__":
    prepare_terminal()

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reproduction_cifar10 import FLOOR_SWEEP, SWEEP
from reproduction_distances import FLOOR

import coupled
from coupled.analysis.driver import report_fault
from coupled.config.command_line import Parser
from coupled.config.errors import report_error
from coupled.storage.atomic_files import write_durably

FILE = Path(__file__).parents[2] / "docs" / "reproduction" / "cifar10_embeddings.npz"
SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file from the runs of the sweeps cifar10 and cifar10_floor. Returns the exit status."""
    parser = Parser(prog="save_embeddings.py", description=f"Save the embeddings of seed {SEED} on CIFAR-10.")
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=Path("runs/reproduction"),
        metavar="DIR",
        help="folder of the runs, with one subfolder per sweep (default: runs/reproduction)",
    )
    imports_done()
    try:
        runs = parser.parse_args(arguments).runs_dir
        write_durably(FILE, packed(runs / SWEEP / f"seed={SEED}", runs / FLOOR_SWEEP / f"seed={SEED}"))
    except ValueError as error:
        return report_error(parser.prog, error)
    except OSError as error:
        return report_fault(parser.prog, error)
    say(FILE)
    return 0


def packed(run_dir: Path, floor_dir: Path) -> bytes:
    """The file's content: the embeddings of all arms of a run, and those of the floor from a run of its own."""
    run, floor = coupled.open_run(run_dir), coupled.open_run(floor_dir)
    found = {arm: run.embed(arm, split="test") for arm in run.arms if arm != FLOOR}
    found[FLOOR] = floor.embed(FLOOR, split="test")
    images = found["cl"].images
    if not found[FLOOR].images.equals(images):
        raise ValueError(f"{floor_dir}: its test images are not those of {run_dir}")
    rows: dict[str, Any] = {arm: each.rows_ND.astype(np.float16) for arm, each in found.items()}
    content = io.BytesIO()
    np.savez_compressed(content, label=images["label"].to_numpy(str), **rows)
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(main())
