"""collapse: its rows, what it reports about a collapsed arm, predictors, and that nothing is computed twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coupled.analysis import collapse
from coupled.analysis.collapse import main
from coupled.analysis.representations.collapse_measures import of_predictor, of_rows
from coupled.analysis.representations.duality_measures import duality
from coupled.analysis.representations.embeddings import Embedder, Sample
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.run import open_run, open_store, read_description
from coupled.analysis.schemas import SCHEMAS

Read = Callable[[Path], list[dict[str, str]]]
NewRun = Callable[..., Path]
OPTIONS = ["--split", "test", "--num-images", "100"]


@pytest.fixture
def run(new_run: NewRun) -> Path:
    """Epochs 0 and 1: `cl` unchanged, `scl` with all projections at one point, `ce` with a linear predictor."""
    folder = new_run(epochs=(0, 1), arms=("cl",))
    store = open_store(folder, read_description(folder))
    for epoch in (0, 1):
        tensors = store.read("cl", epoch)
        far = {"projector.4.running_mean": tensors["projector.4.running_mean"] - 1e4 * torch.eye(8)[0]}
        store.write("scl", epoch, tensors | far, step=epoch, metadata={})
        store.write("ce", epoch, tensors | predictor(epoch), step=epoch, metadata={})
    return folder


def predictor(epoch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    return {"predictor.weight": torch.randn(8, 8, generator=generator)}


def test_a_collapsed_arm_is_reported_and_marked(run: Path, table: Read, capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden collapse would pass for a bad seed; the untrained network is not reported."""
    assert main(["--run-dir", str(run), *OPTIONS]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "has collapsed" in line]
    assert any(line.startswith("arm scl has collapsed at epoch 1: z of test is a point (spread ") for line in said)
    assert not any("epoch 0" in line for line in said)
    rows = table(run / "analysis/collapse.csv")
    assert tuple(rows[0]) == SCHEMAS["collapse.csv"].columns
    marks = {(r["arm"], r["module"], r["epoch"]): r["collapsed"] for r in rows}
    assert marks["scl", "z", "1"] == marks["scl", "z", "0"] == "point"
    assert marks["cl", "h", "1"] == "no"
    assert marks["ce", "predictor", "1"] == ""
    assert len(said) == sum(mark in ("point", "line") and key[2] == "1" for key, mark in marks.items())
    assert {(r["num_images"], r["split"]) for r in rows} == {("100", "test")}


def test_rows_hold_the_values_of_the_measures(run: Path, table: Read) -> None:
    """Layers, epochs, and clean images and views must not be mixed up."""
    assert main(["--run-dir", str(run), "--split", "test"]) == 0
    rows = {
        (r["epoch"], r["arm"], r["module"], r["metric"], r["variant"] or int(r["component"])): r
        for r in table(run / "analysis/collapse.csv")
        for r in table(run / "analysis/collapse.csv")
    }
    embedder = Embedder(open_run(run), torch.device("cpu"))
    images = embedder.run.images("test")
    every = torch.arange(len(images))
    clean = clean_features(embedder, images, every, "ce", 1)
    for layer in ("h", "z"):
        for (metric, detail), value in of_rows(clean[layer].rows_ND).items():
            assert float(rows["1", "ce", layer, metric, detail]["value"]) == pytest.approx(value, rel=1e-4, abs=1e-7)
    views = view_features(embedder, images, every, "ce", 1)
    with torch.no_grad():
        inputs = embedder.network("ce", 1).projector(views["h"].flatten(0, 1))
    torch.testing.assert_close(torch.nn.functional.normalize(inputs, dim=1), views["z"].flatten(0, 1))
    for (metric, detail), value in of_predictor(inputs, predictor(1)["predictor.weight"]).items():
        found = float(rows["1", "ce", "predictor", metric, detail]["value"])
        assert found == pytest.approx(value, rel=1e-3, abs=1e-5)
    with torch.no_grad():
        before = embedder.network("ce", 1).projector(clean["h"].rows_ND)
    for layer, of_layer in (("h", clean["h"].rows_ND), ("z", before)):
        for (metric, detail), value in duality(of_layer).items():
            assert float(rows["1", "ce", layer, metric, detail]["value"]) == pytest.approx(value, rel=1e-3)
    distance = (views["z"][0] - views["z"][1]).square().sum(1).mean().item()
    assert float(rows["1", "ce", "z", "alignment", "alpha=2"]["value"]) == pytest.approx(distance, rel=1e-4)


def test_a_second_call_computes_only_missing_rows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a call that was cut off within the rows of an arm."""
    path = run / "analysis/collapse.csv"
    assert main(["--run-dir", str(run), *OPTIONS, "--epochs", "1", "--arms", "cl", "ce"]) == 0
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    calls: list[tuple[str, int]] = []
    usual = collapse.measure

    def counted(embedder: Embedder, sample: Sample, arm: str, epoch: int) -> object:
        calls.append((arm, epoch))
        return usual(embedder, sample, arm, epoch)

    monkeypatch.setattr(collapse, "measure", counted)
    assert main(["--run-dir", str(run), *OPTIONS, "--epochs", "1", "--arms", "cl", "ce"]) == 0
    assert path.read_text() == whole
    assert calls == [("ce", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "byol"], "--arms: the run has no arm 'byol' (arms: cl, scl, ce)"),
        (["--epochs", "7"], "--epochs: arm 'cl' has no snapshot of epoch 7"),
    ],
)
def test_bad_input_is_one_line(run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
