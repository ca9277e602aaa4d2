"""weight_gap: which tensors have rows, when rows are written, and the program in a subprocess."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from coupled.analysis.run import open_store, read_description
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.weight_gap import comparable_layers, main
from coupled.analysis.weights.channel_matching import channel_axes, permuted
from coupled.metrics.weights import squares, stage, state
from coupled.storage.snapshots import SnapshotStore

PROGRAM = Path(__file__).parents[2] / "analysis" / "weight_gap.py"
STAGES = ("layer1", "layer2", "layer3", "layer4")
Read = Callable[[Path], list[dict[str, str]]]
NewRun = Callable[..., Path]


def place(row: dict[str, str]) -> str:
    """The tensor, or module and aggregate, of a row."""
    return row["tensor"] or "/".join(filter(None, (row["module"], row["aggregate"])))


def test_layers_that_cannot_be_compared_are_named() -> None:
    """Arms with different encoders must not be compared over the tensors that happen to match."""
    ours = {"encoder.a.weight": (2, 3), "projector.0.weight": (4, 4), "projector.1.weight": (4,)}
    assert comparable_layers(ours, {"encoder.a.weight": (2, 3), "projector.0.weight": (4, 4)}) == list(ours)[:2]
    with pytest.raises(ValueError, match=r"'encoder\.b\.weight' is in only one"):
        comparable_layers(ours, {**ours, "encoder.b.weight": (1,)})
    with pytest.raises(ValueError, match=r"'encoder\.a\.weight' has shape \(2, 3\) in one and \(3, 2\)"):
        comparable_layers(ours, {**ours, "encoder.a.weight": (3, 2)})


def test_every_floating_tensor_of_encoder_and_projector_has_a_row(
    drifting_run: Path, tmp_path: Path, table: Read
) -> None:
    """`ce` has a classifier that the others lack: it is not compared; the rest of `ce` is."""
    assert main(["--run-dir", str(drifting_run), "--compare", "ce", "--epochs", "2", "--output", str(tmp_path)]) == 0
    rows = {place(row): row for row in table(tmp_path / "weight_gap.csv")}
    tensors = SnapshotStore(drifting_run / "snapshots").read("ce", 2)
    floating = {n for n, t in tensors.items() if t.is_floating_point() and not n.startswith("classifier.")}
    stages = {f"{name}/{kind}" for name in ("stem", *STAGES) for kind in ("mean", "sum", "global")}
    assert set(rows) == floating | {"mean", "sum", "global"} | stages
    weights = [rows[name] for name in floating if name.startswith("encoder.") and name.endswith(".weight")]
    assert float(rows["mean"]["gap"]) == pytest.approx(sum(float(r["gap"]) for r in weights) / len(weights), rel=1e-12)
    assert float(rows["sum"]["gap"]) == pytest.approx(sum(float(r["gap"]) for r in weights), rel=1e-12)
    assert int(rows["global"]["parameters"]) == sum(int(r["parameters"]) for r in weights)
    for name in ("stem", *STAGES):
        of_stage = [float(row["gap"]) for row in weights if stage(row["tensor"]) == name]
        assert float(rows[f"{name}/sum"]["gap"]) == pytest.approx(sum(of_stage), rel=1e-12)
    assert sum(float(rows[f"{name}/sum"]["gap"]) for name in ("stem", *STAGES)) == pytest.approx(
        float(rows["sum"]["gap"]), rel=1e-12
    )
    assert tuple(rows["mean"]) == SCHEMAS["weight_gap.csv"].columns
    assert {row["kind"] for row in rows.values()} == {*("conv", "linear", "norm_scale", "norm_shift", "running", "")}
    assert {row["aggregate"] for row in rows.values() if not row["kind"]} == {"mean", "sum", "global"}
    assert rows["encoder.layer2.0.bn1.bias"]["module"] == "layer2.0.bn1"
    assert rows["layer2/mean"]["module"] == "layer2"


def test_rows_join_with_alignment_rows_on_the_module_name(measured_run: Path) -> None:
    """Joined by name only: stages, and modules of single tensors that alignment measured."""
    gaps, scores = (pd.read_csv(measured_run / f"analysis/{name}.csv") for name in ("weight_gap", "test_alignment"))
    both = gaps.merge(scores[scores["metric"] == "cka"], on=["epoch", "reference", "arm", "module"])
    assert set(both["module"]) == {"stem", *STAGES}
    assert set(both["aggregate"]) == {"mean", "sum", "global"}


def test_all_gaps_are_zero_at_the_shared_start_and_grow(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Epoch 0 is the shared initialisation; the gap is exactly 0 there."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path)]) == 0
    rows = table(tmp_path / "weight_gap.csv")
    assert {(row["arm"], row["epoch"]) for row in rows} == {(a, e) for a in ("nscl", "scl", "ce") for e in "012"}
    assert {row["gap"] for row in rows if row["epoch"] == "0"} == {"0.0"}
    for name in ("mean", "sum", "global"):
        gaps = {(r["arm"], r["epoch"]): float(r["gap"]) for r in rows if place(r) == name}
        assert 0 < gaps["nscl", "1"] < gaps["nscl", "2"]
        assert gaps["nscl", "2"] < gaps["scl", "2"] < gaps["ce", "2"]


def test_a_second_call_computes_only_missing_epochs(new_run: NewRun, table: Read) -> None:
    """Existing rows are not recomputed, so a snapshot that was deleted since and is not needed does no harm."""
    run = new_run(epochs=(0, 1, 2, 3))
    path = run / "analysis" / "weight_gap.csv"
    assert main(["--run-dir", str(run), "--compare", "nscl", "--epochs", "0,1"]) == 0
    first = path.read_bytes()
    (run / "snapshots/nscl/epoch_0001.safetensors").write_bytes(b"gone")
    assert main(["--run-dir", str(run), "--compare", "nscl", "--epochs", "0,1,3"]) == 0
    assert path.read_bytes().startswith(first)
    assert {row["epoch"] for row in table(path)} == {"0", "1", "3"}
    assert main(["--run-dir", str(run), "--compare", "nscl", "--epochs", "0,1,3"]) == 0
    assert len(table(path)) == 3 * len(first.splitlines()[1:]) // 2


def test_drifts_and_updates_equal_those_of_the_snapshots(new_run: NewRun, tmp_path: Path, table: Read) -> None:
    """Drift from epoch 0, update since the previous snapshot: 1 -> 4, also if only epoch 4 is requested."""
    run = new_run(epochs=(0, 1, 4))
    layer = "encoder.layer2.0.conv1.weight"
    assert main(["--run-dir", str(run), "--compare", "ce", "--epochs", "4", "--output", str(tmp_path / "out")]) == 0
    row = {r["tensor"]: r for r in table(tmp_path / "out/weight_gap.csv")}[layer]
    past = {
        arm: [load_file(run / f"snapshots/{arm}/epoch_000{epoch}.safetensors")[layer] for epoch in (4, 0, 1)]
        for arm in ("cl", "ce")
    }
    expected = squares(state(*past["cl"]), state(*past["ce"])).gap()
    assert [float(row[name]) for name in expected._fields] == pytest.approx(list(expected), rel=1e-12)
    assert -1 < float(row["update_cosine"]) < 1
    assert main(["--run-dir", str(run), "--compare", "ce"]) == 0
    every = table(run / "analysis/weight_gap.csv")
    assert next(r for r in every if (r["epoch"], r["tensor"]) == ("4", layer)) == row
    start = next(r for r in every if (r["epoch"], r["tensor"]) == ("0", layer))
    assert (start["reference_drift"], start["angle"], start["update_cosine"]) == ("0.0", "0.0", "")


def test_unit_filters_remove_the_scale_of_each_filter(new_run: NewRun, table: Read) -> None:
    """Batch norm makes that scale arbitrary; a rescaled arm must not have a gap. Vectors are compared as they are."""
    run = new_run(epochs=(0, 1))
    store = open_store(run, read_description(run))
    tensors = {arm: store.read(arm, 1) for arm in store.arms()}
    conv, scale = "encoder.layer1.0.conv1.weight", "encoder.layer1.0.bn1.weight"
    factors_F = torch.arange(1.0, len(tensors["cl"][conv]) + 1)
    tensors["nscl"] = tensors["cl"] | {conv: tensors["cl"][conv] * factors_F[:, None, None, None]}
    tensors["scl"][conv][0] = 0
    store.cut(0)
    for arm, weights in tensors.items():
        store.write(arm, 1, weights, step=1, metadata={})
    command = ["--run-dir", str(run), "--compare", "nscl", "scl"]
    assert main([*command, "--unit-filters"]) == 0
    rows = {(r["arm"], r["tensor"]): r for r in table(run / "analysis/weight_gap_filters.csv") if r["epoch"] == "1"}
    assert not (run / "analysis/weight_gap.csv").exists()
    assert float(rows["nscl", conv]["gap"]) < 1e-7
    assert main(command) == 0
    plain = {(r["arm"], r["tensor"]): r for r in table(run / "analysis/weight_gap.csv") if r["epoch"] == "1"}
    assert float(plain["nscl", conv]["gap"]) > 0.1
    assert rows["scl", scale] == plain["scl", scale]
    one, other = ([filters / (filters.norm() or 1) for filters in tensors[arm][conv].double()] for arm in ("cl", "scl"))
    distance = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True)) ** 0.5
    norms = [sum(float(each.square().sum()) for each in filters) ** 0.5 for filters in (one, other)]
    assert float(rows["scl", conv]["gap"]) == pytest.approx(2 * distance / sum(norms), rel=1e-9)


def test_all_compares_every_pair_and_each_pair_as_if_alone(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Six pairs of four arms; the sums that pairs share must not be mixed up."""
    options = ["--run-dir", str(drifting_run), "--epochs", "2", "--output"]
    assert main([*options, str(tmp_path / "all"), "--compare", "all"]) == 0
    rows = table(tmp_path / "all/weight_gap.csv")
    pairs = list(dict.fromkeys((r["reference"], r["arm"]) for r in rows))
    assert pairs == [*(("cl", a) for a in ("nscl", "scl", "ce")), ("nscl", "scl"), ("nscl", "ce"), ("scl", "ce")]
    assert main([*options, str(tmp_path / "one"), "--compare", "ce", "--reference", "scl"]) == 0
    assert table(tmp_path / "one/weight_gap.csv") == [r for r in rows if (r["reference"], r["arm"]) == ("scl", "ce")]


def test_align_moves_no_channel_after_a_shared_start(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Early divergence is not a permutation: the numbers equal those without --align."""
    options = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--epochs", "0,2", "--compare", "nscl", "ce"]
    assert main(options) == 0
    assert main([*options, "--align", "permutation"]) == 0
    plain, aligned = (table(tmp_path / name) for name in ("weight_gap.csv", "weight_gap_permutation.csv"))
    assert {row.pop("moved") for row in aligned} == {"0"}
    assert aligned == plain


def test_align_removes_the_gap_of_an_arm_with_permuted_channels(new_run: NewRun, table: Read) -> None:
    """Divergence by symmetry alone; drift and update do not depend on the order of channels."""
    run = new_run(epochs=(0, 1), arms=("cl",))
    store = open_store(run, read_description(run))
    for epoch in (0, 1):
        tensors = store.read("cl", epoch)
        axes = channel_axes({n: tuple(t.shape) for n, t in tensors.items() if t.is_floating_point()})
        sizes = {g: tensors[n].shape[i] for n, groups in axes.items() for i, g in enumerate(groups) if g}
        orders = {group: torch.arange(size).roll(1) for group, size in sizes.items()}
        shuffled = {n: permuted(t, axes.get(n, ()), orders) for n, t in tensors.items()}
        store.write("shuffled", epoch, shuffled, step=epoch, metadata={})
    assert main(["--run-dir", str(run)]) == 0
    assert main(["--run-dir", str(run), "--align", "permutation"]) == 0
    plain, aligned = (
        {(r["epoch"], place(r)): r for r in table(run / "analysis" / name)}
        for name in ("weight_gap.csv", "weight_gap_permutation.csv")
    )
    assert {float(row["gap"]) for row in aligned.values()} == {0.0}
    assert {row["moved"] for row in aligned.values()} == {str(sum(sizes.values()))}
    assert float(plain["1", "global"]["gap"]) > 0.5
    for key, row in aligned.items():
        assert float(row["arm_drift"]) == pytest.approx(float(plain[key]["arm_drift"]), rel=1e-12)
    assert float(aligned["1", "global"]["update_cosine"]) == pytest.approx(1, abs=1e-12)


def test_the_growth_fits_are_rewritten_with_more_epochs(new_run: NewRun, table: Read) -> None:
    """At least four epochs are needed; a later call has more of them."""
    run = new_run(epochs=(0, 1, 2, 3, 4, 5))
    path = run / "analysis/weight_gap_growth.csv"
    assert main(["--run-dir", str(run), "--compare", "nscl", "ce", "--epochs", "0:2"]) == 0
    assert table(path) == []
    assert main(["--run-dir", str(run), "--compare", "nscl", "ce"]) == 0
    rows = table(path)
    assert [(r["arm"], r["model"]) for r in rows] == [
        (arm, model) for arm in ("nscl", "ce") for model in ("early", "exponential", "saturation")
    ]
    assert {r["points"] for r in rows if r["model"] != "early"} == {"6"}
    before = path.read_bytes()
    assert main(["--run-dir", str(run), "--compare", "nscl", "ce"]) == 0
    assert path.read_bytes() == before


def test_a_truncated_table_is_completed(new_run: NewRun) -> None:
    """Killed in the middle of a row: the rest of that epoch is written, nothing twice."""
    run = new_run(epochs=(0, 1))
    path = run / "analysis" / "weight_gap.csv"
    assert main(["--run-dir", str(run)]) == 0
    whole = path.read_bytes()
    for cut in (10, len(whole) // 3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        assert main(["--run-dir", str(run)]) == 0
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.slow
def test_weight_gap_imports_no_model_and_no_dataset(new_run: NewRun) -> None:
    """It must run on a machine with snapshots only."""
    code = (
        "import sys; from coupled.analysis.weight_gap import main; status = main(sys.argv[1:]);"
        "sys.exit(status or [m for m in sys.modules if m in ('timm', 'torchvision', 'coupled.models.network')] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--run-dir", new_run(epochs=(0,))], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--compare", "nslc"], "--compare: the run has no arm 'nslc' (arms: cl, nscl, scl, ce)"),
        (["--compare", "cl"], "--compare: 'cl' is the reference (other arms: nscl, scl, ce)"),
        (["--reference", "xx"], "--reference: the run has no arm 'xx' (arms: cl, nscl, scl, ce)"),
        (["--epochs", "0,7"], "--epochs: arm 'cl' has no snapshot of epoch 7 (epochs: 0-2)"),
        (["--epochs", "0:two"], "--epochs: got '0:two'; allowed is"),
        (["--epochs", "2:0"], "--epochs: got '2:0'"),
        (["--align", "permutation", "--unit-filters"], "--unit-filters: not with align=permutation"),
        (["--align", "x"], "argument --align: invalid choice: 'x' (choose from "),
        (["--compare", "nscl", "--compare", "scl"], "--compare: given twice; give it once, with all its values"),
        (["--compare"], "argument --compare: expected at least one argument"),
        (["--ouput", "x"], "unrecognized arguments: --ouput"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """The line names the option, the value and what exists."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.startswith("coupled weight-gap: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_missing_snapshot_is_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the path, no traceback of safetensors, and the epochs before it are kept."""
    run = new_run()
    path = run / "snapshots/scl/epoch_0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["--run-dir", str(run)]) == 2
    assert str(path) in capsys.readouterr().err
    assert b"\n0,cl,ce,,,global," in (run / "analysis/weight_gap.csv").read_bytes()
    path.unlink()
    assert main(["--run-dir", str(run)]) == 2
    assert f"{path}: the manifest lists this snapshot, but the file is missing" in capsys.readouterr().err


def test_every_digest_is_computed_once_and_beside_the_sums(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, hashing and comparing one after another leaves all cores but one idle."""
    run, hashed = new_run(), list[tuple[str, bool]]()
    digest = hashlib.file_digest

    def counted(file: BufferedReader, algorithm: Callable[[], "hashlib._Hash"]) -> "hashlib._Hash":
        hashed.append((file.name, threading.current_thread() is threading.main_thread()))
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert main(["--run-dir", str(run)]) == 0
    files = sorted(map(str, (run / "snapshots").rglob("*.safetensors")))
    assert sorted(hashed) == [(file, False) for file in files]


def test_rows_of_other_snapshots_are_computed_again(new_run: NewRun, table: Read) -> None:
    """After retraining into the same folder, changed rows are recomputed and fits use the newest rows."""
    run = new_run(epochs=(0, 1, 2, 3, 4))
    assert main(["--run-dir", str(run), "--compare", "nscl", "ce"]) == 0
    path = run / "analysis/weight_gap.csv"
    before = table(path)
    store = open_store(run, read_description(run))
    last = {arm: store.read(arm, 4) for arm in store.arms()}
    store.cut(3)
    for arm, tensors in last.items():
        if arm == "ce":
            tensors["encoder.conv1.weight"] += 1
        store.write(arm, 4, tensors, step=4, metadata={})
    assert main(["--run-dir", str(run), "--compare", "nscl", "ce"]) == 0
    added = table(path)[len(before) :]
    assert {(r["epoch"], r["arm"]) for r in added} == {("4", "ce")}
    assert {place(r) for r in added} == {place(r) for r in before if r["arm"] == "ce"}
    growth = {r["model"]: r["points"] for r in table(run / "analysis/weight_gap_growth.csv") if r["arm"] == "ce"}
    assert growth["saturation"] == "5"
