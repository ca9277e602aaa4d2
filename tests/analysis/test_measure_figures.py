"""The figures of further pair metrics show the right rows, and name the option that writes a missing table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.measure_figures import class_alignment, mutual_knn, pair_metrics
from coupled.analysis.selections.styles import arm_styles

ARMS = ["cl", "nscl", "twin", "ce"]
DRAWN = ["nscl", "ce"]  # without the twin of the reference


def tables(folder: Path, name: str, columns: str, rows: Sequence[str]) -> FigureTables:
    (folder / name).write_text("\n".join([columns, *rows, ""]))
    return FigureTables(folder, "cl", arm_styles(ARMS), ["twin"])


def test_every_pair_metric_has_a_panel_over_epochs(tmp_path: Path) -> None:
    """Rows of h with the reference, of the largest sample of each metric."""
    columns = "epoch,split,reference,arm,module,metric,value,ci_low,ci_high,num_images"
    metrics = {"svcca": 0.1, "pwcca": 0.2, "angle": 30.0}
    rows = [
        f"{epoch},test,cl,{arm},h,{metric},{shift + epoch / 100},{shift},{shift + 1},90"
        for metric, shift in metrics.items()
        for arm in ARMS[1:]
        for epoch in (1, 0, 2)
    ]
    others = ["0,test,cl,nscl,z,svcca,9,,,90", "0,test,cl,nscl,h,svcca,9,,,20", "0,test,ce,nscl,h,svcca,9,,,90"]
    figure = pair_metrics(tables(tmp_path, "test_alignment.csv", columns, [*others, *rows]))
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [
        "SVCCA",
        "PWCCA",
        "representation angle, degrees",
    ]
    for axes, shift in zip(figure.axes, metrics.values(), strict=False):
        assert [each.get_label() for each in axes.lines] == DRAWN
        for each in axes.lines:
            np.testing.assert_allclose(each.get_xydata(), [(e, shift + e / 100) for e in range(3)])
        floor, *intervals = axes.collections
        assert floor.get_label() == "noise floor (cl's twin)"
        assert len(intervals) == len(DRAWN)


def test_mutual_knn_is_drawn_over_k_beside_chance(tmp_path: Path) -> None:
    """At the first and the last epoch after training."""
    columns = "epoch,split,reference,arm,module,k,value,num_images"
    rows = [f"{e},test,cl,{arm},h,{k},{k / 100 + e / 10},101" for e in (0, 1, 2, 4) for arm in ARMS[1:] for k in (5, 1)]
    figure = mutual_knn(tables(tmp_path, "test_mutual_knn.csv", columns, [*rows, "4,test,cl,ce,h,1,9,50"]))
    for axes, epoch in zip(figure.axes, (1, 4), strict=True):
        assert axes.get_title() == f"epoch {epoch}"
        lines = {str(each.get_label()): each.get_xydata() for each in axes.lines}
        assert [*lines] == [*DRAWN, "chance"]
        np.testing.assert_allclose(lines["ce"], [(1, 0.01 + epoch / 10), (5, 0.05 + epoch / 10)])
        np.testing.assert_allclose(lines["chance"], [(1, 0.01), (5, 0.05)])


@pytest.mark.parametrize("count", [3, 25])
def test_classes_are_sorted_by_their_first_metric(tmp_path: Path, count: int) -> None:
    """The least similar class at the top; of many classes those at both ends, which the title says."""
    columns = "epoch,split,reference,arm,module,metric,label,value,num_images"
    rows = [
        f"{e},test,cl,{arm},h,{metric},c{k},{(k * 7 % count + place / 10) / e},20"
        for e in (1, 2)
        for metric in ("rsa", "cka")
        for place, arm in enumerate(ARMS[1:])
        for k in range(count)
    ]
    figure = class_alignment(tables(tmp_path, "test_class_alignment.csv", columns, rows))
    order = [f"c{k}" for k in sorted(range(count), key=lambda k: k * 7 % count)]
    shown = order if count <= 20 else order[:10] + order[-10:]
    assert [each.get_text() for each in figure.axes[0].get_yticklabels()] == shown
    assert [axes.get_title() for axes in figure.axes] == ["RSA", "CKA"]
    for axes in figure.axes:
        nscl, ce = (container.patches for container in axes.containers)
        expected = [int(name[1:]) * 7 % count / 2 for name in shown]
        np.testing.assert_allclose([each.get_width() for each in nscl], expected)
        np.testing.assert_allclose([each.get_width() for each in ce], np.array(expected) + 0.1)
    assert ("20 of 25 classes" in figure.get_supylabel()) == (count == 25)


def test_a_missing_table_is_named_with_the_option_that_writes_it(tmp_path: Path) -> None:
    """Without the option `coupled alignment` would not write it."""
    given = FigureTables(tmp_path, "cl", arm_styles(ARMS), [])
    for figure, option in ((mutual_knn, "--mutual-knn 1 5 10"), (class_alignment, "--per-class")):
        with pytest.raises(ValueError, match=f"csv: no such file; write it with: coupled alignment .*{option}"):
            figure(given)
