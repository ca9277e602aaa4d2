"""Run the experiments of docs/reproduction.md and write their results into it.

    python scripts/reproduction/reproduce.py [--jobs 2] [--runs-dir runs/reproduction] [--only classes ...]
           [--page-only]

The program trains and measures the sweeps of configs/reproduction/. Finished points are not trained again. It computes
the answer to each claim (reproduction_claims.py, reproduction_objectives.py) and writes it, the costs and the figures
to docs/reproduction/. Last, it writes the tables of the page from these CSV files; `--page-only` does only this step.
"""

from coupled.monitoring.terminal import INTERRUPTED, imports_done, prepare_terminal, say

if __name__ == "__main__":
    prepare_terminal()

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import reproduction_cifar10
import reproduction_claims
import reproduction_families
import reproduction_objectives

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
CLAIMS = {**reproduction_claims.CLAIMS, **reproduction_objectives.CLAIMS, **reproduction_families.CLAIMS}
COSTS = {"training_minutes": "training (minutes)", "mib": "disk (MiB)"}
VALUES = RESULTS / f"{reproduction_cifar10.SWEEP}.csv"  # of every seed and epoch
SWEEPS = tuple(dict.fromkeys((reproduction_cifar10.SWEEP, *(claim.sweep for claim in CLAIMS.values()))))
NAMES = ", ".join(SWEEPS)


DESCRIPTION = """Train and measure the sweeps of configs/reproduction/ and write docs/reproduction.md.
Finished points of a sweep are not trained again. The sweep cifar10 needs the images that
scripts/reproduction/cifar10_subset.py makes."""
EPILOG = """examples:
  python scripts/reproduction/reproduce.py --jobs 4
  python scripts/reproduction/reproduce.py --only temperature epochs

files written:
  docs/reproduction/   cifar10.csv, claim_<n>.csv, verdicts.csv, costs.csv and the figures
  docs/reproduction.md the tables of the page, from these CSV files"""


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
        choices=SWEEPS,
        default=SWEEPS,
        metavar="SWEEP",
        help=f"sweeps to run: {', '.join(SWEEPS)} (default: all)",
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
            failed += [name] if status else []
        if not options.page_only:
            write_results(options.runs_dir, [name for name in options.only if name not in failed])
        write_durably(PAGE, filled(PAGE.read_text(encoding="utf-8"), RESULTS).encode())
    except ValueError as error:
        return report_error("reproduce.py", error)
    except OSError as error:
        return report_fault("reproduce.py", error)
    say(PAGE)
    if failed:
        say(f"reproduce.py: {', '.join(failed)} failed; the page keeps the earlier results", sys.stderr)
    return min(len(failed), 1)


def write_results(runs: Path, sweeps: Sequence[str]) -> None:
    """Write the CSV files and figures of the claims of these sweeps. Files of other sweeps are not changed."""
    RESULTS.mkdir(exist_ok=True)
    rows = {name: collect(runs / name) for name in sweeps}
    verdicts = _known(RESULTS / "verdicts.csv", "claim")
    for number, claim in CLAIMS.items():
        if claim.sweep in rows:
            answer = claim.answer(rows[claim.sweep])
            answer.table.to_csv(RESULTS / f"claim_{number}.csv", index=False, float_format="%.6g")
            verdicts[number] = {"verdict": answer.verdict}
            if claim.draw:
                claim.draw(rows[claim.sweep]).savefig(RESULTS / f"{claim.sweep}_{claim.figure}.png", dpi=120)
            elif claim.figure:
                drawn = runs / claim.sweep / "figures" / f"{claim.figure}.png"
                shutil.copy(drawn, RESULTS / f"{claim.sweep}_{claim.figure}.png")
    _write(verdicts, RESULTS / "verdicts.csv", "claim")
    if reproduction_cifar10.SWEEP in rows:
        told = reproduction_cifar10.values(rows[reproduction_cifar10.SWEEP])
        told.to_csv(VALUES, index=False, float_format="%.6g")
        reproduction_cifar10.draw(pd.read_csv(VALUES)).savefig(VALUES.with_suffix(".png"), dpi=120)
    costs = _known(RESULTS / "costs.csv", "sweep")
    for name in rows:
        there = [path.parent for path in sorted((runs / name).glob("*/epochs.csv"))]
        seconds = sum(read_table(run / "epochs.csv", ["seconds"])["seconds"].sum() for run in there)
        bytes_ = sum(path.stat().st_size for run in there for path in run.rglob("*") if path.is_file())
        commits = {str(json.loads((run / "run.json").read_text())["git_commit"])[:10] for run in there}
        costs[name] = {
            "runs": len(there),
            "training_minutes": round(seconds / 60, 1),
            "mib": round(bytes_ / 2**20),
            "commit": " ".join(sorted(commits)),
        }
    _write(costs, RESULTS / "costs.csv", "sweep")


def _known(path: Path, key: str) -> dict[str, dict[str, object]]:
    table = pd.read_csv(path, dtype=str).set_index(key) if path.is_file() else pd.DataFrame()
    return {str(name): dict(row) for name, row in table.iterrows()}


def _write(rows: dict[str, dict[str, object]], path: Path, key: str) -> None:
    pd.DataFrame.from_dict(rows, orient="index").sort_index().rename_axis(key).reset_index().to_csv(path, index=False)


def filled(page: str, results: Path) -> str:
    """Return the page with every block from `<!-- claim N -->` to `<!-- end -->` rewritten from the CSV files.

    Raises ValueError for a block that no claim fills.
    """

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "costs":
            body = _markdown(pd.read_csv(results / "costs.csv", dtype=str).rename(columns=COSTS))
        elif (number := name.removeprefix("claim ")) in CLAIMS:
            body = _section(number, results)
        elif (table := name.removeprefix("cifar10 ")) in reproduction_cifar10.TABLES:
            told = results / VALUES.name
            found = reproduction_cifar10.TABLES[table](pd.read_csv(told)) if told.is_file() else None
            body = "not measured" if found is None else _markdown(found)
        else:
            tables = ", ".join(f"cifar10 {table}" for table in reproduction_cifar10.TABLES)
            raise ValueError(
                f"{PAGE}: no claim fills the block '{name}'; allowed are claim 1 to {len(CLAIMS)}, {tables}, and costs"
            )
        return f"<!-- {name} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- ([^\n]+?) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def _section(number: str, results: Path) -> str:
    claim, path = CLAIMS[number], results / f"claim_{number}.csv"
    if not path.is_file():
        return "not measured"
    verdict = str(_known(results / "verdicts.csv", "claim")[number]["verdict"])
    image = results / f"{claim.sweep}_{claim.figure}.png"
    shown = f"\n\n![{claim.title}]({results.name}/{image.name})" if claim.figure and image.is_file() else ""
    sentences = "\n".join(f"* {sentence}" for sentence in verdict.split("; "))
    return f"**Measured:**\n\n{sentences}\n\n{_markdown(_wide(pd.read_csv(path)))}{shown}"


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per case, one column per score with "mean +- sd" in its cells, and the number of seeds."""
    case = [column for column in table if column not in ("score", "mean", "sd", "seeds")]
    cells = [
        f"{mean:.3g}" + ("" if pd.isna(sd) else f" +- {sd:.2g}")
        for mean, sd in zip(table["mean"], table["sd"], strict=True)
    ]
    table = table.assign(cell=cells)
    scores = list(dict.fromkeys(table["score"]))
    wide = table.pivot_table(index=case, columns="score", values="cell", aggfunc="first", sort=False, dropna=True)
    wide = wide[scores].assign(seeds=table.groupby(case, sort=False)["seeds"].max().astype(str))
    return wide.reset_index().fillna("").astype(str)


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
