"""Write report.html: one self-contained page about a run, or about several runs side by side. It needs no network.

The program reads only run.json and the CSV files of each run. The page lists every missing table with the command that
computes it; `--compute` runs these commands first. The page also lists tables that cover only some epochs or layers;
`--compute` does not complete them. The page is analysis/report.html in the folder of the run; about several runs in the
folder of their sweep, or in the deepest folder that has all of them. Needs jinja2 (extra `report`); plotly.js is in the
package.
"""

import json
import subprocess
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from coupled.analysis.report import arm_charts, heat_maps, loss_charts, pair_charts, step_charts
from coupled.analysis.report.charts import Chart
from coupled.analysis.report.further_measures import measures
from coupled.analysis.report.headline import Text, headline
from coupled.analysis.report.last_values import last_values, last_values_of_others, last_values_of_seeds
from coupled.analysis.report.missing import by_command, missing_tables, partial_tables
from coupled.analysis.report.page_tables import (
    Table,
    about,
    correlations,
    fits,
    settings,
    to_complete,
    to_compute,
    to_measure,
    without_empty_columns,
)
from coupled.analysis.report.tables import ReportRun, by_experiment, experiments, read_runs
from coupled.analysis.report.terms import terms, unbroken, with_options
from coupled.analysis.run import Run
from coupled.analysis.selections.differences import differences
from coupled.analysis.selections.looks import Looks
from coupled.analysis.several_runs import open_runs, results_folder
from coupled.config.arm_sections import not_shared_text
from coupled.monitoring.commands import child_command, child_environment, suggest
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import encoded, write_durably

PAGE = Path(__file__).parent / "page"
# plotly.js-cartesian-dist-min 4.1.1 of npm, unchanged: the charts with x and y axes, a third of the size of plotly.js.
# To renew: `npm pack plotly.js-cartesian-dist-min`, then copy package/plotly-cartesian.min.js and package/LICENSE, as
# plotly-LICENSE.txt, to page/ and the SHA-256 of the first to test_report_measures.py.
PLOTLY = "plotly-cartesian.min.js"
SCRIPTS = ("text.js", "page.js")
REPORTS_FINDINGS = ("verify", "bounds")  # their exit status 1 means findings, which the page shows


def page(runs: Sequence[Run]) -> str:
    """Return a page about one run, or about several runs side by side.

    Args:
        runs: the runs, without duplicates.

    Returns:
        The whole page as HTML.

    Raises:
        ValueError: if a run is listed twice or a table is damaged.
    """
    read = read_runs(runs)
    return render(read, sections(read))


def render(runs: Sequence[ReportRun], content: Sequence[dict[str, Any]]) -> str:
    """Return the whole page as HTML; `content` is that of `sections`."""
    from jinja2 import Environment, StrictUndefined

    charts = {part.key: part.variants for each in content for part in each["parts"] if isinstance(part, Chart)}
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template.filters |= {"unbroken": unbroken, "with_options": with_options}
    read = {name: (PAGE / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", PLOTLY, *SCRIPTS)}
    return template.from_string(read["page.html"]).render(
        title=f"coupled: {', '.join(_title(name, len(group)) for name, group in by_experiment(runs))}",
        sections=content,
        style=read["page.css"],
        script="\n".join(read[name] for name in SCRIPTS),
        plotly=read[PLOTLY],
        data=embedded({"charts": charts, "arms": Looks(runs).swatches}),
    )


def _title(name: str, seeds: int) -> str:
    return f"{name} ({seeds} seeds)" if seeds > 1 else name


def sections(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Return the sections of the page in order, without empty sections, charts and tables."""
    of_pairs, of_arms, of_losses, maps = pair_charts, arm_charts, loss_charts, heat_maps
    shown = experiments(runs)
    looks = Looks(shown)
    texts = {run.name: not_shared_text(run.run.description["settings"]) for run in shown}
    note = "".join(f" {f'{name}, ' if len(shown) > 1 else ''}{text}." for name, text in texts.items() if text)
    differ = differences({run.name: run.run.description["settings"] for run in shown})
    about_all = " ".join(filter(None, (note, f"{differ[0].upper()}{differ[1:]}." if differ else "")))

    def draw(*charts: Callable[[Sequence[ReportRun], Looks], Chart]) -> list[Chart | Table]:
        drawn = [chart(shown, looks) for chart in charts]
        return [replace(each, caption=each.caption + note) for each in drawn]

    last = [last_values(shown), last_values_of_others(shown), last_values_of_seeds(runs)]
    every: list[tuple[str, str, Sequence[Chart | Table | Text]]] = [
        ("headline", "Summary", [headline(runs, about_all), *draw(of_pairs.headline), *last]),
        ("training", "Training", draw(step_charts.steps, of_arms.throughput)),
        ("alignment", "Alignment", draw(of_pairs.alignment, of_pairs.alignment_bounds)),
        ("layers", "Layer-wise alignment", draw(maps.alignment_by_layer, maps.cross_layer)),
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
        ("quality", "Quality", draw(of_arms.quality, of_pairs.alignment_accuracy, of_arms.few_shot)),
        ("collapse", "Collapse", draw(of_arms.collapse, of_arms.spectra)),
        ("measures", "Classifiers, corruptions, barriers, gradients", measures(runs)),
        ("missing", "Not computed yet", [to_compute(runs), to_complete(runs), to_measure(runs)]),
        ("run", "Run and settings", [about(runs), settings(runs)]),
    ]
    content: list[dict[str, Any]] = []
    for key, title, parts in every:
        whole = [without_empty_columns(part) if isinstance(part, Table) else part for part in parts]
        filled = [part for part in whole if has_content(part)]
        if filled:
            content.append({"key": key, "title": title, "parts": filled})
    if content and content[0]["key"] == "headline":
        content[0]["parts"].append(terms([part for section in content for part in section["parts"]]))
    return content


def has_content(part: Chart | Table | Text) -> bool:
    """Return whether a part of the page has variants, rows or sentences."""
    if isinstance(part, Table):
        return bool(part.rows)
    return bool(part.variants if isinstance(part, Chart) else part.sentences)


def embedded(data: Any) -> str:
    """Return JSON for a script element: `<` is escaped, so that no name or cell can end the script."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def compute_missing(run: ReportRun, allow_code: bool = False) -> list[str]:
    """Run the programs whose tables are missing. Return one line for each program that failed."""
    failures = []
    of_code = run.run.description["settings"].get("code")
    for words in dict.fromkeys(each.command for each in missing_tables(run)):
        if of_code and allow_code and words[0] not in NEED_NO_CODE:
            words = (*words, "--allow-code")
        command = suggest(*words)
        say(f"$ {command}")
        status = subprocess.run(child_command(*words), env=child_environment(), check=False).returncode
        if status and not (status == 1 and words[0] in REPORTS_FINDINGS):
            failures.append(f"'{command}' ended with exit status {status}")
    return failures


def check_no_code(runs: Sequence[Run]) -> None:
    """Raise ValueError for a run whose settings name user-defined code, which the missing tables may need."""
    for run in runs:
        if code := run.description["settings"].get("code"):
            raise ValueError(
                f"--compute: the settings of '{run.path}' name user-defined code, which would be imported:"
                f" {', '.join(code)}; read that code, then pass --allow-code"
            )


def report(options: Namespace) -> None:
    """Write the page; print the last values and the path of the page."""
    if find_spec("jinja2") is None:
        raise ValueError("the report needs jinja2, which is not installed: pip install jinja2")
    opened = open_runs([path for paths in options.run or () for path in paths])
    path = options.output or results_folder(opened) / "report.html"
    runs = read_runs(opened)
    if options.compute and not options.allow_code:
        check_no_code(opened)
    failures = [each for run in runs for each in compute_missing(run, options.allow_code)] if options.compute else []
    runs = read_runs(opened) if options.compute else runs
    content = sections(runs)
    try:
        write_durably(path, encoded(render(runs, content)))
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--output: {error.strerror}") from None
    for sentence in headline(runs).sentences:
        say(sentence)
    for part in (part for section in content for part in section["parts"] if part.key == "last"):
        print_table(part)
    for run in runs:
        if text := not_shared_text(run.run.description["settings"]):
            say(f"{run.name}: {text}" if len(runs) > 1 else text)
        for each in by_command([*missing_tables(run), *partial_tables(run)]):
            say(f"{run.name}: {each.table}: {each.state}; run: {suggest(*each.command)}")
    say(path)
    if failures:
        raise ValueError(f"--compute: {'; '.join(failures)}; the page was written without their tables")


def print_table(table: Table) -> None:
    """Print a table."""
    shown = TerminalTable(title=table.title, caption=table.caption or None, box=box.SIMPLE_HEAD)
    shown.title_justify = shown.caption_justify = "left"
    for index, column in enumerate(table.columns):
        number = any(row[index].number for row in table.rows)
        shown.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*(escape(each.text) for each in row))
    Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(report, parsers.report(), arguments)
