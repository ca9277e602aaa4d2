"""The figures of a report in which a measurement stands beside a bound: losses, alignment, few-shot errors, weights."""

from collections.abc import Iterable, Sequence

import pandas as pd

from coupled.analysis.report.charts import (
    Chart,
    Figure,
    Look,
    Trace,
    layout,
    numbers,
    pairs,
    reference_of,
    variant,
)
from coupled.analysis.report.tables import Run
from coupled.analysis.tables import largest_sample

FLOORS = {"a_posteriori": "dash", "a_posteriori_sharp": "dot", "a_priori": "longdashdot"}


def losses(runs: Sequence[Run], look: Look) -> Chart:
    """Every arm under every loss; and the loss that each was trained with."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("losses.csv")
        if table.empty:
            continue
        for (loss, split, tau), part in table.groupby(["loss", "split", "temperature"], sort=False):
            figure = variant(variants, f"{loss}, {split}, τ = {tau:g}", layout(f"{loss} (nats)"))
            for arm, rows in largest_sample(part).groupby("arm", sort=False):
                figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["value"]))
    for run in runs:
        table = run.table("epochs.csv")
        for arm, rows in table.groupby("arm", sort=False) if len(table) else ():
            figure = variant(variants, "while training, each arm's own", layout("training loss (nats)"))
            figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["loss"]))
    words = "On views that no arm was trained on, the same for all arms and epochs."
    return Chart("losses", "Every arm under every loss", words, variants)


def loss_gap(runs: Sequence[Run], look: Look) -> Chart:
    """DCL - NSCL, and what bounds it."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("loss_gap.csv")
        if table.empty:
            continue
        for (split, tau), part in table.groupby(["split", "temperature"], sort=False):
            figure = variant(variants, f"{split}, τ = {tau:g}", layout("DCL - NSCL (nats)"))
            figure["layout"]["yaxis"]["type"] = "log"
            part = largest_sample(part)
            for arm, rows in part.groupby("arm", sort=False):
                figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["gap"]))
            first = part[part["arm"] == part["arm"].iloc[0]]
            for column, words, dash in (
                ("bound", "bound of the batches", "dash"),
                ("set_bound", "bound of the set", "dot"),
            ):
                figure["data"].append(of_no_arm(first["epoch"], first[column], words, dash, run, look))
    words = "Logarithmic. The gap is at least 0 and never above the bound of its batch: held for every anchor."
    return Chart("loss_gap", "Contrastive minus supervised loss, and its bounds", words, variants)


def of_no_arm(x: Iterable[float], y: Iterable[float], words: str, dash: str, run: Run, look: Look) -> Trace:
    """A line that no switch of an arm hides."""
    name = f"{words} · {run.name}" if len(look.runs) > 1 else words
    line = {"dash": dash, "color": "#888888", "width": 1.4}
    return {"type": "scatter", "mode": "lines", "name": name, "x": numbers(x), "y": numbers(y), "line": line}


def nscl_reached(runs: Sequence[Run], look: Look) -> Chart:
    """How near each arm comes to the NSCL loss of the arm that minimises it."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("nscl_reached.csv")
        if table.empty:
            continue
        for (split, tau), part in table.groupby(["split", "temperature"], sort=False):
            for column, title in (
                ("excess", "NSCL loss above the direct arm's (nats)"),
                ("share", "share of its descent"),
            ):
                figure = variant(variants, f"{column}, {split}, τ = {tau:g}", layout(title))
                for (arm, _), rows in largest_sample(part).groupby(["arm", "direct_arm"], sort=False):
                    figure["data"].append(look.line(run, str(arm), rows["epoch"], rows[column]))
    words = "Minimising CL is said to bring the NSCL loss near what direct minimisation reaches: excess 0, share 1."
    return Chart("reached", "Does CL minimise NSCL?", words, variants)


def alignment_bounds(runs: Sequence[Run], look: Look) -> Chart:
    """CKA and RSA above their floors; a vacuous floor is a gap in its line."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("bounds.csv")
        table = table[table["of"].isin(["cka", "rsa"])] if len(table) else table
        if table.empty:
            continue
        for (of, layer, split), part in table.groupby(["of", "module", "split"], sort=False):
            figure = variant(variants, f"{of}, {layer}, {split} images", layout(str(of)))
            for arm, more, rows in pairs(largest_sample(part)):
                measured, to = rows[rows["bound"] == "a_posteriori"], {"reference": reference_of(rows)}
                figure["data"].append(look.line(run, arm, measured["epoch"], measured["measured"], more, **to))
                for bound, dash in FLOORS.items():
                    floor = rows[rows["bound"] == bound]
                    if len(floor):
                        y = floor["value"].where(floor["vacuous"] == "no")
                        words = " ".join(filter(None, (more, bound.replace("_", " "))))
                        figure["data"].append(look.line(run, arm, floor["epoch"], y, words, dash, **to))
    words = (
        "Full lines are measured, others are floors; where a floor is vacuous (rho ≥ 1) its line has a gap. The"
        " a-priori floor is about descent on similarities, which a network need not follow: it may lie above the score."
    )
    return Chart("alignment_bounds", "Alignment and its floors", words, variants)


def few_shot(runs: Sequence[Run], look: Look) -> Chart:
    """Errors against shots at the last epoch that was measured, and both forms of the bound."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("quality.csv")
        table = table[table["shots"].notna()] if len(table) else table
        if table.empty:
            continue
        epoch = table["epoch"].max()
        table = table[table["epoch"] == epoch].dropna(subset=["value"])
        if table.empty:
            continue
        for (metric, classifier, layer), part in table.groupby(["metric", "variant", "module"], sort=False):
            task = "two classes" if metric == "few_shot_two_way" else "all classes"
            axes = layout(f"error of {classifier}", "labelled images a class")
            axes["xaxis"]["type"] = axes["yaxis"]["type"] = "log"
            figure = variant(variants, f"{classifier}, {task}, {layer}", axes)
            for arm, rows in largest_sample(part).groupby("arm", sort=False):
                rows = rows.sort_values("shots")
                bars = {"type": "data", "array": numbers(rows["std"]), "thickness": 1}
                words = f"epoch {epoch}"
                figure["data"].append(look.line(run, str(arm), rows["shots"], 1 - rows["value"], words, error_y=bars))
                figure["data"] += _few_shot_bounds(
                    run, look, str(arm), str(layer), f"{classifier}_error", str(metric), epoch
                )
    words = (
        "On both axes logarithmic. Bars are standard deviations of ten draws. A bound of 1 and more says nothing, nor"
        " does one of 1/2 and more between two classes."
    )
    return Chart("few_shot", "Few-shot errors and their bounds", words, variants)


def _few_shot_bounds(run: Run, look: Look, arm: str, layer: str, of: str, metric: str, epoch: int) -> list[Trace]:
    table = run.table("bounds.csv")
    if table.empty:
        return []
    task = "two_way" if metric == "few_shot_two_way" else "all"
    table = table[(table["arm"] == arm) & (table["module"] == layer) & (table["of"] == of) & (table["epoch"] == epoch)]
    table = table[table["task"] == task]
    found = []
    for form, dash in (("proposition_1", "dash"), ("documented_form", "dot")):
        rows = largest_sample(table[table["bound"] == form])
        if len(rows):
            rows = rows.sort_values("shots")
            found.append(look.line(run, arm, rows["shots"], rows["value"], form.replace("_", " "), dash))
    return found


def quality(runs: Sequence[Run], look: Look) -> Chart:
    """All arm metrics but few-shot over epochs."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("quality.csv")
        table = table[table["shots"].isna()] if len(table) else table
        if table.empty:
            continue
        first = table["metric"].isin(["nccc", "linear_probe"])
        for part_of in (table[first], table[~first]):
            for (metric, how, k, layer, split), part in part_of.groupby(
                ["metric", "variant", "k", "module", "split"], sort=False, dropna=False
            ):
                detail = str(how) if part["k"].isna().all() else f"{how} k={k:g}"
                axes = layout(f"{metric}, {detail}")
                figure = variant(variants, f"{metric} ({detail}), {layer}, {split}", axes)
                for arm, rows in largest_sample(part).groupby("arm", sort=False):
                    figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["value"]))
    return Chart("quality", "Quality of each arm's representation", "Each arm by itself.", variants)


def weight_shape(runs: Sequence[Run], look: Look) -> Chart:
    """The global distance and the fitted shape of its bound."""
    figure: Figure = {"data": [], "layout": layout("||w_a - w_b||, all weights")}
    for run in runs:
        table = run.table("bounds.csv")
        table = table[table["bound"] == "exponential_shape"] if len(table) else table
        for arm, more, rows in pairs(table) if len(table) else ():
            rows, to = rows[rows["fit_epochs"] == rows["fit_epochs"].max()], {"reference": reference_of(rows)}
            figure["data"].append(look.line(run, arm, rows["epoch"], rows["measured"], more, mode="markers", **to))
            words = " ".join(filter(None, (more, f"shape {fit_of(rows)}")))
            figure["data"].append(look.line(run, arm, rows["epoch"], rows["value"], words, "dash", **to))
    words = (
        "slope (e^(β Σ lr) - 1)/β with slope and β fitted by least squares: how far the bound's shape fits, no bound."
    )
    return Chart("weight_shape", "Weights and the shape of their bound", words, {"": figure} if figure["data"] else {})


def fit_of(rows: pd.DataFrame) -> str:
    """The fit of rows that have one, in words."""
    epochs, last, slope, beta = rows[["fit_epochs", "fit_last_epoch", "slope", "beta"]].iloc[-1]
    return f"fitted to {epochs:g} epochs up to {last:g}: slope={slope:.6g} beta={beta:.6g}"
