"""robustness: errors on corrupted images, generated or from folders, and mean corruption errors."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import tiny

from coupled.analysis import quality, robustness
from coupled.analysis.corruptions import sources
from coupled.analysis.corruptions.constants import SEVERITIES
from coupled.analysis.corruptions.errors import mean_corruption_errors
from coupled.analysis.corruptions.generate import corrupted
from coupled.analysis.plots.classifier_figures import corruption_errors
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.representations.features import clean_features
from coupled.analysis.robustness import main
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selections.styles import arm_styles
from coupled.metrics.arm._probes import fitted
from coupled.metrics.arm.linear_probe import best_strength
from coupled.stream.clean import choose_images

SOME = ["contrast", "shot_noise"]


@pytest.fixture(scope="module")
def measured(drifting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the tables of two arms at the last epoch, of 40 images."""
    folder = tmp_path_factory.mktemp("robust")
    base = ["--run-dir", str(drifting_run), "--output", str(folder), "--arms", "cl", "ce", "--num-images", "40"]
    assert main([*base, "--corruptions", *SOME]) == 0
    assert main([*base, "--corruptions", "contrast", "--classifier", "probe"]) == 0
    assert quality.main([*base, "--epochs", "2", "--metrics", "top1", "linear_probe", "--split", "test"]) == 0
    torch.use_deterministic_algorithms(False)
    return folder


def test_errors_on_clean_images_are_those_of_quality(measured: Path) -> None:
    """Severity 0 goes the way of the corrupted images, so that way must not change an image."""
    rows = pd.read_csv(measured / "robustness.csv")
    assert tuple(rows) == SCHEMAS["robustness.csv"].columns
    assert {*rows["epoch"]} == {2}
    clean = rows[rows["severity"] == 0]
    known = pd.read_csv(measured / "quality.csv")
    known = known[known["variant"].isin(["classifier", "regularised"]) & (known["module"] != "z")]
    found = {(r.arm, r.module): 1 - r.value for r in clean.itertuples()}
    assert found == pytest.approx({(r.arm, r.module): r.value for r in known.itertuples()})
    assert {*found} == {("cl", "h"), ("ce", "logits"), ("ce", "h")}
    assert {*clean["corruption"]} == {"none"}


def test_an_error_is_that_of_the_probe_on_the_corrupted_images(drifting_run: Path, measured: Path) -> None:
    """Corruption, severity, order and normalisation; here each image is corrupted and normalised by hand."""
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    run, seed = embedder.run, embedder.settings.seed
    images, train = (run.images(split) for split in ("test", "train"))
    chosen, of_train = (choose_images(len(each), 40, seed, each.split) for each in (images, train))
    known = clean_features(embedder, train, of_train, "cl", 2)["h"]
    probe = fitted(known, best_strength(known, seed))
    rows = pd.read_csv(measured / "robustness.csv")
    rows = rows[rows["arm"] == "cl"].set_index(["corruption", "severity"])["value"]
    assert len(rows) == 1 + len(SOME) * len(SEVERITIES)
    errors = []
    for name, severity in product(SOME, SEVERITIES):
        pixels = images.images_N3HW[chosen].permute(0, 2, 3, 1).numpy()
        bad = [corrupted(x, name, severity, seed=seed, image=n) for x, n in zip(pixels, chosen.tolist(), strict=True)]
        values = (torch.from_numpy(np.stack(bad)) / 255 - torch.tensor(images.mean)) / torch.tensor(images.std)
        with torch.no_grad():
            rows_nd = run.network("cl", 2)(values.permute(0, 3, 1, 2)[None].float())["embedding"][0]
        errors.append((probe.model.predict(probe.inputs(rows_nd)) != images.labels_N[chosen].numpy()).mean())
    assert [rows[case] for case in product(SOME, SEVERITIES)] == pytest.approx(errors)
    assert len({*errors}) > 5


def test_generated_images_are_those_of_their_index_and_severity_0_is_clean(drifting_run: Path) -> None:
    """A subset of the images must have the random numbers of the same images in the whole split."""
    run = open_run(drifting_run)
    images, chosen = run.images("test"), torch.tensor([3, 300])
    source = sources.find_source(None, sources.Sample(images, chosen, ""), 5, 0)
    for severity in (0, 2):
        found = source.images("shot_noise", severity)
        (pixels,) = source.pixels(found, "shot_noise", severity, 8, torch.device("cpu"))
        for each, number in zip(pixels.permute(0, 2, 3, 1).numpy(), chosen.tolist(), strict=True):
            clean = images.images_N3HW[number].permute(1, 2, 0).numpy()
            bad = corrupted(clean, "shot_noise", severity, seed=5, image=number) if severity else clean
            np.testing.assert_array_equal(each, bad)


def test_known_errors_are_not_computed_again(
    drifting_run: Path, measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second command reads all rows, and writes the same mean corruption errors."""
    before = (measured / "robustness_mce.csv").read_bytes()
    monkeypatch.setattr(robustness, "error_rates", lambda *_: pytest.fail("measured again"))
    base = ["--run-dir", str(drifting_run), "--output", str(measured), "--arms", "cl", "ce", "--num-images", "40"]
    assert main([*base, "--corruptions", *SOME]) == 0
    assert (measured / "robustness_mce.csv").read_bytes() == before
    assert (
        "mean corruption error (mCE) relative to cl, epoch 2: cl 1.000 (2 corruptions), ce " in capsys.readouterr().out
    )


def test_a_mean_of_one_corruption_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Means of different numbers of corruptions are not comparable."""
    rows = table({("cl", "own"): {"none": [0.2], "fog": [0.5] * 5}})
    rows = rows.assign(module="h").reindex(columns=list(SCHEMAS["robustness.csv"].columns))
    rows.to_csv(tmp_path / "robustness.csv", index=False)
    robustness.write_summary(tmp_path, "cl")
    assert "mean corruption error (mCE) relative to cl, epoch 1: cl 1.000 (1 corruption)" in capsys.readouterr().out


def table(errors: dict[tuple[str, str], dict[str, list[float]]]) -> pd.DataFrame:
    """Rows of robustness.csv by (arm, variant) and corruption, for the severities 1, 2, ...; `none` has one value."""
    rows: list[dict[str, Any]] = []
    for (arm, variant), of_arm in errors.items():
        for corruption, values in of_arm.items():
            for severity, value in enumerate(values, corruption != "none"):
                about = {"arm": arm, "variant": variant, "corruption": corruption, "severity": severity}
                rows.append({**about, "value": value, "epoch": 1, "split": "test", "source": "generated"})
    return pd.DataFrame(rows).assign(num_images=9, num_train_images=np.nan)


def test_mean_corruption_errors_equal_the_formula_by_hand() -> None:
    """A corruption with a missing severity does not count; a denominator of 0 gives no number."""
    cl = {"none": [0.1], "fog": [0.1, 0.2, 0.3, 0.4, 0.5], "snow": [0.2] * 5, "contrast": [0.1] * 5, "frost": [0.5] * 4}
    other = {name: [value / 2 for value in values] for name, values in cl.items()} | {"snow": [0.3] * 5}
    found = mean_corruption_errors(table({("cl", "linear_probe"): cl, ("x", "classifier"): other}), "cl")
    assert tuple(found) == SCHEMAS["robustness_mce.csv"].columns
    scores = found[found["arm"] == "x"].set_index(["metric", "corruption"])
    assert {*scores["reference_variant"]} == {"linear_probe"}
    assert {*scores["variant"]} == {"classifier"}
    value = scores["value"]
    assert {*scores.loc["ce"].index} == {"fog", "snow", "contrast"}
    assert [value["ce", name] for name in ("fog", "snow", "contrast")] == pytest.approx([0.5, 1.5, 0.5])
    assert value["mce", ""] == pytest.approx(2.5 / 3)
    assert value["error", "fog"] == pytest.approx(0.15)
    assert value["error", ""] == pytest.approx((0.15 + 0.3 + 0.05) / 3)
    assert value["relative_ce", "fog"] == pytest.approx((0.75 - 0.25) / (1.5 - 0.5))
    assert value["relative_ce", "snow"] == pytest.approx((1.5 - 0.25) / (1.0 - 0.5))
    assert np.isnan(value["relative_ce", "contrast"])  # it costs the reference nothing
    assert np.isnan(value["relative_mce", ""])
    assert {*scores[scores.index.get_level_values("corruption") == ""]["corruptions"]} == {3}
    of_itself = found[(found["arm"] == "cl") & (found["metric"] == "mce")]["value"]
    assert of_itself.tolist() == [1.0]
    assert mean_corruption_errors(table({("cl", "classifier"): cl}), "x").empty


def write_arrays(folder: Path, run: Path, names: tuple[str, ...] = ("contrast", "frost")) -> None:
    """As CIFAR-10-C; the images of severity s of `contrast` are those that are generated, `frost` is black."""
    images, seed = open_run(run).images("test"), open_run(run).settings.seed
    pixels = images.images_N3HW.permute(0, 2, 3, 1).numpy()
    bad = [corrupted(x, "contrast", s, seed=seed, image=n) for s in SEVERITIES for n, x in enumerate(pixels)]
    folder.mkdir()
    np.save(folder / "contrast.npy", np.stack(bad))
    np.save(folder / "frost.npy", np.zeros_like(np.stack(bad)))
    np.save(folder / "labels.npy", np.tile(images.labels_N.numpy(), 5).astype(np.uint8))


def test_images_of_a_folder_give_the_errors_of_equal_generated_images(
    drifting_run: Path, tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An array of the layout of CIFAR-10-C is read severity after severity, at the chosen images."""
    write_arrays(tmp_path / "c", drifting_run)
    few = {"arms": "ce", "num_images": 40, "corrupted_images": tmp_path / "c"}
    rows = robustness.compute(open_run(drifting_run), **few)  # type: ignore[arg-type]
    assert [*dict.fromkeys(rows["corruption"])] == ["none", "frost", "contrast"]
    assert {*rows["source"]} == {str((tmp_path / "c").resolve())}
    known = pd.read_csv(measured / "robustness.csv")
    known = known[(known["arm"] == "ce") & (known["module"] == "logits") & (known["corruption"] != "shot_noise")]
    assert rows[rows["corruption"] != "frost"]["value"].tolist() == pytest.approx(known["value"].tolist())
    assert rows["images_digest"].nunique() == 1 + 5 + 1  # clean, five contrasts, black
    assert "without gaussian_noise, shot_noise" in capsys.readouterr().out
    images = open_run(drifting_run).images("test")
    assert sources.find_source(tmp_path / "c", sources.Sample(images, torch.arange(3), ""), 0, 0).corruptions == (
        *("frost", "contrast"),
    )


def test_image_files_of_a_folder_are_those_of_the_test_split(tmp_path: Path) -> None:
    """As ImageNet-C, also in folders of groups: class after class, with the labels of the run."""
    labels = torch.tensor([0, 0, 1])
    clean = sources.ImageDataset("x", "test", torch.zeros(3, 3, 8, 8).byte(), labels, ("a", "b"), (0, 0, 0), (1, 1, 1))
    for severity in SEVERITIES:
        for place, (name, file) in enumerate([("a", "1.png"), ("a", "2.png"), ("b", "1.png"), ("c", "1.png")]):
            path = tmp_path / "noise/impulse_noise" / str(severity) / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (10 * place, severity, 0)).save(path)
    source = sources.find_source(tmp_path, sources.Sample(clean, torch.tensor([0, 2]), ""), 0, 0)
    assert source.corruptions == ("impulse_noise",)
    found = source.images("impulse_noise", 4)
    (pixels,) = source.pixels(found, "impulse_noise", 4, 8, torch.device("cpu"))
    assert pixels[:, :2, 0, 0].tolist() == [[0, 4], [20, 4]]
    (tmp_path / "noise/impulse_noise/4/b/1.png").rename(tmp_path / "noise/impulse_noise/4/a/3.png")
    with pytest.raises(ValueError, match=r"corrupted_images: .*b"):
        source.images("impulse_noise", 4)
    Image.new("RGB", (8, 8)).save(tmp_path / "noise/impulse_noise/4/b/9.png")
    with pytest.raises(ValueError, match="4 images of the run's classes; its test split has 3"):
        source.images("impulse_noise", 4)


def damage(folder: Path, kind: str) -> None:
    """Write something else over one of the files."""
    path = folder / ("labels.npy" if kind in ("labels", "gone") else "contrast.npy")
    found = np.load(path)
    if kind == "labels":
        found[17] += 1
        np.save(path, found)
    elif kind == "short":
        np.save(path, found[:-1])
    elif kind == "text":
        path.write_text("text")
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("labels", "labels.npy: image 17 has label "),
        ("gone", "no file '"),
        ("short", "contrast.npy: shape (1784, 8, 8, 3) of uint8; expected (1785, S, S, 3)"),
        ("text", "contrast.npy: not a file of numpy's format .npy"),
    ],
)
def test_a_folder_of_other_images_is_refused(
    drifting_run: Path, tmp_path: Path, kind: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the file; errors on other images than the run's would look like results."""
    write_arrays(tmp_path / "c", drifting_run)
    damage(tmp_path / "c", kind)
    options = ["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), "--arms", "ce", "--num-images", "4"]
    assert main([*options, "--corrupted-images", str(tmp_path / "c")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("coupled robustness: --corrupted-images: ")
    assert part in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--corruptions", "rain"], "--corruptions: got 'rain'; allowed are gaussian_noise, "),
        (["--severities", "6"], "argument --severities: invalid choice: 6"),
        (["--reference", "x"], "--reference: the run has no arm 'x' (arms: cl, nscl, scl, ce)"),
        (["--corrupted-images", "nowhere"], "--corrupted-images: 'nowhere' holds no corrupted images; expected "),
    ],
)
def test_a_wrong_option_is_one_line(
    drifting_run: Path, tmp_path: Path, options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, with the option, its value and what is allowed."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled robustness: {part}")
    assert error.count("\n") == 1


def test_a_probe_without_two_classes_has_empty_cells_and_a_reason(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all tables: the other arms are measured, and the next command does not try again."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "cl", "ce", "--num-images", "1"]
    assert main([*base, "--corruptions", "contrast"]) == 0
    said = capsys.readouterr().out
    assert said.count("epoch 2, cl h linear_probe: no value: train has fewer than 2 classes") == 1
    assert "cl undefined (1 corruption)" in said
    rows = pd.read_csv(tmp_path / "robustness.csv")
    assert rows.groupby("arm")["value"].count().to_dict() == {"cl": 0, "ce": 6}
    assert len(rows) == 12
    assert corruption_errors(FigureTables(tmp_path, "cl", arm_styles([*tiny.TINY["arms"]]), [])).axes
    monkeypatch.setattr(robustness, "scorer", lambda *_: pytest.fail("measured again"))
    assert main([*base, "--corruptions", "contrast"]) == 0


def test_the_figure_shows_means_over_corruptions_and_each_corruption(measured: Path) -> None:
    """The error for each severity, from 0, and the corruption errors; the own classifier where an arm has one."""
    figure = corruption_errors(FigureTables(measured, "cl", arm_styles([*tiny.TINY["arms"]]), []))
    rows = pd.read_csv(measured / "robustness.csv")
    curves = {str(each.get_label()): each.get_ydata() for each in figure.axes[0].lines}
    assert [*curves] == ["cl", "ce"]
    own = rows[(rows["arm"] == "ce") & (rows["module"] == "logits")]
    np.testing.assert_allclose(curves["ce"], own.groupby("severity")["value"].mean())
    assert [each.get_text() for each in figure.axes[1].get_yticklabels()] == ["shot_noise", "contrast", "mean"]
