"""Charts of the accuracy of each arm minus that of the reference, against their alignment."""

from collections.abc import Sequence

import pandas as pd

from coupled.analysis.selections.looks import Looks, Source
from coupled.analysis.selections.pairs import ALIGNMENTS, add_paths, of_reference
from coupled.analysis.selections.panels import Axis, Panel, Panels
from coupled.analysis.selections.words import limits
from coupled.analysis.tables import largest_sample

ACCURACIES = {  # metric, variant of quality.csv -> name
    ("nccc", "euclidean"): "nearest class centre",
    ("linear_probe", "regularised"): "linear probe",
}
Sources = Sequence[Source]


def alignment_accuracy(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Accuracy of h on test minus that of the reference, against CKA and RSA, one point per epoch, without twins.

    Keys: accuracy, metric.
    """
    panels = Panels()
    for source in sources:
        quality, scores = source.table("quality.csv"), source.table("test_alignment.csv")
        if scores.empty or quality.empty:
            continue
        scores = of_reference(scores, reference)
        for accuracy in ACCURACIES.values():
            for metric, title in ALIGNMENTS.items():
                points = joined(quality, scores, accuracy, metric)
                if points.empty:
                    continue
                references = [str(each) for each in points["reference"].unique()]
                name = references[0] if len(references) == 1 else "the reference arm"
                low, high = limits(metric, "pair")
                x = Axis(f"{title} with {name}, test images, h", low=low, high=high)
                y = Axis(f"accuracy ({accuracy}) - accuracy of {name}, test images, h", low=-1.0, high=1.0)
                panel = panels.panel((accuracy, metric), f"{accuracy}, {metric}", y, x, f"{accuracy}, {title}")
                panel.count(points, "test")
                add_paths(panel, source, looks, points, "value", "difference", markers=True)
    return panels.filled()


def joined(quality: pd.DataFrame, scores: pd.DataFrame, accuracy: str, metric: str) -> pd.DataFrame:
    """Rows of a pair metric of h with the `difference` of accuracies at the same epoch."""
    rows = scores[(scores["module"] == "h") & (scores["metric"] == metric)]
    found = []
    for reference, group in rows.groupby("reference", sort=False):
        differences = accuracy_differences(quality, str(reference)).get(accuracy)
        if differences is not None:
            found.append(largest_sample(group).merge(differences, on=["epoch", "arm"]))
    return pd.concat([rows[:0], *found])


def accuracy_differences(rows: pd.DataFrame, reference: str) -> dict[str, pd.DataFrame]:
    """Return the accuracies of h on test minus those of the reference, by name of the metric, from rows of quality.csv.

    Each table has the columns epoch, arm and `difference`. A metric without rows of both arms is left out.
    """
    rows = rows[(rows["split"] == "test") & (rows["module"] == "h")]
    found = {}
    for (metric, variant), name in ACCURACIES.items():
        of_metric = largest_sample(rows[(rows["metric"] == metric) & (rows["variant"] == variant)])
        of_reference = of_metric[of_metric["arm"] == reference][["epoch", "value"]]
        others = of_metric[of_metric["arm"] != reference]
        both = others.merge(of_reference, on="epoch", suffixes=("", "_reference"))
        if len(both):
            difference = both["value"] - both["value_reference"]
            found[name] = both.assign(difference=difference)[["epoch", "arm", "difference"]]
    return found
