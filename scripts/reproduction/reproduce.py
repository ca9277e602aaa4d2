"""Run the experiments of docs/reproduction.md and write their results into it.

    python scripts/reproduction/reproduce.py [--jobs 2] [--runs-dir runs/reproduction] [--only classes ...]
           [--page-only]

The program trains and measures the sweeps of configs/reproduction/. Finished points are not trained again. After each
sweep it writes the values of every seed to docs/reproduction/<sweep>.csv, draws the figures from them, and writes the
blocks of the page (reproduction_page.py); `--page-only` does only this last step.
"""

from coupled.monitoring.terminal import INTERRUPTED, imports_done, prepare_terminal, say

if __name__ == "__main__":
    prepare_terminal()

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import reproduction_cifar10
import reproduction_values
from reproduction_page import CLAIMS, filled

from coupled.analysis.driver import report_fault
from coupled.analysis.tables import read_table
from coupled.config.command_line import Parser, positive
from coupled.config.errors import report_error
from coupled.storage.atomic_files import write_durably
from coupled.sweep import program as sweep
from coupled.sweep.tables import collect

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/reproduction"
PAGE, RESULTS = ROOT / "docs/reproduction.md", ROOT / "docs/reproduction"
SWEEPS = (
    *dict.fromkeys(claim.sweep for claim in CLAIMS.values()),
    reproduction_cifar10.SWEEP,
    reproduction_cifar10.FLOOR_SWEEP,
)
LONG = tuple(reproduction_cifar10.FACTORS)  # only if they are named
STARTS = {False: "all scales 1", True: "timm's"}  # of batch-norm scales, by encoder.zero_init_last


DESCRIPTION = """Train and measure the sweeps of configs/reproduction/ and write docs/reproduction.md.
Finished points of a sweep are not trained again, and the results of each sweep are written when it is finished. The
sweeps cifar10... need the images that scripts/reproduction/cifar10_subset.py makes."""
EPILOG = """examples:
  python scripts/reproduction/reproduce.py --jobs 4
  python scripts/reproduction/reproduce.py --only temperature epochs

files written:
  docs/reproduction/   <sweep>.csv (values of every seed), costs.csv and the figures
  docs/reproduction.md the blocks of the page, from these CSV files"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 2 for bad input, 1 if a sweep failed, 130 if one was stopped."""
    parser = Parser(prog="reproduce.py", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument(
        "--jobs", type=positive, default=2, metavar="N", help="number of points that train in parallel (default: 2)"
    )
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=Path("runs/reproduction"),
        metavar="DIR",
        help="folder of the runs, with one subfolder per sweep (default: runs/reproduction)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only",
        nargs="+",
        choices=(*SWEEPS, *LONG),
        default=SWEEPS,
        metavar="SWEEP",
        help=f"sweeps to run (default: {', '.join(SWEEPS)}); {', '.join(LONG)} must be named",
    )
    which.add_argument(
        "--page-only", action="store_true", help="only write the page from the CSV files of docs/reproduction"
    )
    imports_done()
    try:
        options = parser.parse_args(arguments)
    except ValueError as error:
        return report_error("reproduce.py", error)
    failed = []
    try:
        for name in () if options.page_only else options.only:
            say(f"== {name}")
            given = [str(CONFIGS / f"{name}.yaml"), "--jobs", str(options.jobs), "--runs-dir", str(options.runs_dir)]
            status = sweep.main(given)
            if status == INTERRUPTED:
                return INTERRUPTED  # Ctrl-C also stops the sweeps that follow
            if status:
                failed.append(name)
                continue
            write_results(options.runs_dir, name)
            write_page()
        if options.page_only:
            write_page()
    except ValueError as error:
        return report_error("reproduce.py", error)
    except OSError as error:
        return report_fault("reproduce.py", error)
    say(PAGE)
    if failed:
        say(f"reproduce.py: {', '.join(failed)} failed; the page keeps the earlier results", sys.stderr)
    return min(len(failed), 1)


def write_page() -> None:
    """Write the blocks of the page from the CSV files."""
    write_durably(PAGE, filled(PAGE.read_text(encoding="utf-8"), RESULTS).encode())


def write_results(runs: Path, name: str) -> None:
    """Write the values, the figures and the costs of a sweep."""
    RESULTS.mkdir(exist_ok=True)
    reproduction_values.write(reproduction_values.select(collect(runs / name)), RESULTS / f"{name}.csv")
    draw(name)
    for each, taken in reproduction_cifar10.TAKEN.items():
        files = [RESULTS / f"{sweep}.csv" for sweep in (each, taken.sweep)]
        if name in (each, taken.sweep) and all(file.is_file() for file in files):
            values, other = map(reproduction_values.read, files)
            reproduction_values.write(reproduction_cifar10.joint(values, other, taken), files[0])
            draw(each)
    there = [each.parent for each in sorted((runs / name).glob("*/epochs.csv"))]
    described = [json.loads((run / "run.json").read_text()) for run in there]
    seconds = sum(read_table(run / "epochs.csv", ["seconds"])["seconds"].sum() for run in there)
    bytes_ = sum(each.stat().st_size for run in there for each in run.rglob("*") if each.is_file())
    row = {
        "runs": len(there),
        "training_minutes": round(seconds / 60, 1),
        "mib": round(bytes_ / 2**20),
        "commit": " ".join(sorted({short(str(run["git_commit"])) for run in described})),
        "start": " ".join(sorted({STARTS[starts_at_zero(run["settings"])] for run in described})),
    }
    costs = RESULTS / "costs.csv"
    known = pd.read_csv(costs, dtype=str).set_index("sweep").T.to_dict() if costs.is_file() else {}
    table = pd.DataFrame.from_dict({**known, name: row}, orient="index").sort_index()
    table.rename_axis("sweep").reset_index().to_csv(costs, index=False)


def short(commit: str) -> str:
    """The first ten characters of a commit, with the mark of uncommitted changes."""
    digits, plus, mark = commit.partition("+")
    return f"{digits[:10]}{plus}{mark}"


def draw(name: str) -> None:
    """Draw the figures of a sweep from the file of its values, whose digest is in their metadata."""
    values = reproduction_values.read(RESULTS / f"{name}.csv")
    style: dict[str, Any] = {"dpi": 110, "metadata": {"Source": f"{name}.csv {digest(RESULTS / f'{name}.csv')}"}}
    if name in reproduction_cifar10.SWEEPS:
        reproduction_cifar10.draw(name, values).savefig(RESULTS / f"{name}.png", **style)
    for number, claim in CLAIMS.items():
        if claim.sweep == name and claim.draw:
            claim.draw(values).savefig(RESULTS / f"claim_{number}.png", **style)


def digest(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def starts_at_zero(settings: dict[str, dict[str, object]]) -> bool:
    """Whether a run has timm's start of the batch-norm scales."""
    return bool(settings["encoder"].get("zero_init_last", False))


if __name__ == "__main__":
    sys.exit(main())
