"""One page that shows a run, or several side by side: report.html, self-contained, readable without a network.

Reads the CSV files and run.json of each run, nothing else. What has not been computed yet is listed on the page with
the command that computes it; --compute runs those commands first. Tables that were kept to a few epochs or layers are
listed, too, and left as they are. Without --output the page goes to
DIR/analysis/report.html of the first run. Needs plotly and jinja2 (extra `report`).
"""

import json
import subprocess
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as TerminalTable

from coupled.analysis import parsers
from coupled.analysis.driver import run_program
from coupled.analysis.parsers import NEED_NO_CODE
from coupled.analysis.report import arm_charts, heat_maps, loss_charts, pair_charts
from coupled.analysis.report.charts import Chart, TraceStyles
from coupled.analysis.report.missing import missing_tables, partial_tables
from coupled.analysis.report.page_tables import (
    Table,
    about,
    correlations,
    fits,
    last_values,
    settings,
    to_complete,
    to_compute,
)
from coupled.analysis.report.tables import ReportRun, read_runs
from coupled.analysis.run import Run, open_run
from coupled.monitoring.commands import child_command, child_environment, suggest
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import encoded, write_durably

PAGE = Path(__file__).parent / "page"
LIBRARIES = ("jinja2", "plotly")
REPORTS_FINDINGS = ("verify", "bounds")  # their status 1 means findings, which belong on the page


def page(runs: Sequence[Run]) -> str:
    """A page about runs, side by side.

    Args:
        runs: the runs, each once.

    Returns:
        The whole page as HTML.

    Raises:
        ValueError: for a run that is given twice, and a damaged table.
    """
    return render(read_runs(runs))


def render(runs: Sequence[ReportRun]) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    styles = TraceStyles(runs)
    content = sections(runs, styles)
    charts = {part.key: part.variants for each in content for part in each["parts"] if isinstance(part, Chart)}
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string((PAGE / "page.html").read_text(encoding="utf-8")).render(
        title=f"coupled: {', '.join(run.name for run in runs)}",
        sections=content,
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        data=embedded({"charts": charts, "arms": styles.colours}),
    )


def sections(runs: Sequence[ReportRun], styles: TraceStyles) -> list[dict[str, Any]]:
    """The sections of the page in their order; sections, charts and tables without content are left out."""
    of_pairs, of_arms, of_losses, maps = pair_charts, arm_charts, loss_charts, heat_maps

    def draw(*charts: Callable[[Sequence[ReportRun], TraceStyles], Chart]) -> list[Chart | Table]:
        return [chart(runs, styles) for chart in charts]

    every: list[tuple[str, str, list[Chart | Table]]] = [
        ("run", "What was run", [about(runs), settings(runs)]),
        ("headline", "Headline", [*draw(of_pairs.headline), last_values(runs)]),
        ("missing", "Not computed yet", [to_compute(runs), to_complete(runs)]),
        ("alignment", "Alignment", draw(of_pairs.alignment, of_pairs.alignment_bounds)),
        ("layers", "Alignment, layer by layer", draw(maps.alignment_by_layer, maps.cross_layer)),
        (
            "weights",
            "Weights",
            [*draw(maps.weights_by_layer, of_pairs.growth), fits(runs), *draw(of_pairs.weight_shape)],
        ),
        (
            "losses",
            "Losses",
            [*draw(of_losses.losses, of_losses.loss_gap, of_losses.nscl_reached), correlations(runs)],
        ),
        ("quality", "Quality", draw(of_arms.quality, of_arms.few_shot)),
        ("collapse", "Collapse", draw(of_arms.collapse, of_arms.spectra)),
        ("speed", "Throughput", draw(of_arms.throughput)),
    ]
    content = []
    for key, title, parts in every:
        filled = [part for part in parts if (part.variants if isinstance(part, Chart) else part.rows)]
        if filled:
            content.append({"key": key, "title": title, "parts": filled})
    return content


def embedded(data: Any) -> str:
    """JSON that ends no script and begins no comment, whatever names and cells are in it: `<` is an escape."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def compute_missing(run: ReportRun, allow_code: bool = False) -> list[str]:
    """Run the programs whose tables are missing; those that failed, a line each."""
    failures = []
    of_code = run.run.description["settings"].get("code")
    for words in dict.fromkeys(each.command for each in missing_tables(run)):
        if of_code and allow_code and words[0] not in NEED_NO_CODE:
            words = (*words, "--allow-code")
        command = suggest(*words)
        say(f"$ {command}")
        status = subprocess.run(child_command(*words), env=child_environment(), check=False).returncode
        if status and not (status == 1 and words[0] in REPORTS_FINDINGS):
            failures.append(f"'{command}' ended with status {status}")
    return failures


def check_no_code(runs: Sequence[Run]) -> None:
    """Raise ValueError for a run whose settings name code of the user, which what is missing needs."""
    for run in runs:
        if code := run.description["settings"].get("code"):
            raise ValueError(
                f"--compute: '{run.path}' names code of the user, which this would import: {', '.join(code)}; read it,"
                " then pass --allow-code"
            )


def report(options: Namespace) -> None:
    """Write the page, print the last values and where the page is."""
    for library in LIBRARIES:
        if find_spec(library) is None:
            raise ValueError(f"the report needs {library}, which is not installed: pip install plotly jinja2")
    opened = [open_run(path) for paths in options.run for path in paths] if options.run else [open_run()]
    runs = read_runs(opened)
    if options.compute and not options.allow_code:
        check_no_code(opened)
    failures = [each for run in runs for each in compute_missing(run, options.allow_code)] if options.compute else []
    runs = read_runs(opened) if options.compute else runs
    path = options.output or opened[0].path / "analysis" / "report.html"
    try:
        write_durably(path, encoded(render(runs)))
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--output: {error.strerror}") from None
    print_table(last_values(runs))
    for run in runs:
        for each in (*missing_tables(run), *partial_tables(run)):
            say(f"{run.name}: {each.table}: {each.state}; {suggest(*each.command)}")
    say(path)
    if failures:
        raise ValueError(f"--compute: {'; '.join(failures)}; the page has the rest")


def print_table(table: Table) -> None:
    """Print a table without its empty columns; nothing if it has no rows."""
    if not table.rows:
        return
    shown = TerminalTable(title=table.title, box=box.SIMPLE_HEAD)
    columns = [index for index in range(len(table.columns)) if any(row[index].text for row in table.rows)]
    columns = columns[len({row[0].text for row in table.rows}) == 1 :]  # of one run without its name
    for index in columns:
        number = any(row[index].number for row in table.rows)
        shown.add_column(table.columns[index], justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*(escape(row[index].text) for index in columns))
    Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(report, parsers.report(), arguments)
