"""One page that shows a run, or several side by side: report.html, self-contained, readable without a network.

python analysis/report.py [--run-dir DIR [DIR2 ...]] [--compute] [--output FILE]

Reads the CSV files and run.json of each run, nothing else. What has not been computed yet is listed on the page with
the command that computes it; --compute runs those commands first. Tables that were kept to a few epochs or layers are
listed, too, and left as they are. Without --output the page goes to
DIR/analysis/report.html of the first run. Needs plotly and jinja2: pip install 'coupled[report]'.
"""

import json
import subprocess
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coupled.analysis import parsers
from coupled.analysis.driver import run_program
from coupled.analysis.report import charts, collapse, heat_maps, theory
from coupled.analysis.report.charts import Chart, Look
from coupled.analysis.report.rows import (
    Table,
    about,
    correlations,
    fits,
    last_values,
    settings,
    to_complete,
    to_compute,
)
from coupled.analysis.report.tables import Run, missing, read_runs, thinned
from coupled.analysis.run import newest_run
from coupled.monitoring.commands import child_command, child_environment, suggest
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import encoded, write_durably

PAGE = Path(__file__).parent / "page"
LIBRARIES = ("jinja2", "plotly")
FINDING = ("verify", "bounds")  # their status 1 means findings, which belong on the page


def sections(runs: Sequence[Run], look: Look) -> list[dict[str, Any]]:
    """What stands on the page, in its order; sections and charts without content are left out."""
    maps = heat_maps

    def drawn(*makers: Callable[[Sequence[Run], Look], Chart]) -> list[Chart | Table]:
        return [make(runs, look) for make in makers]

    parts: list[tuple[str, str, list[Chart | Table]]] = [
        ("run", "What was run", [about(runs), settings(runs)]),
        ("headline", "Headline", [*drawn(charts.headline), last_values(runs)]),
        ("missing", "Not computed yet", [to_compute(runs), to_complete(runs)]),
        ("alignment", "Alignment", drawn(charts.alignment, theory.alignment_bounds)),
        ("layers", "Alignment, layer by layer", drawn(maps.alignment_by_layer, maps.cross_layer)),
        ("weights", "Weights", [*drawn(maps.weights_by_layer, charts.growth), fits(runs), *drawn(theory.weight_shape)]),
        ("losses", "Losses", [*drawn(theory.losses, theory.loss_gap, theory.nscl_reached), correlations(runs)]),
        ("quality", "Quality", drawn(theory.quality, theory.few_shot)),
        ("collapse", "Collapse", drawn(collapse.collapse, collapse.spectra)),
        ("speed", "Throughput", drawn(charts.throughput)),
    ]
    found = []
    for key, title, each in parts:
        there = [part for part in each if (part.variants if isinstance(part, Chart) else part.rows)]
        if there:
            found.append({"key": key, "title": title, "parts": there})
    return found


def page(runs: Sequence[Run]) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    look = Look(runs)
    shown = sections(runs, look)
    charts = {part.key: part.variants for each in shown for part in each["parts"] if isinstance(part, Chart)}
    data = {"charts": charts, "arms": look.colours}
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string((PAGE / "page.html").read_text(encoding="utf-8")).render(
        title=f"coupled: {', '.join(run.name for run in runs)}",
        sections=shown,
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        data=embedded(data),
    )


def embedded(data: Any) -> str:
    """JSON that ends no script and begins no comment, whatever names and cells are in it: `<` is an escape."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def compute(run: Run) -> list[str]:
    """Run the programs whose tables are missing; what failed, a line each."""
    failed = []
    for command in dict.fromkeys(each.command for each in missing(run)):
        say(f"$ {suggest(*command)}")
        status = subprocess.run(child_command(*command), env=child_environment(), check=False).returncode
        if status and not (status == 1 and command[0] in FINDING):
            failed.append(f"'{suggest(*command)}' ended with status {status}")
    return failed


def report(options: Namespace) -> None:
    """Write the page and say where it is."""
    for library in LIBRARIES:
        if find_spec(library) is None:
            raise ValueError(f"the report needs {library}, which is not installed; run pip install 'coupled[report]'")
    folders = [folder for each in options.run for folder in each] if options.run else [newest_run(Path("runs"))]
    runs = read_runs(folders)
    failed = [each for run in runs for each in compute(run)] if options.compute else []
    runs = read_runs(folders) if options.compute else runs
    path = options.output or folders[0] / "analysis" / "report.html"
    try:
        write_durably(path, encoded(page(runs)))
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--output: {error.strerror}") from None
    for run in runs:
        for each in (*missing(run), *thinned(run)):
            say(f"{run.name}: {each.table}: {each.state}; {suggest(*each.command)}")
    say(path)
    if failed:
        raise ValueError(f"--compute: {'; '.join(failed)}; the page has the rest")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(report, parsers.report(), arguments)
