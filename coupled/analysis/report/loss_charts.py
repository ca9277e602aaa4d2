"""The charts of losses: every arm under every loss, DCL - NSCL and its bounds, and how near CL comes to NSCL."""

from collections.abc import Iterable, Sequence

from coupled.analysis.report.charts import Chart, Figure, Trace, TraceStyles, add_variant, layout, numbers
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.tables import largest_sample


def losses(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Every arm under every loss; and the loss that each was trained with."""
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
            figure = add_variant(variants, "while training, each arm's own", layout("training loss (nats)"))
            figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["loss"]))
    caption = "On views that no arm was trained on, the same for all arms and epochs."
    return Chart("losses", "Every arm under every loss", caption, variants)


def loss_gap(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """DCL - NSCL, and what bounds it."""
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
    caption = "Logarithmic. The gap is at least 0 and never above the bound of its batch: held for every anchor."
    return Chart("loss_gap", "Contrastive minus supervised loss, and its bounds", caption, variants)


def line_of_no_arm(
    x: Iterable[float], y: Iterable[float], label: str, dash: str, run: ReportRun, styles: TraceStyles
) -> Trace:
    """A line that no switch of an arm hides."""
    name = f"{label} · {run.name}" if len(styles.runs) > 1 else label
    line = {"dash": dash, "color": "#888888", "width": 1.4}
    return {"type": "scatter", "mode": "lines", "name": name, "x": numbers(x), "y": numbers(y), "line": line}


def nscl_reached(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """How near each arm comes to the NSCL loss of the arm that minimises it."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("nscl_reached.csv")
        if table.empty:
            continue
        for (split, tau), group in table.groupby(["split", "temperature"], sort=False):
            for column, title in (
                ("excess", "NSCL loss above the direct arm's (nats)"),
                ("share", "share of its descent"),
            ):
                figure = add_variant(variants, f"{column}, {split}, τ = {tau:g}", layout(title))
                for (arm, _), rows in largest_sample(group).groupby(["arm", "direct_arm"], sort=False):
                    figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows[column]))
    caption = "Minimising CL is said to bring the NSCL loss near what direct minimisation reaches: excess 0, share 1."
    return Chart("reached", "Does CL minimise NSCL?", caption, variants)
