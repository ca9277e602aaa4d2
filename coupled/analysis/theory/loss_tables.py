"""Tables that are computed from losses.csv and rewritten each time."""

from collections.abc import Sequence
from math import nan
from pathlib import Path

import pandas as pd

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_newest
from coupled.analysis.tidy_csv import write_table
from coupled.monitoring.terminal import say

WHERE = ["split", "temperature", "num_images", "batch_size"]
LEAST = 3  # epochs that a correlation needs


def correlation(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the Pearson correlation of an arm's DCL and NSCL losses over epochs.

    It is NaN for a constant loss or fewer than 3 epochs.

    Args:
        losses: rows of losses.csv, as `Run.losses` returns them.

    Returns:
        The rows of loss_correlation.csv with its columns (see `schemas.SCHEMAS`).
    """
    table = losses.pivot(index=["arm", *WHERE, "epoch"], columns="loss", values="value")
    rows = []
    for place, both in table.reindex(columns=["dcl", "nscl"]).dropna().groupby(level=["arm", *WHERE], sort=False):
        varies = len(both) >= LEAST and bool((both.nunique() > 1).all())
        rows.append((*place, len(both), both["dcl"].corr(both["nscl"]) if varies else nan))
    return pd.DataFrame(rows, columns=list(SCHEMAS["loss_correlation.csv"].columns))


def reached(losses: pd.DataFrame, direct: Sequence[str]) -> pd.DataFrame:
    """Return the NSCL loss of each arm with that of each `direct` arm, which minimises NSCL.

    `excess` is nscl - nscl_direct. `share` is the arm's descent since the first epoch in the table, divided by that of
    the direct arm; NaN where the direct arm's loss has not fallen.

    Args:
        losses: rows of losses.csv, as `Run.losses` returns them.
        direct: names of the arms that minimise NSCL.

    Returns:
        The rows of nscl_reached.csv with its columns (see `schemas.SCHEMAS`).
    """
    table = losses[losses["loss"] == "nscl"].pivot(index=[*WHERE, "epoch"], columns="arm", values="value")
    parts = []
    for other in (arm for arm in direct if arm in table):
        start = table.groupby(level=WHERE).transform("first")
        for arm in (arm for arm in table if arm != other):
            part = table[[arm, other]].set_axis(["nscl", "nscl_direct"], axis=1)
            descent = start[other] - table[other]
            part["excess"] = part["nscl"] - part["nscl_direct"]
            part["share"] = ((start[arm] - table[arm]) / descent).where(descent > 0)
            named = part.assign(arm=str(arm), direct_arm=other)
            parts.append(named.dropna(subset=["nscl", "nscl_direct"]).reset_index())
    columns = list(SCHEMAS["nscl_reached.csv"].columns)
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def write_what_follows(losses: Path, direct: Sequence[str]) -> None:
    """Rewrite the tables computed from losses.csv in its folder; `direct` are the arms that minimise NSCL."""
    rows = read_newest(losses, "value")
    for name, table in (("loss_correlation.csv", correlation(rows)), ("nscl_reached.csv", reached(rows, direct))):
        path = losses.parent / name
        write_table(path, table)
        say(f"{path}: {len(table)} rows")
    if not direct:
        say("nscl_reached.csv is empty: no arm of the run minimises nscl")
