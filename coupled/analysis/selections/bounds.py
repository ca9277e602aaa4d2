"""Charts of bounds beside what they bound: alignment, growth of the gap, the shape of the weights' bound."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import exprel

from coupled.analysis.selections.looks import Looks, Source, of_pairs
from coupled.analysis.selections.panels import Axis, Panel, Panels
from coupled.analysis.selections.words import limits, words
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.terminal import counted

FLOORS: dict[str, Any] = {"a_posteriori": "--", "a_posteriori_sharp": ":", "a_priori": (0, (9, 3, 1, 3))}
CURVES = {"saturation": (-1, "--"), "exponential": (1, ":")}  # model -> sign of the rate, dash
Sources = Sequence[Source]


def alignment_bounds(sources: Sources, looks: Looks) -> list[Panel]:
    """CKA and RSA with their lower bounds; the line of a bound has a gap where the bound is vacuous."""
    panels = Panels()
    for source in sources:
        table = source.table("bounds.csv")
        table = table[table["of"].isin(["cka", "rsa"])] if len(table) else table
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

    Of several seeds, a curve has the mean parameters of the fits.
    """
    panels = Panels()
    for source in sources:
        gaps, fits = source.table("weight_gap.csv"), source.table("weight_gap_growth.csv")
        if gaps.empty or fits.empty:
            continue
        for reference, arm, own in of_pairs(source, whole_encoder(gaps, "global")):
            y = Axis(f"weight gap to {reference}, all weights as one vector", low=0.0)
            panel = panels.panel((reference,), f"to {reference}", y)
            points = looks.series(source, arm, own["epoch"], own["gap"], reference=reference, kind="points")
            panel.series.append(points)
            of_pair = fits[(fits["reference"] == reference) & (fits["arm"] == arm)]
            epochs = np.linspace(0, float(own["epoch"].max()), 80)
            for model, (sign, dash) in CURVES.items():
                for fit in of_pair[of_pair["model"] == model].to_dict("records"):
                    with np.errstate(over="ignore", invalid="ignore"):  # a gap in the line
                        curve = fit["slope"] * epochs * exprel(sign * fit["rate"] * epochs)
                    panel.series.append(looks.series(source, arm, epochs, curve, model, reference, dash=dash))
    return panels.filled()


def weight_shape(sources: Sources, looks: Looks) -> list[Panel]:
    """The global weight distance and the fitted shape of its bound."""
    panel = Panel(("shape",), "", Axis("epoch", whole=True), Axis("||w_a - w_b||, all weights", low=0.0))
    for source in sources:
        table = source.table("bounds.csv")
        table = table[table["bound"] == "exponential_shape"] if len(table) else table
        several = table["reference"].nunique() > 1 if len(table) else False
        for reference, arm, own in of_pairs(source, table):
            own, more = own[own["fit_epochs"] == own["fit_epochs"].max()], f"to {reference}" if several else ""
            points = looks.series(source, arm, own["epoch"], own["measured"], more, reference, kind="points")
            label = " ".join(filter(None, (more, f"shape {describe_fit(own)}")))
            curve = looks.series(source, arm, own["epoch"], own["value"], label, reference, dash="--")
            panel.series += [points, curve]
    return [panel] if panel.series else []


def describe_fit(rows: pd.DataFrame) -> str:
    """The parameters of the fit in the last row."""
    epochs, last, slope, beta = rows[["fit_epochs", "fit_last_epoch", "slope", "beta"]].iloc[-1]
    return f"fitted to {counted(int(epochs), 'epoch')} up to {last:g}: slope={slope:.6g} beta={beta:.6g}"
