"""Charts of bounds beside what they bound: alignment, growth of the gap, the shape of the weights' bound."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import exprel

from coupled.analysis.selections.looks import Looks, Source, interval_of, of_pairs
from coupled.analysis.selections.panels import EPOCHS, Axis, Panel, Panels
from coupled.analysis.selections.seeds import derived
from coupled.analysis.selections.words import limits, words
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.terminal import counted

FLOORS: dict[str, Any] = {"a_posteriori": "--", "a_posteriori_sharp": ":", "a_priori": (0, (9, 3, 1, 3))}
CURVES = {"saturation": "--", "exponential": ":"}  # model -> dash
SIGNS = {"saturation": -1, "exponential": 1}  # of the rate
Sources = Sequence[Source]


def alignment_bounds(sources: Sources, looks: Looks) -> list[Panel]:
    """CKA and RSA with their lower bounds; the line of a bound has a gap where the bound is vacuous."""
    panels = Panels()
    for source in sources:
        table = source.table("bounds.csv")
        table = table[table["of"].isin(["cka", "rsa"])] if len(table) else table
        table = table.sort_values("split", kind="stable") if len(table) else table  # test first, as in other charts
        for (of, layer, split), group in table.groupby(["of", "module", "split"], sort=False) if len(table) else ():
            low, high = limits(str(of), "pair")
            y = Axis(f"{words(str(of))} and its lower bounds, {split} images, {layer}", low=low, high=high)
            panel = panels.panel(map(str, (of, layer, split)), f"{of}, {layer}, {split} images", y)
            rows = largest_sample(group)
            panel.count(rows, str(split))
            several = rows["reference"].nunique() > 1
            for reference, arm, own in of_pairs(source, rows):
                more, measured = f"to {reference}" if several else "", own[own["bound"] == "a_posteriori"]
                line = looks.series(source, arm, measured["epoch"], measured["measured"], more, reference)
                panel.series.append(line)
                for bound, dash in FLOORS.items():
                    floor = own[own["bound"] == bound]
                    if len(floor):
                        values = floor["value"].where(floor["vacuous"] == "no")
                        label = " ".join(filter(None, (more, bound.replace("_", " "))))
                        line = looks.series(source, arm, floor["epoch"], values, label, reference, dash=dash)
                        panel.series.append(line)
    return panels.filled()


def growth(sources: Sources, looks: Looks) -> list[Panel]:
    """The global weight gap and the two curves fitted to it. Keys: reference.

    Of several seeds, a curve is the mean of the curves that are fitted to each.
    """
    panels = Panels()
    for source in sources:
        gaps, fits = source.table("weight_gap.csv"), source.table("weight_gap_growth.csv")
        if gaps.empty or fits.empty:
            continue
        for reference, arm, own in of_pairs(source, whole_encoder(gaps, "global")):
            y = Axis(f"weight gap to {reference}, all weights as one vector", low=0.0)
            panel = panels.panel((reference,), f"to {reference}", y)
            options: dict[str, Any] = {"reference": reference, "kind": "points", "interval": interval_of(own, "gap")}
            panel.series.append(looks.series(source, arm, own["epoch"], own["gap"], **options))
            epochs = np.linspace(0, float(own["epoch"].max()), 80)
            for model, dash in CURVES.items():
                curve = derived(source, partial(_curve, reference, arm, model, epochs), ["epoch"])
                if len(curve):
                    options = {"reference": reference, "dash": dash, "interval": interval_of(curve)}
                    panel.series.append(looks.series(source, arm, curve["epoch"], curve["value"], model, **options))
    return panels.filled()


def _curve(reference: str, arm: str, model: str, epochs: NDArray[np.float64], source: Source) -> pd.DataFrame:
    """The curve that was fitted to the gap of a pair in one run; without rows if there is no fit."""
    fits = source.table("weight_gap_growth.csv")
    fits = fits[(fits["reference"] == reference) & (fits["arm"] == arm) & (fits["model"] == model)]
    if fits.empty:
        return pd.DataFrame(columns=["epoch", "value"], dtype=float)
    slope, rate = fits[["slope", "rate"]].iloc[0]
    with np.errstate(over="ignore", invalid="ignore"):  # a gap in the line
        values = slope * epochs * exprel(SIGNS[model] * rate * epochs)
    return pd.DataFrame({"epoch": epochs, "value": values})


def weight_shape(sources: Sources, looks: Looks) -> list[Panel]:
    """The global weight distance and the fitted shape of its bound."""
    y = Axis("weight distance ‖w_a - w_b‖, all weights", low=0.0)
    panel = Panel(("shape",), "", EPOCHS, y)
    for source in sources:
        table = source.table("bounds.csv")
        table = table[table["bound"] == "exponential_shape"] if len(table) else table
        several = table["reference"].nunique() > 1 if len(table) else False
        for reference, arm, own in of_pairs(source, table):
            own, more = own[own["fit_epochs"] == own["fit_epochs"].max()], f"to {reference}" if several else ""
            options: dict[str, Any] = {"kind": "points", "interval": interval_of(own, "measured")}
            points = looks.series(source, arm, own["epoch"], own["measured"], more, reference, **options)
            shape = f"shape: {describe_fit(own)}" if source.seeds == 1 else "mean of the fitted shapes"
            label, options = " ".join(filter(None, (more, shape))), {"dash": "--", "interval": interval_of(own)}
            curve = looks.series(source, arm, own["epoch"], own["value"], label, reference, **options)
            panel.series += [points, curve]
    return [panel] if panel.series else []


def describe_fit(rows: pd.DataFrame) -> str:
    """The parameters of the fit in the last row."""
    slope, beta = rows[["slope", "beta"]].iloc[-1]
    return f"slope {slope:.3g}, β {beta:.3g}"


def fitted_epochs(sources: Sources) -> str:
    """The epochs that the shapes were fitted to, in words; "" without a shape or if the runs differ."""
    tables = [source.table("bounds.csv") for source in sources]
    shapes = [table[table["bound"] == "exponential_shape"] for table in tables if len(table)]
    of_each = {tuple(rows[["fit_epochs", "fit_last_epoch"]].max()) for rows in shapes if len(rows)}
    if len(of_each) != 1:
        return ""
    epochs, last = of_each.pop()
    return f"Fitted to {counted(int(epochs), 'epoch')} up to epoch {last:g}."
