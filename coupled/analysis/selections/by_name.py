"""Values by name: pair metrics of the images of each class, errors on each corruption."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from coupled.analysis.selections.looks import Looks, Source, interval_of, of_arms
from coupled.analysis.selections.panels import Series
from coupled.analysis.selections.words import words

MOST_CLASSES = 20  # with more classes, the ten of the lowest and the ten of the highest values are drawn


@dataclass
class ByName:
    """Names and a series for each arm, whose x are the places of the names and whose y are the values."""

    title: str
    names: list[str]
    series: list[Series] = field(default_factory=list)

    def add(self, source: Source, looks: Looks, rows: pd.DataFrame, column: str) -> None:
        """Add the values of each arm; a name without a value is a gap."""
        for arm, own in of_arms(source, rows):
            values = own.set_index(own[column].astype(str)).reindex(self.names)
            places = range(len(self.names))
            self.series.append(looks.series(source, arm, places, values["value"], interval=interval_of(values)))


def class_alignment(source: Source, looks: Looks, rows: pd.DataFrame) -> tuple[list[ByName], int]:
    """Each metric of the images of each class, from rows of test_class_alignment.csv of one layer and epoch.

    Returns:
        One set of values per metric, and the number of classes. Classes are sorted by the first metric, mean over the
        arms, the least similar first; of many classes there are those with the lowest and the highest values.
    """
    rows = rows.loc[rows.groupby(["metric", "label"])["num_images"].transform("max") == rows["num_images"]]
    metrics = list(dict.fromkeys(rows["metric"]))
    means = rows[rows["metric"] == metrics[0]].groupby("label")["value"].mean().sort_values(na_position="last")
    classes: Sequence[str] = [str(label) for label in means.index]
    half = MOST_CLASSES // 2
    shown = [*classes] if len(classes) <= MOST_CLASSES else [*classes[:half], *classes[-half:]]
    found = []
    for metric in metrics:
        panel = ByName(words(str(metric)), shown)
        panel.add(source, looks, rows[rows["metric"] == metric], "label")
        found.append(panel)
    return found, len(classes)
