"""Charts of single arms: quality, few-shot errors, collapse, duality, spectra, throughput."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from coupled.analysis.selections.looks import Looks, Source, interval_of, of_arms
from coupled.analysis.selections.panels import EPOCHS, Axis, Panel, Panels
from coupled.analysis.selections.seeds import derived
from coupled.analysis.selections.words import limits, words
from coupled.analysis.tables import largest_sample

ONE_VALUE = ("spread", "effective_rank", "alignment", "uniformity", "asymmetry")  # of collapse.csv: one an epoch
OF_A_PREDICTOR = ("eigenspace_alignment", "predictor_along")
SPECTRA = ("eigenvalue_share", "eigenvalue", "correlation_eigenvalue", "predictor_singular_value")
SPECTRA_COLUMNS = {  # layer, metric of collapse.csv -> title of the column of panels
    ("h", "eigenvalue"): "covariance of h",
    ("z", "eigenvalue"): "covariance of z",
    ("predictor", "correlation_eigenvalue"): "F of the predictor's inputs",
    ("predictor", "predictor_singular_value"): "singular values of W",
    ("predictor", "eigenspace_alignment"): "cosine of u and W u",
}
LINEAR = ("eigenspace_alignment",)  # of the y axis; eigenvalues are drawn on a log scale
DUALITY = {  # metric, variant of collapse.csv -> title
    ("l_c", "unnormalised"): "$L_c$ of {}",
    ("l_nc", "unnormalised"): "$L_{{nc}}$ of {}",
    ("l_c", "unit_norm"): "$L_c$ of {} at unit norm",
    ("l_nc", "unit_norm"): "$L_{{nc}}$ of {} at unit norm",
    ("sample_norms", "unnormalised"): r"$\sum_i$ |row i of {}|$^4$",
    ("dimension_norms", "unnormalised"): r"$\sum_j$ |column j of {}|$^4$",
    ("norm", "unnormalised"): "mean norm of {}",
}
BOUNDS = {"proposition_1": "--", "documented_form": ":"}  # of few-shot errors -> dash
Sources = Sequence[Source]


def quality(sources: Sources, looks: Looks) -> list[Panel]:
    """All arm metrics except few-shot over epochs; NCCC and the linear probe first.

    Keys: metric, variant, k, layer, split.
    """
    panels = Panels()
    for source in sources:
        table = source.table("quality.csv")
        table = table[table["shots"].isna()] if len(table) else table
        if table.empty:
            continue
        first = table["metric"].isin(["nccc", "linear_probe"])
        for metrics in (table[first], table[~first]):
            for (metric, how, k, layer, split), group in metrics.groupby(
                ["metric", "variant", "k", "module", "split"], sort=False, dropna=False
            ):
                k_text = "" if group["k"].isna().all() else f"{k:g}"
                detail = f"{how} k={k_text}" if k_text else str(how)
                low, high = limits(str(metric), "arm")
                name = f"{metric} ({detail}), {layer}, {split}"
                y = Axis(
                    f"{words(str(metric))} ({detail.replace('_', ' ')}), {layer}, {split} images", low=low, high=high
                )
                panel = panels.panel((str(metric), str(how), k_text, str(layer), str(split)), name, y)
                add_arms(panel, source, looks, largest_sample(group), str(split))
    return panels.filled()


def few_shot_over_epochs(sources: Sources, looks: Looks, shots: int) -> list[Panel]:
    """Few-shot accuracy with this number of images per class over epochs. Keys: metric, classifier, layer, split."""
    panels = Panels()
    for source in sources:
        table = source.table("quality.csv")
        table = table[table["shots"] == shots] if len(table) else table
        for (metric, how, layer, split), group in (
            table.groupby(["metric", "variant", "module", "split"], sort=False) if len(table) else ()
        ):
            title = f"{words(str(metric))} ({how}, {shots} a class), {layer}, {split} images"
            panel = panels.panel(map(str, (metric, how, layer, split)), title, Axis(title, low=0.0, high=1.0))
            add_arms(panel, source, looks, largest_sample(group), str(split))
    return panels.filled()


def add_arms(panel: Panel, source: Source, looks: Looks, rows: pd.DataFrame, split: str = "") -> None:
    """Add the values of each arm over epochs."""
    panel.count(rows, split)
    for arm, own in of_arms(source, rows):
        panel.series.append(looks.series(source, arm, own["epoch"], own["value"], interval=interval_of(own)))


def few_shot(sources: Sources, looks: Looks) -> list[Panel]:
    """Errors against shots at the last measured epoch, with both forms of the bound.

    Intervals are one standard deviation over the draws of the labelled images, or over seeds.
    """
    panels = Panels()
    for source in sources:
        table = source.table("quality.csv")
        table = table[table["shots"].notna()] if len(table) else table
        table = table[table["epoch"] == table["epoch"].max()].dropna(subset=["value"]) if len(table) else table
        if table.empty:
            continue
        epoch = table["epoch"].max()
        by = ["metric", "variant", "module", "split"]
        for (metric, classifier, layer, split), group in table.groupby(by, sort=False):
            task = "two classes" if metric == "few_shot_two_way" else "all classes"
            names = [str(classifier), task, str(layer), *(["train"] if split == "train" else [])]
            y = Axis(f"error of {classifier}, {task}, {layer}, {split} images", log=True)
            x = Axis("labelled images per class", log=True)
            panel = panels.panel(names, ", ".join(names), y, x)
            rows = largest_sample(group)
            panel.count(rows, str(split))
            for arm, own in of_arms(source, rows):
                own = own.sort_values("shots")
                errors, spread = 1 - own["value"], own["std"] if source.seeds == 1 else own["value_sd"]
                interval = errors - spread, errors + spread
                line = looks.series(source, arm, own["shots"], errors, f"epoch {epoch}", interval=interval)
                panel.series.append(line)
                bounds = _few_shot_bounds(source, arm, str(layer), str(classifier), str(metric), epoch)
                bounds = bounds if split == "test" else bounds[:0]
                for form, dash in BOUNDS.items():
                    if len(bound := bounds[bounds["bound"] == form]):
                        words_of = form.replace("_", " ")
                        line = looks.series(source, arm, bound["shots"], bound["value"], words_of, dash=dash)
                        panel.series.append(line)
    for panel in panels.filled():
        if len(panel.places()) == 1:  # side by side, as at a single epoch
            panel.x = Axis(panel.x.title, whole=True)
    return panels.filled()


def _few_shot_bounds(source: Source, arm: str, layer: str, classifier: str, metric: str, epoch: int) -> pd.DataFrame:
    """The rows of bounds.csv about these few-shot errors, sorted by shots."""
    table = source.table("bounds.csv")
    if table.empty:
        return pd.DataFrame(columns=["bound"])
    task = "two_way" if metric == "few_shot_two_way" else "all"
    table = table[(table["arm"] == arm) & (table["module"] == layer) & (table["of"] == f"{classifier}_error")]
    table = table[(table["epoch"] == epoch) & (table["task"] == task) & table["bound"].isin(list(BOUNDS))]
    return pd.concat([table[:0], *(largest_sample(rows) for _, rows in table.groupby("bound"))]).sort_values("shots")


def collapse(sources: Sources, looks: Looks) -> list[Panel]:
    """The metrics of collapse.csv with one value an epoch. Keys: metric, layer, split."""
    panels = Panels()
    for metric in ONE_VALUE:
        for source in sources:
            for layer, split, rows in _rows(source, metric):
                title = f"{words(metric)} of {layer}, {split} images"
                low = 0.0 if metric in ("spread", "alignment", "asymmetry") else -np.inf
                panel = panels.panel((metric, layer, split), f"{metric}, {layer}, {split}", Axis(title, low=low))
                add_arms(panel, source, looks, rows, split)
    return panels.filled()


def eigenspaces(sources: Sources, looks: Looks) -> list[Panel]:
    """Mean over the directions of the eigenspace alignment of predictors, over epochs. Keys: metric, layer, split."""
    panels, metric = Panels(), "eigenspace_alignment"
    for source in sources:
        for layer, split, rows in _rows(source, metric):
            y = Axis(f"eigenspace alignment of {layer}, mean over directions, {split} images", low=-1.0, high=1.0)
            panel = panels.panel((metric, layer, split), y.title, y)
            panel.count(rows, split)
            means = derived(source, partial(_mean_alignment, layer, split), ["arm", "epoch"])
            for arm, own in of_arms(source, means):
                panel.series.append(looks.series(source, arm, own["epoch"], own["value"], interval=interval_of(own)))
    return panels.filled()


def _mean_alignment(layer: str, split: str, source: Source) -> pd.DataFrame:
    """The mean over directions of the eigenspace alignment of a layer in one run, by arm and epoch."""
    found = [rows for *of, rows in _rows(source, "eigenspace_alignment") if of == [layer, split]]
    return pd.concat(found).groupby(["arm", "epoch"], sort=False)["value"].mean().reset_index()


def duality(sources: Sources, looks: Looks) -> list[Panel]:
    """Criteria and norms of collapse.csv on test over epochs. Keys: metric, variant, layer."""
    panels = Panels()
    for source in sources:
        for (metric, variant), title in DUALITY.items():
            for layer, split, rows in _rows(source, metric):
                rows = rows[rows["variant"] == variant]
                if split == "test" and len(rows):
                    y = Axis(title.format(layer), log=metric != "norm")
                    panel = panels.panel((metric, variant, layer), y.title, y)
                    add_arms(panel, source, looks, rows, split)
    return panels.filled()


def spectra(sources: Sources, looks: Looks) -> list[Panel]:
    """The metrics of collapse.csv with one value a direction, at the last measured epoch of each arm."""
    panels = Panels()
    for metric in SPECTRA + OF_A_PREDICTOR:
        for source in sources:
            for layer, split, rows in _rows(source, metric):
                log = metric in SPECTRA
                y, x = Axis(f"{words(metric)} of {layer}, {split} images", log), Axis("direction, largest first")
                panel = panels.panel((metric, layer, split), f"{metric}, {layer}, {split}", y, x)
                panel.count(rows, split)
                for arm, own in of_arms(source, rows):
                    own = own[own["epoch"] == own["epoch"].max()].sort_values("component")
                    heights = own["value"].where(own["value"] > 0) if log else own["value"]
                    panel.series.append(looks.series(source, arm, own["component"], heights))
    return panels.filled()


def spectra_over_epochs(source: Source, looks: Looks) -> list[Panel]:
    """The metrics of SPECTRA_COLUMNS of each arm on test, one series for each component. Keys: arm, layer, metric.

    A panel has a key for each arm and column that any arm has; the panel of an arm without rows has no series. The
    label of a series is its component, and its style is that of the arm.
    """
    found = []
    columns = {
        (layer, metric): rows
        for layer, metric in SPECTRA_COLUMNS
        for its_layer, split, rows in _rows(source, metric)
        if (its_layer, split) == (layer, "test")
    }
    there = {arm for rows in columns.values() for arm in rows["arm"].unique()}
    for arm in (arm for arm in source.arm_names if arm in there and arm not in source.twins_of("")):
        for (layer, metric), rows in columns.items():
            title = f"{arm}: {SPECTRA_COLUMNS[layer, metric]}"
            panel = Panel((arm, layer, metric), title, EPOCHS, Axis(title, log=metric not in LINEAR), title)
            for component, own in rows[rows["arm"] == arm].groupby("component"):
                own = own.sort_values("epoch")
                values, interval = own["value"].where(own["value"] != 0), interval_of(own)
                line = looks.series(source, arm, own["epoch"], values, interval=interval)
                panel.series.append(replace(line, label=f"{component:g}"))
                panel.count(own, "test")
            found.append(panel)
    return found


def _rows(source: Source, metric: str) -> list[tuple[str, str, pd.DataFrame]]:
    """Layer, split and rows of a metric of collapse.csv."""
    table = source.table("collapse.csv")
    table = table[table["metric"] == metric] if len(table) else table
    groups = table.groupby(["module", "split"], sort=False) if len(table) else ()
    return [(str(layer), str(split), largest_sample(rows)) for (layer, split), rows in groups]


def throughput(sources: Sources, looks: Looks) -> list[Panel]:
    """Images per second of each arm's part of the training step."""
    panel = Panel(("throughput",), "", Axis("epoch", whole=True), Axis("images per second", low=0.0, zero=True))
    for source in sources:
        for arm, own in of_arms(source, source.table("epochs.csv")):
            panel.series.append(looks.series(source, arm, own["epoch"], own["images_per_second"]))
    return [panel] if panel.series else []
