"""Measure speed and memory as ratios to named baselines, in one run on this machine.

    python scripts/benchmarks/benchmark.py [--only NAME ...] [--output FILE.json] [--markdown FILE]

Machines are noisy, so compare the ratios, not the times. Each row names its baseline and its goal.
"""

from coupled.monitoring.terminal import imports_done, prepare_terminal

if __name__ == "__main__":
    prepare_terminal()

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bench_analysis import analysis_rows
from bench_augmentation import augmentation_rows
from bench_coupling import coupling_rows
from bench_distributed import distributed_rows
from bench_gpu import gpu_rows
from bench_metrics import metric_rows
from bench_objectives import objective_rows
from bench_pictures import picture_rows
from bench_snapshots import snapshot_rows
from bench_start import start_rows
from rich.console import Console
from rich.table import Table

ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "objectives": objective_rows,
    "metrics": metric_rows,
    "analysis": analysis_rows,
    "augmentation": augmentation_rows,
    "coupling": coupling_rows,
    "pictures": picture_rows,
    "start": start_rows,
    "distributed": distributed_rows,
    "snapshots": snapshot_rows,
    "gpu": gpu_rows,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and optionally write JSON and Markdown. Return the exit status."""
    about = "Measure speed and memory as ratios to named baselines. A ratio above 1 means that this package is faster."
    parser = argparse.ArgumentParser(prog="benchmark.py", description=about)
    only = f"benchmarks to run (default: all): {', '.join(ROWS)}"
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME", help=only)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the rows and the machine as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the table as Markdown")
    imports_done()
    options = parser.parse_args(arguments)
    rows = []
    for name in options.only:
        print(f"measuring {name} ...", file=sys.stderr)
        rows += ROWS[name]()
    print_table(rows)
    command = " ".join(["python", *sys.argv])
    if options.markdown:
        options.markdown.write_text(markdown(rows, command), encoding="utf-8")
    if options.output:
        content = {"machine": machine(), "command": command, "rows": rows}
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def machine() -> dict[str, Any]:
    """Return processor, cores and versions of this machine."""
    return {
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }


def processor() -> str:
    """Return the name of the processor model, if the system provides it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def markdown(rows: list[dict[str, Any]], command: str) -> str:
    """Return the rows as a Markdown table below the command and the machine."""
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    lines = [f"`{command}`: {about}", "", "| what | ours | baseline | ratio (goal) | peak MiB, ours / baseline |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        ours, baseline = (f"{row[key]:,.3g} {row['unit']}" for key in ("ours", "baseline"))
        memory = " / ".join(
            f"{row[key]:,.0f}" if row[key] > 0 else "-" for key in ("ours_peak_mib", "baseline_peak_mib")
        )
        lines.append(f"| {row['name']} | {ours} | {baseline} | {row['ratio']:.2f}x ({row['goal']}) | {memory} |")
    return "\n".join(lines) + "\n"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line per row: ours, baseline, ratio, goal, and the peak memory of both in MiB."""
    table = Table(title=", ".join(f"{key} {value}" for key, value in machine().items()))
    for column in ("what", "ours", "baseline", "unit", "ratio", "goal", "ours MiB", "baseline MiB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        numbers = [f"{row[key]:,.4g}" for key in ("ours", "baseline")]
        memory = [f"{row[key]:,.0f}" for key in ("ours_peak_mib", "baseline_peak_mib")]
        table.add_row(row["name"], *numbers, row["unit"], f"{row['ratio']:.2f}x", str(row["goal"]), *memory)
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
