"""The layout of the figures: many arms stay distinct, legends are whole, and there are no empty panels."""

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from coupled.analysis.figures import main
from coupled.analysis.plots.accuracy_figures import alignment_accuracy
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.pair_figures import angles, drift, gap_alignment, layers_gap
from coupled.analysis.selections.styles import COLOURS, arm_styles
from coupled.config.schema import from_resolved
from coupled.storage.run_description import write_run_json

NAMES = ("cl", "nscl", "scl", "ce", "barlow_twins", "triplet_batch_hard", *(f"arm_{k}" for k in range(19)))
COMMAND = "alignment --run-dir {} --reference cl --split test --layers h --metrics rsa"


def tables(folder: Path, arms: int = 25, metrics: tuple[str, ...] = ("cka", "rsa")) -> FigureTables:
    """Gap 0.1 e k of arm k at epochs e = 0, 1; CKA and RSA fall as it grows."""
    gaps = ["epoch,reference,arm,tensor,module,aggregate,gap,angle,arm_digest"]
    scores = ["epoch,split,reference,arm,module,metric,value,ci_low,ci_high,num_images"]
    quality = ["epoch,split,arm,module,metric,variant,shots,k,value,num_images,num_train_images"]
    for epoch in (0, 1):
        for k, arm in enumerate(NAMES[:arms]):
            quality.append(f"{epoch},test,{arm},h,nccc,euclidean,,,{0.9 - 0.01 * k * epoch},9,9")
            gap = 0.1 * epoch * k
            if arm != "cl":
                gaps += [f"{epoch},cl,{arm},,,{aggregate},{gap},{gap},x" for aggregate in ("mean", "global")]
                gaps += [f"{epoch},cl,{arm},,{layer},mean,{gap},,x" for layer in ("stem", "layer1")]
                scores += [f"{epoch},test,cl,{arm},h,{metric},{1 - gap / 10},,,9" for metric in metrics]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("weight_gap", gaps), ("test_alignment", scores), ("quality", quality)):
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return FigureTables(folder, "cl", arm_styles(NAMES[:arms]), [])


def panels(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_title()]


def test_twenty_five_arms_have_distinct_styles() -> None:
    """Two arms of one colour have other dashes: lines without markers stay distinct."""
    styles = arm_styles(NAMES).values()
    assert len({(style.color, style.linestyle) for style in styles}) == 25
    assert len({style.color for style in styles}) == len(COLOURS)


def test_every_colour_is_visible_on_white_and_on_black_and_differs_from_the_others() -> None:
    """A contrast of 2 with both grounds; no two colours are closer than 0.18 in RGB."""

    def luminance(colour: str) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in COLOURS:
        light = luminance(colour)
        assert 1.05 / (light + 0.05) > 2
        assert (light + 0.05) / (luminance("#14171b") + 0.05) > 2
    for one, other in combinations(COLOURS, 2):
        assert sum((a - b) ** 2 for a, b in zip(to_rgb(one), to_rgb(other), strict=True)) ** 0.5 > 0.18


@pytest.mark.parametrize("arms", [3, 11, 25])
def test_a_legend_is_inside_the_figure_and_names_each_arm_once(tmp_path: Path, arms: int) -> None:
    """A legend that is too wide was cut at both sides; the ring of the last epoch had an entry for each panel."""
    run = tables(tmp_path, arms)
    for figure, more in ((drift(run), []), (gap_alignment(run), ["epoch 1"]), (alignment_accuracy(run), ["epoch 1"])):
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert [text.get_text() for text in legend.get_texts()] == [*NAMES[1:arms], *more]
        lowest = min(axes.get_position().height for axes in figure.axes) * figure.get_figheight()
        assert lowest > 1.3, "the legend leaves no room for the panels"


def test_maps_of_many_arms_are_in_several_rows(tmp_path: Path) -> None:
    """One row of 24 maps would be 70 inches wide."""
    figure = layers_gap(tables(tmp_path))
    assert panels(figure) == list(NAMES[1:])
    maps = [axes for axes in figure.axes if axes.images]
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in maps}) == 6  # type: ignore[union-attr]
    assert figure.get_figwidth() < 13


def test_a_metric_that_was_not_computed_has_no_panel_and_its_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty panel looks like a missing curve; the program says once how to add it."""
    arms = {arm: {"objective": "dcl", "temperature": 0.1 + k} for k, arm in enumerate(NAMES[:3])}
    settings = from_resolved({"name": "x", "dataset": {"name": "digits"}, "arms": arms}).resolved()
    write_run_json(tmp_path, {"name": "x", "settings": settings, "settings_sha256": 64 * "0", "dataset": {}})
    run = tables(tmp_path / "analysis", 3, metrics=("cka",))
    assert panels(drift(run)) == ["weight gap to cl, mean over layers", "CKA with cl, test images, h"]
    assert panels(angles(run)) == ["angle of the weights", "arccos of CKA, test images, h"]
    assert panels(gap_alignment(run)) == ["CKA with cl, test images, h"]
    assert panels(alignment_accuracy(run)) == ["nearest class centre, CKA"]
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"drift": drift})
    assert main(["--run-dir", str(tmp_path)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no panels" in line]
    assert len(said) == 1
    assert said[0].startswith("no panels of RSA: ")
    assert said[0].endswith(COMMAND.format(tmp_path))
    run = tables(tmp_path / "analysis", 3)
    assert main(["--run-dir", str(tmp_path)]) == 0
    assert "no panels" not in capsys.readouterr().err


def test_figures_without_a_common_epoch_say_so(tmp_path: Path) -> None:
    """Gap and alignment of different epochs have no common point; the figure would be empty."""
    run = tables(tmp_path, 3)
    path = tmp_path / "test_alignment.csv"
    path.write_text("\n".join(line.replace("1,test", "7,test", 1) if line[0] == "1" else line
                              for line in path.read_text().splitlines() if line[0] != "0") + "\n")  # fmt: skip
    with pytest.raises(ValueError, match=r"no epoch of h in common; compute it with: .* --metrics cka rsa"):
        gap_alignment(run)
    with pytest.raises(ValueError, match=r"nearest class centre.*no epoch of h in common"):
        alignment_accuracy(run)
