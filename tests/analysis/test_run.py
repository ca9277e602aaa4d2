"""The Run object: its methods return what its folder contains and what the programs write."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import timm
import torch

import coupled
from coupled.analysis import alignment, bounds, collapse, losses, quality, weight_gap
from coupled.analysis.representations import intervals
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.run import Run, open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.config.command_line import Parser
from coupled.storage.run_description import read_run_json, write_run_json

NewRun = Callable[..., Path]
PROGRAMS = {"weight_gap": weight_gap, "alignment": alignment, "quality": quality}
PROGRAMS |= {"collapse": collapse, "losses": losses, "bounds": bounds}
FEW: dict[str, Any] = {"num_images": 48, "epochs": "0,2"}
CALLS: list[tuple[str, dict[str, Any], list[str]]] = [  # program, options of its method, tables with these rows
    ("weight_gap", {}, ["weight_gap.csv"]),
    ("weight_gap", {"compare": "all", "epochs": 2, "align": "permutation"}, ["weight_gap_permutation.csv"]),
    ("alignment", {**FEW, "split": "test", "layers": ["layer1", "h"]}, ["test_alignment.csv"]),
    ("alignment", {**FEW, "metrics": "rsa_spearman", "confidence": 20}, ["train_alignment.csv", "test_alignment.csv"]),
    ("alignment", {**FEW, "split": "test", "cross_layer": True}, ["test_cross_layer.csv"]),
    ("quality", {**FEW, "metrics": ["few_shot", "cdnv", "knn"], "arms": ["scl", "cl"]}, ["quality.csv"]),
    ("collapse", {**FEW, "split": ["test"]}, ["collapse.csv"]),
    ("losses", {**FEW, "temperatures": [0.1]}, ["losses.csv"]),
    ("losses", {**FEW, "split": "train", "table": "loss_gap"}, ["loss_gap.csv"]),
]


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "BLOCKS", 8)


def arguments(options: dict[str, Any]) -> list[str]:
    """Convert a method's options to command line arguments."""
    words: list[str] = []
    for name, value in options.items():
        if name != "table":
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


@pytest.mark.parametrize(("name", "options", "tables"), CALLS)
def test_a_method_returns_the_rows_that_its_program_writes(
    drifting_run: Path, tmp_path: Path, name: str, options: dict[str, Any], tables: list[str]
) -> None:
    """Values are equal bit for bit; numbers are numbers and an empty cell is NaN."""
    assert PROGRAMS[name].main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *arguments(options)]) == 0
    written = pd.concat([read_table(tmp_path / table) for table in tables], ignore_index=True)
    found = getattr(open_run(drifting_run), name)(**options)
    assert tuple(found.columns) == SCHEMAS[tables[0]].columns
    place = [column for column in SCHEMAS[tables[0]].key if column in found]
    both = [frame.sort_values(place, kind="stable", ignore_index=True) for frame in (found, written)]
    pd.testing.assert_frame_equal(*both, check_exact=True)
    if len(tables) == 1:
        pd.testing.assert_frame_equal(found, written, check_exact=True)
    assert found["epoch"].dtype == "int64"
    assert not (drifting_run / "analysis").exists()


def test_the_bounds_equal_those_of_the_program(measured_run: Path, tmp_path: Path) -> None:
    """They need the tables of other programs, which are in the run folder."""
    for table in ("quality.csv", "weight_gap.csv"):
        (tmp_path / table).write_bytes((measured_run / "analysis" / table).read_bytes())
    given = ["--run-dir", str(measured_run), "--output", str(tmp_path), "--split", "train", "--num-images", "48"]
    assert bounds.main(given) in (0, 1)
    before = {path: path.stat().st_mtime_ns for path in measured_run.rglob("*")}
    found = open_run(measured_run).bounds(split="train", num_images=48)
    pd.testing.assert_frame_equal(found, read_table(tmp_path / "bounds.csv"), check_exact=True)
    assert {"a_posteriori", "proposition_1", "exponential_shape"} <= set(found["bound"])
    assert {path: path.stat().st_mtime_ns for path in measured_run.rglob("*")} == before


def test_a_bound_is_updated_when_its_source_table_changes(measured_run: Path, tmp_path: Path) -> None:
    """A changed measured value replaces the old one without a pass over images."""
    quality = pd.read_csv(measured_run / "analysis/quality.csv", dtype=str)
    given = [
        "--run-dir",
        str(measured_run),
        "--output",
        str(tmp_path),
        "--split",
        "test",
        "--num-images",
        "16",
        "--epochs",
        "0",
    ]
    for value in ("0.25", "0.5"):
        quality.loc[quality["metric"] == "few_shot", "value"] = value
        quality.to_csv(tmp_path / "quality.csv", index=False)
        assert bounds.main(given) == 0
        found = read_table(tmp_path / "bounds.csv").query("task == 'all'")
        assert len(found)
        assert set(found["measured"]) == {1 - float(value)}


def test_a_refused_program_leaves_no_table(new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would look complete."""
    run = new_run(epochs=(0,), arms=("cl",))
    content = read_run_json(run)
    write_run_json(run, {**content, "dataset": {**content["dataset"], "test_digest": "0"}})
    assert collapse.main(["--run-dir", str(run), "--output", str(tmp_path / "out")]) == 2
    assert "the test split of 'digits' is not the one of the run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]


@pytest.mark.parametrize("module", PROGRAMS.values(), ids=PROGRAMS)
def test_every_option_of_a_program_is_an_option_of_its_method(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except those that open the run and name the output folder."""
    seen: list[Parser] = []
    monkeypatch.setattr(module, "run_program", lambda program, options, arguments: seen.append(options) or 0)  # type: ignore[func-returns-value]
    module.main([])
    known = inspect.signature(module.compute).parameters
    options = {action.dest for action in seen[0]._actions} - {"help", "run", "output", "allow_code"}
    assert options <= set(known)
    assert "Example:" in module.compute.__doc__
    assert all(f"        {name}: " in module.compute.__doc__ for name in known)


def test_the_documented_attributes_and_methods_of_a_run(drifting_run: Path) -> None:
    """The examples of the README, and the attributes of a run."""
    run = coupled.open_run(drifting_run)
    assert isinstance(run, coupled.Run)
    gaps = run.weight_gap(compare=["nscl"])
    assert set(gaps["arm"]) == {"nscl"}
    scores = run.alignment(split="test", layers=["h"], num_images=64)
    assert set(scores["module"]) == {"h"}
    encoder = run.encoder("nscl", epoch=2)
    assert isinstance(encoder, timm.models.resnet.ResNet)
    assert not encoder.training
    assert (run.name, run.arms, run.reference, run.epochs()) == ("drift", ["cl", "nscl", "scl", "ce"], "cl", [0, 1, 2])
    assert run.settings.seed == 5
    assert "log_digests.jsonl: expected one line per save" in run.verify()[0]


def test_an_encoder_has_the_weights_of_its_snapshot(drifting_run: Path) -> None:
    """It gives the embeddings that the programs measure, also in a plain timm model."""
    run = open_run(drifting_run)
    encoder = run.encoder("scl", 1)
    stored = {name.removeprefix("encoder."): t for name, t in run.state_dict("scl", 1).items() if "encoder." in name}
    assert encoder.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in encoder.state_dict().items())
    images = run.images("test")
    embedder = Embedder(run, torch.device("cpu"))
    (batch,) = embedder.outputs(images, torch.arange(20), ["scl"], 1)
    from coupled.stream.augment import clean_views

    views_B3SS = clean_views(images.images_N3HW[:20], run.settings.image_size, images.mean, images.std)
    with torch.no_grad():
        assert torch.equal(encoder(views_B3SS), batch["scl", "h"])
        assert torch.equal(run.network("scl", 1)(views_B3SS[None])["projection"][0], batch["scl", "z"])


def test_networks_of_two_epochs_share_no_weights(drifting_run: Path) -> None:
    """Loading the second must not change the first."""
    run = open_run(drifting_run)
    first = run.encoder("ce", 0)
    before = first.conv1.weight.clone()
    assert not torch.equal(run.encoder("ce", 2).conv1.weight, before)
    assert torch.equal(first.conv1.weight, before)


def test_a_method_restores_the_switches_of_torch(drifting_run: Path) -> None:
    """A notebook keeps its settings, also after an error."""
    run = open_run(drifting_run)
    switches = (torch.are_deterministic_algorithms_enabled, torch.get_float32_matmul_precision, torch.get_num_threads)
    torch.set_float32_matmul_precision("high")
    before = [switch() for switch in switches]
    try:
        run.collapse(arms="cl", epochs=0, split="test", num_images=16)
        assert [switch() for switch in switches] == before
        with pytest.raises(ValueError, match="the test split"):
            changed(run).collapse(arms="cl", epochs=0, split="test", num_images=16)
        assert [switch() for switch in switches] == before
    finally:
        torch.set_float32_matmul_precision("highest")


def changed(run: Run) -> Run:
    run.description["dataset"] = {**run.description["dataset"], "test_digest": "0"}
    return run


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        (
            "weight_gap",
            {"compare": ["nslc"]},
            "the run has no arm 'nslc' (arms: cl, nscl, scl, ce)",
        ),
        (
            "weight_gap",
            {"align": "rotation"},
            "align: got 'rotation'; allowed are none, permutation",
        ),
        ("alignment", {"split": "tests"}, "split: got 'tests'; allowed are train, test"),
        ("alignment", {"layers": "layer9"}, "the encoder has no module 'layer9'"),
        ("alignment", {"device": "gpu"}, "device: got 'gpu'; allowed are auto, cpu, cuda"),
        ("quality", {"layers": ["layer1"]}, "layers: got 'layer1'; allowed are h, z"),
        ("quality", {"split": "train", "metrics": "knn"}, "knn can only be measured on test"),
        ("collapse", {"epochs": [0, 9]}, "arm 'cl' has no snapshot of epoch 9 (epochs: 0-2)"),
        ("losses", {"temperatures": [0]}, "temperatures: got 0; a number above 0 is allowed"),
        ("losses", {"table": "gap"}, "table: got 'gap'; allowed are losses, loss_gap"),
    ],
)
def test_an_invalid_option_is_refused_with_the_allowed_values(
    drifting_run: Path, name: str, options: dict[str, Any], part: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        getattr(open_run(drifting_run), name)(**options)


def test_open_run_without_a_folder_opens_the_newest_run(
    new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run("own", epochs=(0,), arms=("cl",))
    monkeypatch.chdir(tmp_path)
    run = open_run()
    assert run.path == Path("runs/own")
    assert repr(run) == "Run('runs/own', arms: cl)"
    with pytest.raises(ValueError, match=r"no such folder 'nowhere'; the newest under runs/: runs/own"):
        open_run("nowhere")
