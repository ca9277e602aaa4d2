"""The figure of alignment against an option of the arms: which arms make a line, and what it shows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coupled.analysis.figures import draw_each
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.option_figures import options
from coupled.analysis.selections.options import OptionPath, option_paths
from coupled.analysis.selections.styles import arm_styles
from coupled.sweep import figures as sweep_figures
from coupled.sweep.sweep_file import FigureSettings
from coupled.sweep.tables import COLUMNS, FORMAT

NSCL = {"objective": "nscl", "temperature": 0.5, "positive_in_denominator": False}
ARMS = {
    "cl": {"objective": "dcl", "temperature": 0.5, "positive_in_denominator": False, "similarity": "cosine"},
    "nscl": NSCL,
    "tenth": {**NSCL, "label_fraction": 0.1},
    "none": {**NSCL, "label_fraction": 0.0},
    "noisy": {**NSCL, "label_noise": 0.4},
    "groups_2": {**NSCL, "label_groups": 2},
    "groups_3": {**NSCL, "label_groups": 3},
    "groups_5": {**NSCL, "label_groups": 5},
    "moved": {**NSCL, "label_fraction": 0.7, "perturb": {"ulps": 1, "step": 0}},
}


def test_arms_that_differ_in_one_number_are_a_path() -> None:
    """A default counts as a value; two values are no path, and an arm that differs in something else is not on it."""
    assert option_paths(ARMS) == [
        OptionPath("nscl", "label_fraction", {"nscl": 1.0, "tenth": 0.1, "none": 0.0}, []),
        OptionPath("nscl", "label_groups", {"groups_2": 2, "groups_3": 3, "groups_5": 5}, ["nscl"]),
    ]


def test_an_objective_of_the_user_is_compared_without_importing_it() -> None:
    """A run folder alone never runs code; the default is then not known."""
    arms = {f"w{weight}": {"objective": "mine.py:mine", "weight": weight} for weight in (1, 2, 3)}
    arms["default"] = {"objective": "mine.py:mine"}
    assert option_paths(arms) == [OptionPath("mine.py:mine", "weight", {"w1": 1, "w2": 2, "w3": 3}, [])]


def tables(folder: Path, with_gaps: bool = True) -> FigureTables:
    """Scores of two epochs with the value of the option in them, an interval, and a smaller sample."""
    scores = ["epoch,split,reference,arm,module,metric,value,ci_low,ci_high,num_images"]
    gaps = ["epoch,reference,arm,tensor,module,aggregate,gap,angle,arm_digest"]
    for number, arm in enumerate(ARMS):
        if arm == "cl":
            continue
        for epoch in (1, 2):
            high = epoch / 4 + number / 100
            scores += [f"{epoch},test,cl,{arm},h,cka,{high},{high - 0.1},{high + 0.1},357"]
            scores += [f"{epoch},test,cl,{arm},h,cka,0.99,,,20", f"{epoch},test,cl,{arm},z,cka,0.98,,,357"]
            gaps += [f"{epoch},cl,{arm},,,mean,{1 - high},,digest"]
    folder.mkdir(exist_ok=True)
    (folder / "test_alignment.csv").write_text("\n".join(scores) + "\n")
    if with_gaps:
        (folder / "weight_gap.csv").write_text("\n".join(gaps) + "\n")
    return FigureTables(folder, "cl", arm_styles(list(ARMS)), [], arm_settings=ARMS)


def test_the_line_has_the_values_of_the_last_epoch_in_the_order_of_the_option(tmp_path: Path) -> None:
    """A row per option; RSA has no rows, so it has no panel."""
    figure = options(tables(tmp_path))
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "CKA with cl, test images, h",
        "weight gap to cl, mean over layers",
    ]
    assert len(figure.axes) == 4
    share, gap, groups, _ = figure.axes
    assert share.get_xlabel() == "label_fraction of nscl"
    names = list(ARMS)
    expected = [(x, 0.5 + names.index(arm) / 100) for arm, x in (("none", 0.0), ("tenth", 0.1), ("nscl", 1.0))]
    np.testing.assert_allclose(share.lines[0].get_xydata(), expected, atol=1e-12)
    np.testing.assert_allclose(gap.lines[0].get_xydata(), [(x, 1 - y) for x, y in expected], atol=1e-12)
    bars = np.concatenate([path.vertices[:, 1] for path in share.collections[0].get_paths()])
    high = expected[-1][1]
    assert bars.min() == pytest.approx(min(y for _, y in expected) - 0.1)
    assert groups.lines[0].get_xdata().tolist() == [2, 3, 5]
    assert groups.lines[1].get_ydata() == pytest.approx([0.5 + names.index("nscl") / 100] * 2)
    assert [each.get_text() for each in groups.get_legend().get_texts()] == ["nscl"]
    assert (
        figure.get_suptitle()
        == "compared with cl, epoch 2\nn = 357 test images; one seed; bars: 95 % intervals over images"
    )
    assert high == pytest.approx(0.5 + names.index("nscl") / 100)


def test_without_a_weight_gap_its_panel_is_left_out(tmp_path: Path) -> None:
    """Alignment alone is drawn."""
    assert len(options(tables(tmp_path, with_gaps=False)).axes) == 2


def test_a_run_without_such_arms_has_no_such_figure_and_no_message(tmp_path: Path) -> None:
    """Most runs compare objectives, not options."""
    few = {name: ARMS[name] for name in ("cl", "nscl", "tenth")}
    without = FigureTables(tmp_path, "cl", arm_styles(list(ARMS)), [], arm_settings=ARMS)  # tables: quickly not drawn
    shown = without._replace(arm_settings=few)
    assert "options" in dict(draw_each(without, tmp_path))
    assert "options" not in dict(draw_each(shown, tmp_path))
    with pytest.raises(ValueError, match=r"^the run has no 3 arms that differ only in one number of their objective$"):
        options(shown)


def test_a_sweep_over_seeds_draws_mean_and_standard_deviation_against_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed is no path: its noise is larger than the steps of the option."""
    figure = FigureSettings(metrics=("cka",)).model_dump(mode="json")
    content = {"groups": [{"seed": [0, 1]}], "factor": None, "figure": figure, "arms": ARMS, "note": "", "points": {}}
    (tmp_path / "sweep.json").write_text(json.dumps({"format": FORMAT, **content}))
    place = {"table": "test_alignment", "split": "test", "reference": "cl", "module": "h", "metric": "cka"}
    rows = [
        {**place, "run": f"seed={seed}", "arm": arm, "epoch": epoch, "value": (epoch + number / 10 + seed) / 10}
        for seed in (0, 1)
        for number, arm in enumerate(ARMS)
        for epoch in (1, 2)
        if arm != "cl"
    ]
    saved = {}
    monkeypatch.setattr(sweep_figures, "save", lambda figure, path, note: saved.setdefault(path.name, [figure]) and [])
    sweep_figures.draw(tmp_path, pd.DataFrame(rows).reindex(columns=list(COLUMNS)))
    share, groups = saved["options"][0].axes
    names = list(ARMS)
    expected = [(x, 0.25 + names.index(arm) / 100) for arm, x in (("none", 0.0), ("tenth", 0.1), ("nscl", 1.0))]
    np.testing.assert_allclose(share.lines[0].get_xydata(), expected, atol=1e-12)
    heights = np.array(share.collections[0].get_paths()[0].vertices)[:, 1]
    assert heights.max() - max(y for _, y in expected) == pytest.approx(0.5**0.5 / 10)
    assert groups.get_xlabel() == "label_groups of nscl"
