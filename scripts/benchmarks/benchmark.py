"""Measure speed and memory as ratios to named baselines, in one run on this machine.

    python scripts/benchmarks/benchmark.py [--seconds 540] [--only NAME ...] [--data FOLDER] [--output FILE.json]
                                           [--markdown FILE.md]

Each benchmark is a program with a share of the budget. A row is printed as soon as it is measured, and the files are
written anew with every row, so that a run that is stopped leaves what it has. Machines are noisy: compare the ratios,
not the times. On a machine with a GPU one call gives the whole table:

    python scripts/benchmarks/benchmark.py --device cuda --seconds 450 --data data --markdown gpu.md
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rows import Row, parser, text

from coupled.monitoring.terminal import safe_streams

HERE = Path(__file__).parent
# the benchmarks in their order, and their shares of the budget on a CPU and on a GPU
SHARES = {
    "coupling": (0.16, 0.40),
    "runs": (0.24, 0.19),
    "analysis": (0.27, 0.18),
    "objectives": (0.14, 0.10),
    "augmentation": (0.04, 0.06),
    "distributed": (0.08, 0.0),
    "report": (0.07, 0.07),
}


def main() -> int:
    """Measure, print, and write JSON and Markdown if asked. Return 1 if a benchmark failed."""
    safe_streams()
    command_line = parser(__doc__ or "")
    command_line.set_defaults(seconds=540.0)
    only = f"benchmarks to run (default: all): {', '.join(SHARES)}"
    command_line.add_argument(
        "--only", nargs="+", choices=list(SHARES), default=list(SHARES), metavar="NAME", help=only
    )
    command_line.add_argument("--output", type=Path, metavar="FILE.json", help="write the rows and the machine as JSON")
    command_line.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the table as Markdown")
    options = command_line.parse_args()
    began = time.monotonic()
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    rows, failed = list[Row](), False
    shares = {name: SHARES[name][options.device == "cuda"] for name in options.only}
    for number, (name, share) in enumerate(shares.items()):
        left = options.seconds - (time.monotonic() - began)
        seconds = left * share / sum(list(shares.values())[number:]) if share else 0
        print(f"\n{name}: {seconds:.0f} s", flush=True)
        command = [sys.executable, HERE / f"bench_{name}.py", "--json", "--seconds", f"{seconds:.0f}"]
        command += ["--device", options.device, *(["--data", options.data] if options.data else [])]
        command += ["--tiny"] if options.tiny else []
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                rows.append(json.loads(line))
                print(text(rows[-1]), flush=True)
                write(options, about, rows)
        if process.returncode:
            failed = True
            print(f"bench_{name}.py failed with status {process.returncode}", file=sys.stderr, flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all", flush=True)
    return int(failed)


def write(options: Any, about: dict[str, Any], rows: list[Row]) -> None:
    """Write what was measured so far to the files that were asked for."""
    command = " ".join(["python", *sys.argv])
    if options.markdown:
        options.markdown.write_text(markdown(rows, about, command), encoding="utf-8")
    if options.output:
        content = {"machine": about, "command": command, "rows": rows}
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return processor, GPU, cores and versions of this machine, without importing torch."""
    return {
        "processor": processor(),
        "gpu": gpu(),
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }


def gpu() -> str:
    """Return the names of the GPUs as nvidia-smi gives them, with the driver's version."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", "; ")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "none"


def processor() -> str:
    """Return the name of the processor model, if the system provides it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def markdown(rows: list[Row], about: dict[str, Any], command: str) -> str:
    """Return the rows as a Markdown table below the command and the machine."""
    lines = [f"`{command}`: {', '.join(f'{key} {value}' for key, value in about.items())}", ""]
    lines += ["| what | ours | baseline | ratio (goal) | peak MiB, ours / baseline |", "|---|---|---|---|---|"]
    for row in rows:
        ours, baseline = (f"{row[key]:,.3g} {row['unit']}" if row[key] == row[key] else "-" for key in SIDES)
        memory = " / ".join(f"{row[f'{key}_peak_mib']:,.0f}" if row[f"{key}_peak_mib"] > 0 else "-" for key in SIDES)
        ratio = f"{row['ratio']:.2f}x ({row['goal']})" if row["ratio"] == row["ratio"] else "-"
        name = f"{row['name']} ({row['note']})" if row["note"] else row["name"]
        lines.append(f"| {name} | {ours} | {baseline} | {ratio} | {memory} |")
    return "\n".join(lines) + "\n"


SIDES = ("ours", "baseline")

if __name__ == "__main__":
    sys.exit(main())
