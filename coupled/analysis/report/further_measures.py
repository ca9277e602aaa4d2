"""Tables of the measures that have no chart on the page: a row for each setting, a column for each arm.

Each table has the last measured epoch of each run. Settings that are equal in all rows are named once, in the caption.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from coupled.analysis.report.page_tables import Cell, Table, cell
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.schemas import SCHEMAS

COUNTS = ("num_images", "num_train_images", "num_batch_norm_images", "batch_size")  # the largest sample is shown
FOLDED = 12  # rows from which a table is folded


class Measure(NamedTuple):
    """A table of a run, its title and caption, the columns with a value for each arm, and those equal for all arms."""

    name: str
    title: str
    caption: str
    values: Sequence[str] = ("value",)
    shared: Sequence[str] = ()


MEASURES = (
    Measure("linear_evaluation.csv", "Linear evaluation", "Linear classifiers trained on augmented images."),
    Measure("pretext.csv", "Pretext tasks", "Accuracy on transformed test images.", shared=["chance"]),
    Measure(
        "reliability.csv",
        "Reliability curves",
        "Mean confidence and accuracy of the images of each bin of confidence.",
        ["confidence", "accuracy"],
    ),
    Measure("robustness.csv", "Errors on corrupted images", "Share of images that are classified wrongly."),
    Measure(
        "robustness_mce.csv",
        "Mean corruption errors",
        "error: mean over severities. ce (corruption error): sum of the errors over that of the reference arm;"
        " relative_ce: the same above the errors on clean images. mce (mean corruption error, mCE), relative_mce: means"
        " over corruptions.",
    ),
    Measure(
        "barrier_height.csv",
        "Heights of the barriers between arms",
        "Largest excess of a loss, or largest loss of accuracy, on the line between the weights of two arms.",
    ),
    Measure(
        "barrier.csv",
        "Losses and accuracies between arms",
        "Values at (1 - position) reference + position arm, and their excess over the line between both ends.",
        ["value", "excess"],
    ),
    Measure("gradients.csv", "Gradients by the cosine of a pair", "Mean size of the gradient, in nats."),
)


def measures(runs: Sequence[ReportRun]) -> list[Table]:
    """Return the tables of `MEASURES`; a table that no run has is without rows."""
    return [_by_arm(runs, measure) for measure in MEASURES]


def _by_arm(runs: Sequence[ReportRun], measure: Measure) -> Table:
    """The values of a measure at the last epoch of each run, with a column for each arm."""
    schema = SCHEMAS[measure.name]
    left_out = ("arm", *COUNTS, *schema.digests)
    settings = ["run", *(each for each in schema.key if each not in left_out), *measure.shared]
    by_setting = _values(runs, measure, settings)
    measured = {arm for of_arm in by_setting.values() for arm in of_arm}
    arms = [arm for arm in dict.fromkeys(arm for run in runs for arm in run.arms) if arm in measured]
    columns = list(product(arms, range(len(measure.values))))
    varies = [k for k in range(len(settings)) if len({row[k] for row in by_setting}) > 1]
    first = next(iter(by_setting), ())
    equal = [f"{settings[k]} {each.text}" for k, each in enumerate(first) if k not in varies and k and each.text]
    same = "; ".join(equal)
    heads = [f"{arm} {measure.values[n]}" if len(measure.values) > 1 else arm for arm, n in columns]
    rows = [
        [*(row[k] for k in varies), *(of_arm[arm][n] if arm in of_arm else cell(None) for arm, n in columns)]
        for row, of_arm in by_setting.items()
    ]
    return Table(
        measure.name.removesuffix(".csv"),
        measure.title,
        f"{measure.caption} {same[:1].upper()}{same[1:]}.",
        [*(settings[k] for k in varies), *heads],
        rows,
        folded=len(rows) > FOLDED,
        arms=[*("" for _ in varies), *(arm for arm, _ in columns)],
    )


def _values(
    runs: Sequence[ReportRun], measure: Measure, settings: Sequence[str]
) -> dict[tuple[Cell, ...], dict[str, list[Cell]]]:
    """The values by settings and arm. A row without any value, such as an empty bin, is left out."""
    found: dict[tuple[Cell, ...], dict[str, list[Cell]]] = {}
    for run, row in _rows(runs, measure.name):
        arm = str(row["arm"])
        values = [cell(row[column], arm) for column in measure.values]
        if any(each.text for each in values):
            key = tuple(cell(run.name if name == "run" else row[name]) for name in settings)
            found.setdefault(key, {})[arm] = values
    return found


def _rows(runs: Sequence[ReportRun], name: str) -> Iterator[tuple[ReportRun, dict[str, Any]]]:
    """The rows of the last epoch of each run, the largest sample last."""
    for run in runs:
        table = run.table(name)
        if len(table):
            last = table[table["epoch"] == table["epoch"].max()]
            counts = [column for column in COUNTS if column in last]
            for row in last.sort_values(counts, kind="stable").to_dict("records"):
                yield run, {str(column): value for column, value in row.items()}
