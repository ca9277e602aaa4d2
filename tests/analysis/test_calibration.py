"""calibration: its curves add up to the calibration errors of `quality`, and its figure shows them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import tiny

from coupled.analysis import calibration, classifier_parsers, quality
from coupled.analysis.calibration import main
from coupled.analysis.plots.classifier_figures import reliability
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.representations.features import clean_features
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selections.styles import arm_styles
from coupled.metrics.arm import _logits
from coupled.stream.clean import choose_images

Read = Callable[[Path], list[dict[str, str]]]


@pytest.fixture(scope="module")
def curves(drifting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with reliability.csv and quality.csv of two arms at one epoch, of 40 images."""
    folder = tmp_path_factory.mktemp("curves")
    base = ["--run-dir", str(drifting_run), "--output", str(folder), "--arms", "cl", "ce", "--num-images", "40"]
    base += ["--epochs", "2"]
    assert main([*base, "--layers", "h", "z"]) == 0
    assert quality.main([*base, "--metrics", "ece", "probe_calibration"]) == 0
    torch.use_deterministic_algorithms(False)
    return folder


def test_each_curve_adds_up_to_the_calibration_error_of_quality(curves: Path) -> None:
    """Curve and error of the same classifier on the same images; otherwise the figure and the number disagree."""
    rows = pd.read_csv(curves / "reliability.csv")
    assert tuple(rows) == SCHEMAS["reliability.csv"].columns
    errors = pd.read_csv(curves / "quality.csv")
    errors = errors[(errors["metric"] == "ece") | (errors["variant"] == "ece")]
    known = {(e.arm, e.split, e.module): e.value for e in errors.itertuples()}
    groups = dict(iter(rows.groupby(["arm", "split", "module"])))
    assert {*groups} == {*known}
    assert len(groups) == 6  # the probes on h and z of both arms on test, the classifier of ce on both splits
    for key, group in groups.items():
        assert group["bin"].tolist() == list(range(1, 16))
        assert group["count"].sum() == 40
        gaps = (group["accuracy"] - group["confidence"]).abs().fillna(0)
        assert (group["count"] * gaps).sum() / 40 == pytest.approx(known[key], abs=1e-12)
        assert (group["accuracy"].isna() == (group["count"] == 0)).all()
        assert (group["num_train_images"].isna() == (key[2] == "logits")).all()


def test_the_curve_of_a_classifier_equals_a_loop_over_the_images(drifting_run: Path) -> None:
    """With another number of bins; bin k has the confidences in ((k - 1) / K, k / K]."""
    rows = calibration.compute(open_run(drifting_run), arms="ce", epochs=1, split="train", bins=4, num_images=50)
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("train")
    chosen_n = choose_images(len(images), 50, embedder.settings.seed, "train")
    seen, tensors = clean_features(embedder, images, chosen_n, "ce", 1), embedder.run.state_dict("ce", 1)
    layer = "z" if tensors["classifier.weight"].shape[1] == seen["z"].rows_ND.shape[1] else "h"
    logits = seen[layer].rows_ND @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    weights = np.exp(logits.double().numpy())
    best = [(max(row) / sum(row), int(np.argmax(row))) for row in weights]
    labels = seen[layer].labels_N.tolist()
    for row in rows.itertuples():
        inside = [(c, k == y) for (c, k), y in zip(best, labels, strict=True) if row.bin - 1 < 4 * c <= row.bin]
        assert row.count == len(inside)
        expected = np.mean(inside, axis=0) if inside else [np.nan, np.nan]
        np.testing.assert_allclose([row.confidence, row.accuracy], expected, rtol=1e-6)


def test_known_curves_are_not_computed_again(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second command finds all rows; another number of bins is another curve."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "ce", "--epochs", "1"]
    base += ["--num-images", "40", "--split", "train"]
    assert main(base) == 0
    assert main([*base, "--bins", "3"]) == 0
    assert "reliability.csv: 3 new rows, 18 in all" in capsys.readouterr().out
    monkeypatch.setattr(calibration, "measure", lambda *_: pytest.fail("measured again"))
    assert main(base) == 0


def test_a_probe_without_train_images_of_a_class_has_no_curve_and_a_reason(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two train images have at most two classes; counts of 0 would look like a measurement."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "cl", "--epochs", "1"]
    assert main([*base, "--num-images", "2"]) == 0
    said = capsys.readouterr().out
    assert "epoch 1, test, cl h linear_probe: no curve: " in said
    assert "reliability.csv: 15 new rows, 15 in all" in said
    assert not pd.read_csv(tmp_path / "reliability.csv")[["count", "confidence", "accuracy"]].notna().any(axis=None)
    with pytest.raises(ValueError, match="no curve of test to draw"):
        reliability(FigureTables(tmp_path, "cl", arm_styles([*tiny.TINY["arms"]]), []))
    monkeypatch.setattr(calibration, "measure", lambda *_: pytest.fail("measured again"))
    assert main([*base, "--num-images", "2"]) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--bins", "0"], "argument --bins: got '0'; a whole number of 1 or more is allowed"),
        (
            ["--split", "train", "--arms", "cl", "scl"],
            "--split: got train, where only an arm's own classifier is measured, and none of cl, scl has one",
        ),
    ],
)
def test_a_wrong_option_is_one_line(
    drifting_run: Path, tmp_path: Path, options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, with the option, its value and what is allowed; no table is begun."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled calibration: {part}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_figure_shows_the_bins_with_images(curves: Path) -> None:
    """One panel for each classifier, one line for each arm, of test at the last epoch."""
    tables = FigureTables(curves, "cl", arm_styles([*tiny.TINY["arms"]]), [])
    figure = reliability(tables)
    rows = pd.read_csv(curves / "reliability.csv")
    rows = rows[(rows["split"] == "test") & (rows["count"] > 0)]
    for axes, module, arms in zip(figure.axes, ("h", "z", "logits"), (["cl", "ce"], ["cl", "ce"], ["ce"]), strict=True):
        drawn = {str(each.get_label()): each.get_xydata() for each in axes.lines}
        assert [*drawn] == ["calibrated", *arms]
        for arm in arms:
            expected = rows[(rows["module"] == module) & (rows["arm"] == arm)][["confidence", "accuracy"]]
            np.testing.assert_array_equal(drawn[arm], expected)


def test_the_parser_has_the_number_of_bins_of_the_metric() -> None:
    """It has a copy because the metric needs torch."""
    assert classifier_parsers.BINS == _logits.BINS
