"""Charts of losses: every loss for every arm, the loss gap with its bounds, NSCL reached by other arms, training."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from coupled.analysis.selections.looks import Looks, Source, interval_of, of_arms
from coupled.analysis.selections.panels import Axis, Panel, Panels
from coupled.analysis.tables import largest_sample

MOST_POINTS = 400  # of a line over steps; of a longer run a point is the mean of several steps
STEPS = {"loss": "training loss", "grad_norm": "gradient norm"}  # of steps.csv, after <arm>_ -> title
RATE = "learning rate"
REACHED = {
    "excess": "NSCL loss minus that of the direct arm (nats)",
    "share": "share of the direct arm's descent",
}
SET_BOUNDS = {"bound": ("bound of the batches", "--"), "set_bound": ("bound of the set", ":")}
Sources = Sequence[Source]


def losses(sources: Sources, looks: Looks) -> list[Panel]:
    """Every loss of losses.csv for every arm, then the training loss of epochs.csv. Keys: loss, split, temperature."""
    panels = Panels()
    for source in sources:
        table = source.table("losses.csv")
        groups = table.groupby(["loss", "split", "temperature"], sort=False) if len(table) else ()
        for (loss, split, tau), group in groups:
            y = Axis(f"{loss} at τ = {tau:g}, {split} images (nats)")
            panel = panels.panel((str(loss), str(split), f"{tau:g}"), f"{loss}, {split}, τ = {tau:g}", y)
            rows = largest_sample(group)
            panel.count(rows, str(split))
            for arm, own in of_arms(source, rows):
                panel.series.append(looks.series(source, arm, own["epoch"], own["value"], interval=interval_of(own)))
    for source in sources:
        for arm, own in of_arms(source, source.table("epochs.csv")):
            panel = panels.panel(("training",), "training loss of each arm", Axis("training loss of the arm"))
            line = looks.series(source, arm, own["epoch"], own["loss"], interval=interval_of(own, "loss"))
            panel.series.append(line)
    return panels.filled()


def loss_gap(sources: Sources, looks: Looks) -> list[Panel]:
    """DCL - NSCL and its bounds. Keys: split, temperature."""
    panels = Panels()
    for source, split, tau, group in _by_temperature(sources, "loss_gap.csv"):
        y = Axis(f"DCL - NSCL at τ = {tau}, {split} images (nats)", log=True)
        panel = panels.panel((split, tau), f"{split}, τ = {tau}", y)
        panel.count(group, split)
        for arm, own in of_arms(source, group):
            panel.series.append(looks.series(source, arm, own["epoch"], own["gap"], interval=interval_of(own, "gap")))
        first = group[group["arm"] == group["arm"].iloc[0]]
        for column, (label, dash) in SET_BOUNDS.items():
            panel.series.append(looks.no_arm(source, first["epoch"], first[column], label, dash))
    return panels.filled()


def nscl_reached(sources: Sources, looks: Looks) -> list[Panel]:
    """The NSCL loss of each arm compared with an arm that minimises NSCL directly. Keys: column, split, temperature."""
    panels = Panels()
    for source, split, tau, group in _by_temperature(sources, "nscl_reached.csv"):
        several = group["direct_arm"].nunique() > 1
        for column, title in REACHED.items():
            y = Axis(f"{title}, τ = {tau}, {split} images")
            panel = panels.panel((column, split, tau), f"{column}, {split}, τ = {tau}", y)
            panel.count(group, split)
            for direct, of_direct in group.groupby("direct_arm", sort=False):
                for arm, own in of_arms(source, of_direct):
                    more, interval = f"by {direct}" if several else "", interval_of(own, column)
                    line = looks.series(source, arm, own["epoch"], own[column], more, interval=interval)
                    panel.series.append(line)
    return panels.filled()


def _by_temperature(sources: Sources, name: str) -> Iterator[tuple[Source, str, str, pd.DataFrame]]:
    """Yield source, split, temperature and rows of each group of a table."""
    for source in sources:
        table = source.table(name)
        for (split, tau), group in table.groupby(["split", "temperature"], sort=False) if len(table) else ():
            yield source, str(split), f"{tau:g}", largest_sample(group)


def steps(sources: Sources, looks: Looks) -> list[Panel]:
    """Loss, gradient norm and learning rate of steps.csv; an arm with its own optimizer has its own rate.

    That is <arm>_lr of steps.csv if there is such a column, otherwise the rate of epochs.csv at the last step of each
    epoch.
    """
    panels, x = Panels(), Axis("step")
    for column, title in STEPS.items():
        for source in sources:
            table = binned(source.table("steps.csv"))
            for arm in source.arm_names if len(table) else ():
                if (own := f"{arm}_{column}") in table:
                    panel = panels.panel((column,), title, Axis(title), x)
                    options = {"kind": "curve", "interval": interval_of(table, own)}
                    panel.series.append(looks.series(source, arm, table["step"], table[own], **options))  # type: ignore[arg-type]
    for source in sources:
        if len(source.table("steps.csv")):
            panel = panels.panel((RATE,), RATE, Axis(RATE), x)
            _add_rates(panel, source, looks)
    return panels.filled()


def _add_rates(panel: Panel, source: Source, looks: Looks) -> None:
    whole, epochs = source.table("steps.csv"), source.table("epochs.csv")
    table, ends = binned(whole), whole.groupby("epoch")["step"].max()
    own = [arm for arm, each in source.arm_settings.items() if each.get("optimizer")]
    if len(own) < len(source.arm_names):
        panel.series.append(looks.no_arm(source, table["step"], table["lr"], "shared" if own else "all arms", "-"))
    for arm in own:
        if f"{arm}_lr" in table:
            panel.series.append(looks.series(source, arm, table["step"], table[f"{arm}_lr"], kind="curve"))
        elif len(epochs):
            rows = epochs[epochs["arm"] == arm]
            panel.series.append(looks.series(source, arm, rows["epoch"].map(ends), rows["lr"]))


def binned(table: pd.DataFrame) -> pd.DataFrame:
    """The table with at most `MOST_POINTS` rows: means over equally many steps; the last one may have fewer."""
    if len(table) <= MOST_POINTS:
        return table
    size = -(-len(table) // MOST_POINTS)
    return table.groupby(np.arange(len(table)) // size).mean(numeric_only=True)
