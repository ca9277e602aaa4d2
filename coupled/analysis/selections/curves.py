"""Charts of curves that are not over epochs: mutual k-NN over k, sizes of gradients over the cosine of a pair."""

from collections.abc import Sequence

import pandas as pd

from coupled.analysis.selections.looks import Looks, Source, interval_of, of_arms, of_pairs, to_the
from coupled.analysis.selections.pairs import of_reference
from coupled.analysis.selections.panels import Axis, Panel, Panels, Series
from coupled.analysis.selections.styles import NOISE, Style
from coupled.analysis.tables import largest_sample

RELATIONS = {"same_image": "views of one image", "different_class": "views of two classes"}
Sources = Sequence[Source]


def mutual_knn(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Mutual k-NN of h over k on test, at the first and the last epoch after training, and its chance level k/(n - 1).

    Keys: epoch.
    """
    panels = Panels()
    for source in sources:
        table = of_reference(source.table("test_mutual_knn.csv"), reference)
        table = largest_sample(table[table["module"] == "h"]) if len(table) else table
        trained = (sorted({*table["epoch"]} - {0}) or [0]) if len(table) else []
        for epoch in dict.fromkeys([*trained[:1], *trained[-1:]]):
            rows = table[table["epoch"] == epoch]
            y = Axis(f"neighbours in common with {to_the([rows])}", low=0.0, zero=True)
            panel = panels.panel((str(epoch),), f"epoch {epoch}", y, Axis("number of neighbours k", log=True))
            panel.short = f"epoch {epoch}"
            panel.count(rows, "test")
            for of_pair, arm, own in of_pairs(source, rows):
                if arm not in source.twins_of(of_pair):
                    own = own.sort_values("k")
                    line = looks.series(source, arm, own["k"], own["value"], "", of_pair, interval=interval_of(own))
                    panel.series.append(line)
            k = sorted({*rows["k"]})
            chance = [each / (rows["num_images"].iloc[0] - 1) for each in k]
            if not any(series.label == "chance" for series in panel.series):
                panel.series.append(Series("chance", "", Style(NOISE, ":", ""), k, chance, kind="curve"))
    return panels.filled()


def gradients(sources: Sources, looks: Looks) -> list[Panel]:
    """Mean size of a pair's gradient against its cosine, at the last epoch on test; an empty bin has no point.

    Keys: loss, relation.
    """
    panels = Panels()
    for source in sources:
        table = source.table("gradients.csv")
        table = table[(table["split"] == "test") & (table["gradient"] == "pair")] if len(table) else table
        table = largest_sample(table[table["epoch"] == table["epoch"].max()]) if len(table) else table
        for loss in dict.fromkeys(table["loss"]) if len(table) else ():
            for relation, title in RELATIONS.items():
                rows = table[(table["loss"] == loss) & (table["relation"] == relation) & table["value"].notna()]
                y, x = Axis("mean gradient (nats)", log=True), Axis("cosine of the pair", low=-1.0, high=1.0)
                panel = panels.panel((str(loss), relation), f"{loss}, {title}", y, x, f"{loss}, {title}")
                panel.count(rows, "test")
                for arm, own in of_arms(source, _middles(rows)):
                    own = own.sort_values("cosine")
                    line = looks.series(source, arm, own["cosine"], own["value"], interval=interval_of(own))
                    panel.series.append(line)
    return panels.filled()


def _middles(rows: pd.DataFrame) -> pd.DataFrame:
    """The bins with their middle as `cosine`."""
    return rows.assign(cosine=(rows["cosine_low"] + rows["cosine_high"]) / 2)
