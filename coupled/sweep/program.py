"""Train and analyse one run for each point of a grid, then write one table and the figures of all points.

CONFIG is a settings file or a sweep file. A sweep file has the key `base`; points.py lists its other keys. Lists on the
command line replace those of the file. Each point has a run folder such as temperature=0.1,seed=3 in the folder of the
sweep, for example runs/<file>_sweep/temperature. The output of its programs is in <point>.log beside it.

Finished points are skipped and interrupted points are resumed. A point that fails does not stop the others. At the end
sweep.csv holds every value of all points, and figures/ shows mean and standard deviation over seeds.

In a SLURM array each task calls with `--index "$SLURM_ARRAY_TASK_ID"` and runs one of the points that `--list` numbers.
A later call without `--index` finds all points finished and writes the table and the figures. Locks allow one sweep at
a time in a folder and one program at a time on a point.
"""

import contextlib
import sys
from collections.abc import Sequence

from coupled.analysis.driver import report_fault
from coupled.analysis.tidy_csv import write_table
from coupled.config.command_line import find_config
from coupled.config.errors import report_error
from coupled.monitoring.commands import program_name, suggest
from coupled.monitoring.terminal import INTERRUPTED, counted, imports_done, say
from coupled.storage.run_lock import run_lock
from coupled.sweep.figures import draw
from coupled.sweep.jobs import run_points
from coupled.sweep.parser import parser
from coupled.sweep.points import Point, Sweep, points, read_sweep
from coupled.sweep.tables import collect, write_definition


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return its exit status: 2 for bad input, 1 if a point failed, 130 if it was stopped."""
    imports_done()
    program = program_name("sweep")
    try:
        options = parser().parse_intermixed_args(arguments)
        given, analyses = options.lists, options.analyses
        config, folder = find_config(options.config), options.runs_dir
        sweep = read_sweep(config, given, options.zip, runs=folder, name=options.name, analyses=analyses)
        every = points(sweep)
        chosen = every if options.index is None else [_at(every, options.index)]
        if options.list:
            for index, point in enumerate(every):
                say(f"{index} {point.name}")
            return 0
        # tasks of an array share the folder, so each locks only its point
        whole = options.index is None
        with run_lock(sweep.folder, "--name") if whole else contextlib.nullcontext():
            return run(sweep, every, chosen, options.jobs, whole, figure_needed=analyses is None)
    except ValueError as error:
        return report_error(program, error)
    except OSError as error:
        return report_fault(program, error)
    except KeyboardInterrupt:
        again = suggest("sweep", *(arguments or ()))
        say(f"stopped; to continue the sweep: {again}", sys.stderr)
        return INTERRUPTED


def run(
    sweep: Sweep, every: Sequence[Point], chosen: Sequence[Point], jobs: int, whole: bool, *, figure_needed: bool
) -> int:
    """Train and analyse the `chosen` points; if `whole`, write table and figures, too. Return the exit status.

    Without `figure_needed`, figures that cannot be drawn are no failure: the file's are not those of other analyses.
    """
    if whole:
        write_definition(sweep, every)
    failed = run_points(sweep, chosen, jobs, say)
    try:
        shown = show(sweep) or not figure_needed if whole else True
    finally:
        for name, wrong in failed.items():
            say(f"{program_name('sweep')}: {name} failed: {wrong}", sys.stderr)
    return 0 if shown and not failed else 1


def _at(every: Sequence[Point], index: int) -> Point:
    if not 0 <= index < len(every):
        raise ValueError(f"--index: got {index}; allowed is 0 to {len(every) - 1}; --list prints the points")
    return every[index]


def show(sweep: Sweep) -> bool:
    """Write sweep.csv and the figures and print their paths. Return False if the figures could not be drawn."""
    rows = collect(sweep.folder)
    write_table(sweep.folder / "sweep.csv", rows)
    say(f"{sweep.folder / 'sweep.csv'}: {counted(len(rows), 'row')} of {counted(rows['run'].nunique(), 'run')}")
    try:
        for path in draw(sweep.folder, rows) if sweep.analyses else []:
            say(path)
    except ValueError as error:
        say(f"{program_name('sweep')}: no figure: {error}", sys.stderr)
        return False
    return True
