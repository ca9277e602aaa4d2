"""The missing and partial tables of a run, and the commands that compute them."""

from collections.abc import Sequence
from typing import NamedTuple

from coupled.analysis.report.tables import SHOWN, ReportRun
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.run import USUAL_REFERENCE
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selection import is_unlabelled
from coupled.storage.run_description import has_projector, imported_epochs

PROGRAMS = {  # program -> the tables it writes that the page shows; in the order in which they must run
    program: tuple(name for name in SHOWN if SCHEMAS[name].program == program)
    for program in ("verify", "weight_gap", "alignment", "quality", "collapse", "losses", "bounds")
}
FURTHER = {  # the same, of the programs that --compute does not run
    program: tuple(name for name in SHOWN if SCHEMAS[name].program == program)
    for program in ("linear_evaluation", "pretext", "calibration", "robustness", "barrier", "gradients")
}
OPTIONS = {  # besides --run-dir
    "verify": ("--output", "{run}/analysis"),
    "alignment": ("--layers", "stages", "--cross-layer"),
}
SERIES = ("split", "reference", "arm", "module", "metric", "temperature")  # a complete table has each at all epochs
NEVER_BEHIND = ("weight_gap_growth.csv", "loss_correlation.csv", "nscl_reached.csv")  # written with the others
COMPARING = ("weight_gap", "alignment", "bounds")  # these compare arms with a reference, so they need two arms
BEFORE_BOUNDS = ("weight_gap.csv", "quality.csv")  # bounds.csv has bounds for the values of these tables


class Missing(NamedTuple):
    """A table that does not exist or is not complete, and the command with its options that computes the rest."""

    run: str
    table: str
    state: str
    command: tuple[str, ...]


def programs_for(run: ReportRun) -> dict[str, tuple[str, ...]]:
    """`PROGRAMS` without those that cannot work on the run: an imported run may lack logs or a projector."""
    description = run.run.description
    refuse = ["bounds"] if imported_epochs(description) else []
    refuse += [] if has_projector(description) else ["collapse", "losses"]
    return {program: names for program, names in PROGRAMS.items() if program not in refuse}


def missing_tables(run: ReportRun) -> list[Missing]:
    """The tables that do not exist, end before the last snapshot of the run, or lack an arm, program by program.

    A table of some epochs, layers or metrics only is not missing; `partial_tables` lists those of some epochs or
    layers. Tables that compare arms are not missing in a run of one arm.
    """
    missing: list[Missing] = []
    for program, names in programs_for(run).items():
        if program in COMPARING and len(run.arms) < 2:
            continue
        for name in names:
            state = _lacking(run, name)
            if not state or (name in NEVER_BEHIND and not run.table(names[0]).empty):
                continue  # an empty one means too few epochs or no such arms
            missing.append(Missing(run.name, name, state, _command(run, program)))
    tables = [each.table for each in missing]
    if not run.table("bounds.csv").empty and "bounds.csv" not in tables:
        inputs = [table for table in tables if table in BEFORE_BOUNDS]
        state = f"incomplete: {inputs[-1]} is missing or incomplete" if inputs else _lacking_few_shot(run)
        missing += [Missing(run.name, "bounds.csv", state, _command(run, "bounds"))] if state else []
    return missing


def partial_tables(run: ReportRun) -> list[Missing]:
    """The tables of some epochs or layers only that are not missing, and the commands that add the rest."""
    others = {*NEVER_BEHIND, *(each.table for each in missing_tables(run))}
    return [
        Missing(run.name, name, state, _command(run, program))
        for program, names in programs_for(run).items()
        for name in names
        if name not in others and (state := _measured_part(run, name, of_stages=program == "alignment"))
    ]


def further_tables(run: ReportRun) -> list[Missing]:
    """The tables of further measures that do not exist, of the programs that can work on the run."""
    refuse = [] if has_projector(run.run.description) else ["gradients", "barrier"]
    refuse += [] if len(run.arms) > 1 else ["barrier"]
    refuse = list(FURTHER) if is_unlabelled(run.run) else refuse
    return [
        Missing(run.name, name, "not computed", _command(run, program))
        for program, names in FURTHER.items()
        for name in names
        if program not in refuse and run.table(name).empty
    ]


def by_command(tables: Sequence[Missing]) -> list[Missing]:
    """Return one entry per run and command, with the names of all its tables."""
    groups: dict[tuple[str, tuple[str, ...]], list[Missing]] = {}
    for each in tables:
        groups.setdefault((each.run, each.command), []).append(each)
    return [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Missing]) -> Missing:
    states: dict[str, list[str]] = {}
    for each in group:
        states.setdefault(each.state, []).append(each.table)
    if len(states) == 1:
        return group[0]._replace(table=", ".join(each.table for each in group))
    state = "; ".join(f"{', '.join(names)}: {state}" for state, names in states.items())
    return group[0]._replace(table=f"{len(group)} tables", state=state)


def _lacking(run: ReportRun, name: str) -> str:
    """What a table lacks; "" if it is complete."""
    table, last = run.table(name), run.kept_epochs[-1]
    if table.empty:
        return "not computed"
    if "reference" in table:
        table = table.dropna(subset=["reference"])  # few-shot rows of bounds.csv have no reference
    column = next((column for column in ("last_epoch", "epoch") if column in table), None)
    if column and not table[column].max() >= last:
        return f"up to epoch {int(table[column].max())} of {last}" if len(table) else "without comparisons"
    if column != "epoch" or "arm" not in table:
        return ""
    rows = table[table["epoch"] >= last]
    measured = {*rows["arm"], *rows.get("reference", ())}
    lacking = [arm for arm in run.arms if arm not in measured]
    return f"without {', '.join(lacking)} at epoch {last}" if lacking else ""


def _lacking_few_shot(run: ReportRun) -> str:
    """The state of bounds.csv if quality.csv has few-shot errors and bounds.csv has none; else ""."""
    quality, bounds = run.table("quality.csv"), run.table("bounds.csv")
    measured = not quality.empty and quality["shots"].notna().any()
    return "without few-shot errors" if measured and not bounds["shots"].notna().any() else ""


def _measured_part(run: ReportRun, name: str, of_stages: bool) -> str:
    """The epochs and layers that a partial table covers; "" if it covers all."""
    table, epochs = run.table(name), run.kept_epochs
    if "epoch" not in table:
        return ""
    table = table.dropna(subset=["reference"]) if "reference" in table else table
    series = table[["epoch", *(column for column in SERIES if column in table)]].drop_duplicates()
    count = len(series.drop(columns="epoch").drop_duplicates())
    whole = int((series.groupby("epoch").size().reindex(epochs) == count).sum())
    layers = list(dict.fromkeys(table.get("module", ())))
    outputs_only = bool(layers) and {*layers} <= {*OUTPUTS} and (of_stages or len(layers) < len(OUTPUTS))
    state = [f"complete at {whole} of {len(epochs)} epochs"] if whole < len(epochs) else []
    return "; ".join([*state, *([f"only layers {', '.join(layers)}"] if outputs_only else [])])


def _command(run: ReportRun, program: str) -> tuple[str, ...]:
    """The command, with its options, that runs a program on the run."""
    options = [each.format(run=run.run.path) for each in OPTIONS.get(program, ())]
    if program in COMPARING and USUAL_REFERENCE not in run.arms:
        options += ["--reference", run.arms[0]]
    return (program.replace("_", "-"), "--run-dir", str(run.run.path), *options)
