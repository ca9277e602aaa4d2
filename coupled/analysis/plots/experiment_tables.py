"""The tables of several runs for the figures: seeds of one experiment as their mean, experiments side by side."""

from collections.abc import Sequence

from coupled.analysis.plots.figure_tables import FigureTables, figure_tables
from coupled.analysis.run import Run
from coupled.analysis.selections.differences import differences
from coupled.analysis.selections.seeds import by_seed, common_name, unique
from coupled.analysis.selections.styles import arm_styles
from coupled.analysis.several_runs import run_labels


def experiment_tables(runs: Sequence[Run], reference: str) -> FigureTables:
    """Return the tables of one run, of the seeds of one experiment, or of several experiments.

    Args:
        runs: the runs; those that differ only in their seeds are one experiment.
        reference: the arm that the others are compared with, in every run.

    Returns:
        Tables whose `members` are the seeds, or whose `experiments` are the experiments; the note names the settings in
        which experiments differ.

    Raises:
        ValueError: if a run is listed twice, or the reference is not an arm of a run.
    """
    paths = [run.path.resolve() for run in runs]
    if len({*paths}) < len(paths):
        raise ValueError("run_dir: a run folder is listed twice; list each run once")
    every = run_labels(runs)
    places = by_seed([run.description["settings"] for run in runs])
    groups = [[runs[place] for place in group] for group in places]
    names = unique([common_name([every[place] for place in group], [runs[place].path for place in group])
                    for group in places])  # fmt: skip
    experiments = []
    for name, group in zip(names, groups, strict=True):
        members = tuple(figure_tables(run, reference) for run in group)
        experiments.append(members[0]._replace(name=name, members=members if len(members) > 1 else ()))
    if len(experiments) == 1:
        return experiments[0]
    differ = differences({name: group[0].description["settings"] for name, group in zip(names, groups, strict=True)})
    notes = dict.fromkeys([f"{each.name}: {each.note}" for each in experiments if each.note] + [differ])
    styles = arm_styles(list(dict.fromkeys(arm for each in experiments for arm in each.styles)))
    first = experiments[0]
    return FigureTables(
        first.folder, reference, styles, [], "; ".join(filter(None, notes)), experiments=tuple(experiments)
    )
