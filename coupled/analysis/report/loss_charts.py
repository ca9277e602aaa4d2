"""The charts of losses: every loss for every arm, DCL - NSCL with its bounds, NSCL against direct minimisation."""

from collections.abc import Iterable, Sequence

from coupled.analysis.report.charts import Chart, Figure, Trace, TraceStyles, add_variant, layout, numbers
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.tables import largest_sample


def losses(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Every loss for every arm, and the training loss of each arm."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("losses.csv")
        if table.empty:
            continue
        for (loss, split, tau), group in table.groupby(["loss", "split", "temperature"], sort=False):
            figure = add_variant(variants, f"{loss}, {split}, τ = {tau:g}", layout(f"{loss} (nats)"))
            for arm, rows in largest_sample(group).groupby("arm", sort=False):
                figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["value"]))
    for run in runs:
        table = run.table("epochs.csv")
        for arm, rows in table.groupby("arm", sort=False) if len(table) else ():
            figure = add_variant(variants, "training loss of each arm", layout("training loss (nats)"))
            figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["loss"]))
    caption = (
        "Evaluated on augmented views that no arm was trained on, the same for all arms and epochs. The last variant,"
        " the training loss, is the mean over the steps of an epoch (epochs.csv)."
    )
    return Chart("losses", "Every loss evaluated for every arm", caption, variants)


def loss_gap(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """DCL - NSCL and its bounds."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("loss_gap.csv")
        if table.empty:
            continue
        for (split, tau), group in table.groupby(["split", "temperature"], sort=False):
            figure = add_variant(variants, f"{split}, τ = {tau:g}", layout("DCL - NSCL (nats)"))
            figure["layout"]["yaxis"]["type"] = "log"
            group = largest_sample(group)
            for arm, rows in group.groupby("arm", sort=False):
                figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["gap"]))
            first = group[group["arm"] == group["arm"].iloc[0]]
            for column, label, dash in (
                ("bound", "bound of the batches", "dash"),
                ("set_bound", "bound of the set", "dot"),
            ):
                figure["data"].append(line_of_no_arm(first["epoch"], first[column], label, dash, run, styles))
    caption = (
        "The y axis is logarithmic. For every anchor the gap lies between 0 and the bound of its batch; coupled losses"
        " checks this and stops if it fails."
    )
    return Chart("loss_gap", "Loss gap DCL - NSCL and its bounds", caption, variants)


def line_of_no_arm(
    x: Iterable[float], y: Iterable[float], label: str, dash: str, run: ReportRun, styles: TraceStyles
) -> Trace:
    """A line that belongs to no arm, so that no switch of an arm hides it."""
    name = f"{label} · {run.name}" if len(styles.runs) > 1 else label
    line = {"dash": dash, "color": "#888888", "width": 1.4}
    return {"type": "scatter", "mode": "lines", "name": name, "x": numbers(x), "y": numbers(y), "line": line}


def nscl_reached(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """The NSCL loss of each arm, compared with an arm that minimises NSCL directly."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("nscl_reached.csv")
        if table.empty:
            continue
        for (split, tau), group in table.groupby(["split", "temperature"], sort=False):
            for column, title in (
                ("excess", "NSCL loss minus that of the direct arm (nats)"),
                ("share", "share of the direct arm's descent"),
            ):
                figure = add_variant(variants, f"{column}, {split}, τ = {tau:g}", layout(title))
                for (arm, _), rows in largest_sample(group).groupby(["arm", "direct_arm"], sort=False):
                    figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows[column]))
    caption = (
        "The direct arm minimises NSCL itself. According to arXiv 2506.04411, minimising CL brings the NSCL loss near"
        " that of the direct arm: excess 0, share 1."
    )
    return Chart("reached", "NSCL loss compared with direct minimisation", caption, variants)
