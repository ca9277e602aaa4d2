"""Figures: they show the right rows, each arm has one colour everywhere, and missing tables are named."""

import errno
import math
import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from support.figure_tables import ARMS, LAYERS, OTHERS, value, write_tables

from coupled.analysis.figures import FIGURES, draw, main
from coupled.analysis.plots.accuracy_figures import alignment_accuracy, merging
from coupled.analysis.plots.arm_figures import collapse, quality
from coupled.analysis.plots.drawing import grid
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.loss_figures import barrier, gradients
from coupled.analysis.plots.pair_figures import angles, drift, gap_alignment, layers_alignment, layers_gap, matrix
from coupled.analysis.plots.spectrum_figures import duality, spectra
from coupled.analysis.run import open_run
from coupled.analysis.selections.styles import NOISE, arm_styles
from coupled.analysis.tables import BadTableError
from coupled.config.schema import from_resolved
from coupled.storage.run_description import write_run_json


def describe(folder: Path, arms: Mapping[str, Any]) -> None:
    settings = from_resolved({"name": "x", "dataset": {"name": "digits"}, "arms": arms}).resolved()
    write_run_json(folder, {"name": "x", "settings": settings, "settings_sha256": 64 * "0", "dataset": {}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    describe(tmp_path, ARMS)
    write_tables(tmp_path / "analysis")
    return tmp_path


def described(folder: Path) -> FigureTables:
    return FigureTables(folder / "analysis", "cl", arm_styles(list(ARMS)), ["twin"])


def lines(figure: Figure, panel: int) -> dict[str, list[list[float]]]:
    return {
        str(each.get_label()): [list(each.get_xdata()), list(each.get_ydata())]  # type: ignore[arg-type]
        for each in figure.axes[panel].lines
    }


@pytest.mark.slow
def test_every_figure_is_written_as_png_and_pdf_and_equal_tables_give_equal_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure file must change only when its data change, so that it can be kept in a repository. Three figures are
    drawn twice: lines with bands, a heat map and points; one function saves all.
    """
    names = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    contents = []
    assert main(["--run-dir", str(folder)]) == 0
    contents.append({path.name: path.read_bytes() for path in (folder / "analysis/figures").iterdir()})
    twice = ("drift", "layers_gap", "alignment_accuracy")
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {name: FIGURES[name] for name in twice})
    assert len(draw(open_run(folder))) == 2 * len(twice)
    contents.append({path.name: path.read_bytes() for path in (folder / "analysis/figures").iterdir()})
    assert set(contents[0]) == names
    assert contents[0] == contents[1]
    for name, data in contents[0].items():
        assert data.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
    said = capsys.readouterr()
    assert said.err == ""
    assert all(f"figures/{name}\n" in said.out for name in names)


def test_drift_shows_the_newest_rows_of_the_largest_sample(folder: Path) -> None:
    """One line for each arm except twins, at the values of the tables."""
    figure = drift(described(folder))
    for panel, of in enumerate((lambda g: g, lambda g: 1 - g, lambda g: 1 - g / 2)):
        found = lines(figure, panel)
        assert list(found) == ["mine", "nscl", "ce"]  # as in run.json
        for arm, (epochs, values) in found.items():
            assert epochs == [0, 1, 3]
            assert values == pytest.approx([of(value(epoch, arm)) for epoch in epochs])


def test_the_twin_is_drawn_as_the_noise_floor_band(folder: Path) -> None:
    """The difference between twins is the noise floor; confidence intervals are bars, with words on what they are.

    An area over single epochs, as of `--confidence --epochs 3`, is not visible.
    """
    figure = drift(described(folder))
    for panel, (same, far) in enumerate(((0, 0.09), (1, 0.91), (1, 0.955))):
        band, *shades = figure.axes[panel].collections
        assert band.get_label() == "noise floor (cl's twin)"
        heights = np.concatenate([path.vertices[:, 1] for path in band.get_paths()])
        assert sorted((heights.min(), heights.max())) == pytest.approx(sorted((same, far)))
        assert len(shades) == (panel > 0)
        for bars in shades:
            heights = np.concatenate(bars.get_segments())[:, 1]  # type: ignore[attr-defined]
            last = lines(figure, panel)["ce"][1][-1]
            assert (heights.min(), heights.max()) == pytest.approx((last - 0.01, 1.02))
            assert to_hex(bars.get_edgecolor()[0][:3]).upper() == arm_styles(list(ARMS))["ce"].color
    assert figure.legends[0].get_title().get_text().endswith("bars: 95 % intervals over images")


def test_heat_maps_have_one_row_per_layer_and_one_column_per_epoch(folder: Path) -> None:
    """Layers in the order of the network, whatever the table's order; one colour scale for all arms."""
    run = described(folder)
    for figure, layers, of in (
        (layers_alignment(run), list(LAYERS), lambda gap, place: 1 - gap - 0.1 * (2 - place)),
        (layers_gap(run), ["stem", "layer1"], lambda gap, place: gap + place),
    ):
        maps = [axes for axes in figure.axes if axes.images]
        assert [axes.get_title() for axes in maps] == list(OTHERS)
        assert [text.get_text() for text in maps[0].get_yticklabels()] == layers
        assert len({axes.images[0].get_clim() for axes in maps}) == 1
        for axes in maps:
            assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "3"]
            expected = [[of(value(e, axes.get_title()), place) for e in (0, 1, 3)] for place in range(len(layers))]
            assert np.asarray(axes.images[0].get_array()) == pytest.approx(np.array(expected))


def test_quality_shows_every_arm_and_the_gap_alignment_figure_joins_both_tables(folder: Path) -> None:
    """The reference arm is included; a point joins gap and alignment of the same epoch."""
    run = described(folder)
    figure = quality(run)
    visible = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert visible == ["accuracy, nearest class centre", "CDNV"]
    assert list(lines(figure, 0)) == ["cl", "mine", "nscl", "twin · noise floor", "ce"]
    assert lines(figure, 1)["cl"][1] == [0.5] * 3
    joined = lines(gap_alignment(run), 0)
    assert list(joined) == ["mine", "nscl", "ce"]
    for gaps, values in joined.values():
        assert values == pytest.approx([1 - gap for gap in gaps])


def test_angles_are_those_of_the_table_and_the_arccos_of_the_scores(folder: Path) -> None:
    """In degrees: of the encoder's weights as one vector, of CKA and of RSA."""
    figure = angles(described(folder))
    for panel, arm in ((panel, arm) for panel in range(3) for arm in ("mine", "nscl", "ce")):
        gaps = [value(epoch, arm) for epoch in (0, 1, 3)]
        cosines = [1 - gap * (1, 1, 0.5)[panel] for gap in gaps]
        expected = [100 * gap for gap in gaps] if panel == 0 else [math.degrees(math.acos(x)) for x in cosines]
        assert lines(figure, panel)[arm] == [[0, 1, 3], pytest.approx(expected, abs=1e-6)]
    assert "twin" not in lines(figure, 0)


def test_the_accuracy_figure_joins_scores_and_differences_by_epoch_and_says_which_rows_are_missing(
    folder: Path,
) -> None:
    """A point is (CKA or RSA, accuracy - accuracy of the reference) of one epoch; twins are left out."""
    figure = alignment_accuracy(described(folder))
    assert [axes.get_title() for axes in figure.axes] == ["nearest class centre, CKA", "nearest class centre, RSA"]
    for axes, slope in zip(figure.axes, (1, 0.5), strict=True):
        points = {str(each.get_label()): np.asarray(each.get_offsets()) for each in axes.collections}
        assert list(points) == ["mine", "nscl", "ce", "epoch 3"]
        for arm in ("mine", "nscl", "ce"):
            gaps = [value(epoch, arm) for epoch in (0, 1, 3)]
            assert points[arm] == pytest.approx(np.array([(1 - slope * gap, gap - 0.5) for gap in gaps]))
        assert points["epoch 3"] == pytest.approx(np.stack([points[arm][-1] for arm in ("mine", "nscl", "ce")]))
    path = folder / "analysis/quality.csv"
    path.write_text("\n".join(row for row in path.read_text().splitlines() if "nccc" not in row) + "\n")
    with pytest.raises(ValueError, match=r"no rows of nccc or linear_probe .*: coupled quality .* --metrics nccc lin"):
        alignment_accuracy(described(folder))


def test_the_merging_figure_shows_the_line_at_the_last_epoch_and_the_barrier_over_epochs(folder: Path) -> None:
    """The accuracy half way minus the mean of both ends; rows without new batch norms are not used beside others."""
    figure = merging(described(folder))
    along, barrier = (lines(figure, panel) for panel in (0, 1))
    for arm in ("mine", "nscl", "ce"):
        ends = [value(epoch, arm, 0.1) for epoch in (0, 1, 3)]
        assert along[arm] == [[0, 0.5, 1], pytest.approx([0, ends[-1] / 2, ends[-1]])]
        assert barrier[arm] == [[0, 1, 3], pytest.approx([0, 0, 0])]
    assert "twin" not in along
    path = folder / "analysis/merge.csv"
    path.write_text(path.read_text().replace(",h,", ",z,"))
    with pytest.raises(ValueError, match=r"merge.csv: no rows of h with the reference 'cl'"):
        merging(described(folder))


def test_collapse_shows_every_arm_and_the_mean_alignment_of_predictors(folder: Path) -> None:
    """Values of the whole split; an arm without a predictor is not in a predictor's panel."""
    figure = collapse(described(folder))
    visible = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert visible == ["spread of z", "eigenspace alignment of predictor"]
    assert lines(figure, 0)["ce"] == [[0, 1, 3], pytest.approx([value(e, "ce") for e in (0, 1, 3)])]
    assert list(lines(figure, 0)) == ["cl", "mine", "nscl", "twin · noise floor", "ce"]
    assert lines(figure, 1) == {"mine": [[0, 1, 3], pytest.approx([0.3, 0.4, 0.6])]}


@pytest.mark.parametrize("panels", [1, 4, 5, 7])
def test_a_grid_shows_no_panel_without_a_curve(panels: int) -> None:
    """An empty panel at the end would look like a missing curve."""
    figure, found = grid(panels)
    assert [axes for axes in figure.axes if axes.get_visible()] == found
    assert len(found) == panels


def test_an_arm_has_one_colour_in_every_figure(folder: Path) -> None:
    """The colour does not depend on which other arms there are; readers compare figures by colour."""
    run = described(folder)
    styles = {arm: style.color for arm, style in run.styles.items()}
    assert len(set(styles.values())) == len(styles)
    write_tables(folder / "analysis", ("nscl", "ce", "twin"))
    for figure in (drift(run), quality(run), gap_alignment(run)):
        for axes in figure.axes:
            for each in axes.lines:
                arm = str(each.get_label())
                assert each.get_color() == (NOISE if arm == "twin · noise floor" else styles[arm])
    assert arm_styles(["ce", "new"])["ce"] == arm_styles(["cl", "other", "ce"])["ce"]


def test_a_missing_table_is_named_and_the_rest_is_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The drift figure does not need quality.csv; if no table exists, the exit status is 2."""
    (folder / "analysis/quality.csv").unlink()
    with monkeypatch.context() as two:
        two.setattr("coupled.analysis.figures.FIGURES", {name: FIGURES[name] for name in ("drift", "quality")})
        assert main(["--run-dir", str(folder)]) == 0
    assert (folder / "analysis/figures/drift.png").is_file()
    assert "quality: not drawn: " in capsys.readouterr().err
    assert not (folder / "analysis/figures/quality.png").exists()
    for path in (folder / "analysis").glob("*.csv"):
        path.unlink()
    assert main(["--run-dir", str(folder)]) == 2
    named = [line.partition(": not drawn: ") for line in capsys.readouterr().err.splitlines()]
    assert sorted(name for names, _, why in named if why for name in names.split(", ")) == sorted(FIGURES)
    assert len({why for *_, why in named}) == len(named)  # one line for each missing table
    with pytest.raises(ValueError, match=r"drift: .*weight_gap\.csv: no such file"):
        draw(open_run(folder))
    assert main(["--run-dir", str(folder), "--reference", "byol"]) == 2
    assert "--reference: the run has no arm 'byol' (arms: cl, mine, nscl, twin, ce)" in capsys.readouterr().err


def test_a_run_without_cl_is_drawn_against_the_reference_of_its_tables(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line names the reference; without tables it is the first arm, and --reference chooses another."""
    arms = {"other": {"objective": "simsiam"}, **{arm: about for arm, about in ARMS.items() if arm != "cl"}}
    arms["base"] = arms.pop("mine")
    describe(folder, arms)
    for path in (folder / "analysis").glob("*.csv"):
        rows = [line for line in path.read_text().splitlines() if ",mine," not in line]
        path.write_text("\n".join(rows).replace(",cl,", ",base,") + "\n")
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"drift": drift})
    assert main(["--run-dir", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "reference: base (the run has no arm 'cl'; --reference ARM chooses another)"
    )
    assert main(["--run-dir", str(folder), "--reference", "other"]) == 2
    assert "no rows with the reference 'other'" in capsys.readouterr().err


def test_a_run_of_one_arm_has_the_figures_of_one_arm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures that compare arms are skipped with the reason, and no program is suggested that would refuse the run."""
    describe(folder, {"cl": ARMS["cl"]})
    rows = (folder / "analysis/quality.csv").read_text().splitlines()
    (folder / "analysis/quality.csv").write_text("\n".join(row for row in rows if ",cl," in row or "arm" in row) + "\n")
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"drift": drift, "matrix": matrix, "quality": quality})
    assert main(["--run-dir", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "drift, matrix: not drawn: the run has one arm; this figure compares two or more arms"
    ]
    assert "quality.png" in said.out


def test_a_damaged_table_is_reported_and_the_others_are_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With file and row, and status 2, unlike a missing table; a value that no axis can show is skipped."""
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"quality": quality, "collapse": collapse})
    path = folder / "analysis/quality.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace("0,test", "1e18,test", 1), *lines[2:]]) + "\n")
    assert main(["--run-dir", str(folder)]) == 2
    said = capsys.readouterr()
    assert f"quality: not drawn: {path}: row 2: epoch: got '1e18'" in said.err
    assert "collapse.png" in said.out
    with pytest.raises(BadTableError, match="epoch: got '1e18'"):
        draw(open_run(folder))
    path.write_text("\n".join([lines[0], lines[1].replace(",0.5,", ",inf,"), *lines[2:]]) + "\n")
    assert main(["--run-dir", str(folder)]) == 0


@pytest.mark.parametrize("call", ["mkdir", "fsync"])
def test_a_full_disk_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    """Status 1, the figure's path and the reason."""

    def full(*_: object, **__: object) -> None:
        more = [str(folder / "analysis/figures")] if call == "mkdir" else []
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *more)

    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"quality": quality})
    monkeypatch.setattr(os, call, full)
    assert main(["--run-dir", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"coupled figures: {folder / 'analysis/figures'}")
    assert "No space left on device" in error
    assert error.count("\n") == 1


def test_the_matrix_shows_every_pair_once_and_is_symmetric(tmp_path: Path) -> None:
    """CKA of the last epoch only; earlier epochs, subsets and other layers are not used."""
    arms = ["cl", "mine", "nscl", "ce"]
    known = {pair: 0.9 - 0.1 * place for place, pair in enumerate(combinations(arms, 2))}
    rows = ["epoch,split,reference,arm,module,metric,value,num_images"]
    for (a, b), cka in known.items():
        rows += [f"1,test,{a},{b},h,cka,0.1,357", f"3,test,{b},{a},h,cka,{cka},357", f"3,test,{a},{b},h,cka,0.2,20"]
        rows += [f"3,test,{a},{b},z,cka,0.3,357", f"3,test,{a},{b},h,rsa,0.3,357"]
    (tmp_path / "test_alignment.csv").write_text("\n".join(rows) + "\n")
    run = FigureTables(tmp_path, "cl", arm_styles(arms), [])
    shown = np.asarray(matrix(run).axes[0].images[0].get_array())
    for (a, b), cka in known.items():
        assert shown[arms.index(a), arms.index(b)] == shown[arms.index(b), arms.index(a)] == pytest.approx(cka)
    assert list(np.diag(shown)) == [1.0] * 4
    (tmp_path / "test_alignment.csv").write_text("\n".join(rows[:-5]) + "\n")
    with pytest.raises(
        ValueError, match=r"no CKA score .* 'nscl' and 'ce'; .*: coupled alignment --run-dir \S+ --compare all"
    ):
        matrix(run)


def test_the_barrier_figure_shows_the_line_and_the_height_of_each_order_of_channels(folder: Path) -> None:
    """A height drawn from other rows, or the accuracy with the wrong sign, would hide a barrier."""
    figure = barrier(described(folder))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["nscl, epoch 3", "barrier, nscl"]
    assert titles[2:] == ["nccc, epoch 3, channels matched", "barrier, nccc, channels matched"]
    for panel in (1, 3):
        epochs, heights = lines(figure, panel)["ce"]
        assert epochs == [0, 1, 3]
        assert heights == pytest.approx([value(epoch, "ce") for epoch in epochs])
    positions, losses = lines(figure, 0)["ce"]
    assert (positions, losses) == ([0, 0.5, 1], pytest.approx([1, 1 + value(3, "ce"), 1]))


def test_the_gradient_figure_shows_the_pairs_at_the_last_epoch_by_their_cosine(folder: Path) -> None:
    """The whole gradients of anchors are other rows; an empty bin has no point."""
    figure = gradients(described(folder))
    assert [axes.get_title() for axes in figure.axes] == ["nscl, views of one image", "nscl, views of two classes"]
    for panel in (0, 1):
        cosines, sizes = lines(figure, panel)["cl"]
        assert cosines == pytest.approx([0.25, 0.45])
        assert sizes == pytest.approx([0.3, 0.5])


def test_the_spectra_have_one_row_of_panels_per_arm_and_one_line_per_component(folder: Path) -> None:
    """Only `mine` has a predictor; a mean over components would hide a collapse of the smaller ones."""
    figure = spectra(described(folder))
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["mine: cosine of u and W u"]
    found = [list(each.get_ydata()) for each in figure.axes[0].lines]  # type: ignore[arg-type]
    assert found[1] == pytest.approx([0.4, 0.5, 0.7])
    assert figure.axes[0].get_yscale() == "linear"


def test_the_duality_figure_shows_the_criteria_and_norms_that_were_measured(folder: Path) -> None:
    """On a log scale for the criteria, which differ by powers of ten between arms."""
    figure = duality(described(folder))
    assert [axes.get_title() for axes in figure.axes] == ["$L_c$ of z", "mean norm of z"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    assert lines(figure, 0)["ce"] == [[0, 1, 3], [2, 3, 5]]
