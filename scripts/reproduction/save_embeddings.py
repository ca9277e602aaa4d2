"""Save the last embeddings of one seed on CIFAR-10, of all arms, so that the distances can be computed without a run.

    python scripts/reproduction/save_embeddings.py [--seed 0] [--runs-dir runs/reproduction]

The file holds the embeddings h of the 3 000 test images: one array per arm, float16 [3000, 128], and the array `label`,
the names of the classes. The rows of all arms are those of the same images.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reproduction_cifar10 import FLOOR_SWEEP, SWEEP
from reproduction_distances import FLOOR

import coupled
from coupled.monitoring.terminal import say

FILE = Path(__file__).parents[2] / "docs" / "reproduction" / "cifar10_embeddings.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file from the runs of the sweeps cifar10 and cifar10_floor. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="save_embeddings.py", description="Save embeddings of one seed on CIFAR-10.")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the runs (default: 0)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/reproduction"), help="default: runs/reproduction")
    options = parser.parse_args(arguments)
    try:
        save(options.runs_dir / SWEEP / f"seed={options.seed}", options.runs_dir / FLOOR_SWEEP / f"seed={options.seed}")
    except ValueError as error:
        parser.error(str(error))
    say(FILE)
    return 0


def save(run_dir: Path, floor_dir: Path) -> None:
    """Write the embeddings of all arms of a run, and those of the floor from a run of its own."""
    run, floor = coupled.open_run(run_dir), coupled.open_run(floor_dir)
    found = {arm: run.embed(arm, split="test") for arm in run.arms if arm != FLOOR}
    found[FLOOR] = floor.embed(FLOOR, split="test")
    labels = [each.images["label"].to_numpy(str) for each in found.values()]
    if any((label != labels[0]).any() for label in labels):
        raise ValueError(f"{floor_dir}: its images are not those of {run_dir}")
    rows: dict[str, Any] = {arm: each.rows_ND.astype(np.float16) for arm, each in found.items()}
    np.savez_compressed(FILE, label=labels[0], **rows)


if __name__ == "__main__":
    sys.exit(main())
