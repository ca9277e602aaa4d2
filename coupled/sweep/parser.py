"""The command line of `coupled sweep`. This module imports no large package, so that `--help` is fast."""

from pathlib import Path

from coupled.config.command_line import Parser, command_parser, positive


def parser() -> Parser:
    """Return the parser of `coupled sweep`."""
    about = (
        "Train and analyse one run for each point of a grid. Finished points are skipped, interrupted points are\n"
        "resumed. A point that fails does not stop the others."
    )
    examples = [
        "demo temperature=0.1,0.5,1 seed=0:4 --jobs 2",
        'demo seed=0:2 --analyses weight-gap "alignment --layers h --split test"',
    ]
    files = [
        "runs/<name>/<point>/                     run folder of each point; <point>.log beside it holds the output",
        "runs/<name>/sweep.json, sweep.csv        definition of the sweep; values of all runs",
        "runs/<name>/figures/                     figures of mean and standard deviation over seeds",
    ]
    result = command_parser("sweep", about, examples, files)
    config = "a settings file, a sweep file (with the key `base`), or the name of a settings file in the package"
    result.add_argument("config", metavar="CONFIG", help=config)
    values = "values to sweep, or a range first:last[:step] that includes the last value, such as seed=0:4"
    result.add_argument("lists", nargs="*", default=[], metavar="key=v1,v2", help=values)
    together = "keys whose lists are paired value by value instead of combined; the option can be repeated"
    result.add_argument("--zip", nargs="+", action="append", default=[], metavar="key=v1,v2", help=together)
    result.add_argument("--jobs", type=positive, default=1, metavar="N", help="points to run in parallel (default: 1)")
    where = "folder of the sweeps (default: runs)"
    result.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help=where)
    result.add_argument("--name", help="folder of the sweep in --runs-dir (default: from the file's name and the keys)")
    usual = 'default: those of the sweep file, or weight-gap "alignment --split test --layers h"'
    what = f"analysis commands, each quoted together with its options ({usual}); no value: no analysis"
    result.add_argument("--analyses", nargs="*", metavar="COMMAND", help=what)
    one = result.add_mutually_exclusive_group()
    one.add_argument("--list", action="store_true", help="print the number and name of every point, then exit")
    only = "run only the point with this number (see --list); write no sweep.csv and no figures"
    one.add_argument("--index", type=int, metavar="I", help=only)
    return result
