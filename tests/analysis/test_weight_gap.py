"""weight_gap: the numbers against a hand-computed example, what gets a row, and the program in a subprocess."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.weight_gap import aggregates, comparable_layers, layer_kind, main, squares
from coupled.snapshots import SnapshotStore

PROGRAM = Path(__file__).parents[2] / "analysis" / "weight_gap.py"
Read = Callable[[Path], list[dict[str, str]]]
NewRun = Callable[..., Path]


def test_a_hand_computed_layer() -> None:
    """a = (3, 4), b = (0, 5): norms 5 and 5, distance sqrt(9 + 1), gap sqrt(10) / 5, cosine 20 / 25."""
    gap = squares(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 5.0]])).gap()
    assert gap == pytest.approx((2, math.sqrt(10) / 5, math.sqrt(10), 5, 5, 0.8), abs=1e-15)


def test_hand_computed_aggregates() -> None:
    """Layers (3, 4)-(0, 5) and (2)-(0): gaps sqrt(10)/5 and 2; as one vector (3, 4, 2)-(0, 5, 0)."""
    layers = [
        squares(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 5.0])),
        squares(torch.tensor([2.0]), torch.tensor([0.0])),
    ]
    total = aggregates(layers)
    assert total["mean"].gap == pytest.approx((math.sqrt(10) / 5 + 2) / 2, abs=1e-15)
    assert total["sum"].gap == pytest.approx(math.sqrt(10) / 5 + 2, abs=1e-15)
    norms = math.sqrt(29), 5.0
    expected = 3, math.sqrt(14) / (0.5 * sum(norms)), math.sqrt(14), *norms, 20 / (norms[0] * norms[1])
    assert total["global"] == pytest.approx(expected, abs=1e-15)
    assert math.isnan(total["sum"].cosine)


def test_two_zero_tensors_have_no_gap_and_one_zero_tensor_the_largest() -> None:
    """timm starts the last batch-norm scale of a block at zero: 0 / 0 would lose epoch 0."""
    zero, one = torch.zeros(3), torch.ones(3)
    assert squares(zero, zero).gap()[1:] == (0, 0, 0, 0, 1)
    gap = squares(zero, one).gap()
    assert gap.gap == 2
    assert math.isnan(gap.cosine)


def test_the_gap_is_symmetric_and_at_most_two() -> None:
    """Opposite vectors are as far apart as the gap can say."""
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert squares(a, b).gap().gap == squares(b, a).gap().gap
    assert squares(a, -a).gap().gap == pytest.approx(2, abs=1e-15)
    assert squares(a, -a).gap().cosine == pytest.approx(-1, abs=1e-15)


def test_float32_weights_are_summed_in_float64() -> None:
    """float32 sums of a million squares lose the sixth digit; a gap of 1e-6 between two epochs is real."""
    a, b = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.norm(a.numpy().astype(np.longdouble) - b.numpy().astype(np.longdouble))
    assert squares(a, b).gap().distance == pytest.approx(float(expected), rel=1e-13)


def test_kinds_are_told_from_name_and_dimensions() -> None:
    """A reader averages by kind; a bias of a convolution is no batch-norm shift."""
    dimensions = {
        "encoder.conv1.weight": 4,
        "encoder.conv1.bias": 1,
        "encoder.bn1.weight": 1,
        "encoder.bn1.bias": 1,
        "encoder.bn1.running_mean": 1,
        "projector.0.weight": 2,
        "projector.0.bias": 1,
        "encoder.pos_embed": 3,
    }
    kinds = {name: layer_kind(name, dimensions) for name in dimensions}
    assert list(kinds.values()) == [
        *("conv", "other", "norm_scale", "norm_shift"),
        *("running", "linear", "other", "other"),
    ]


def test_layers_that_cannot_be_compared_are_named() -> None:
    """Two arms of different encoders must not be compared over what happens to match."""
    ours = {"encoder.a.weight": (2, 3), "projector.0.weight": (4, 4), "projector.1.weight": (4,)}
    assert comparable_layers(ours, {"encoder.a.weight": (2, 3), "projector.0.weight": (4, 4)}) == list(ours)[:2]
    with pytest.raises(ValueError, match=r"'encoder\.b\.weight' is in one"):
        comparable_layers(ours, {**ours, "encoder.b.weight": (1,)})
    with pytest.raises(ValueError, match=r"'encoder\.a\.weight' has shape \(2, 3\) in the one and \(3, 2\)"):
        comparable_layers(ours, {**ours, "encoder.a.weight": (3, 2)})


def test_every_floating_tensor_of_encoder_and_projector_has_a_row(
    drifting_run: Path, tmp_path: Path, table: Read
) -> None:
    """`ce` has a classifier that the others lack: it is not compared, and the rest of `ce` is."""
    assert main(["--run", str(drifting_run), "--compare", "ce", "--epochs", "2", "--output", str(tmp_path)]) == 0
    rows = {row["layer"]: row for row in table(tmp_path / "weight_gap.csv")}
    tensors = SnapshotStore(drifting_run / "snapshots").read("ce", 2)
    floating = {n for n, t in tensors.items() if t.is_floating_point() and not n.startswith("classifier.")}
    assert set(rows) == floating | {"mean", "sum", "global"}
    weights = [rows[name] for name in floating if name.startswith("encoder.") and name.endswith(".weight")]
    assert float(rows["mean"]["gap"]) == pytest.approx(sum(float(r["gap"]) for r in weights) / len(weights), rel=1e-12)
    assert float(rows["sum"]["gap"]) == pytest.approx(sum(float(r["gap"]) for r in weights), rel=1e-12)
    assert int(rows["global"]["parameters"]) == sum(int(r["parameters"]) for r in weights)
    assert {row["kind"] for row in rows.values()} == {
        *("conv", "linear", "norm_scale", "norm_shift", "running", "aggregate")
    }


def test_all_gaps_are_zero_at_the_shared_start_and_grow(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Epoch 0 is the shared initialisation; exactly 0 there, not nearly."""
    assert main(["--run", str(drifting_run), "--output", str(tmp_path)]) == 0
    rows = table(tmp_path / "weight_gap.csv")
    assert {(row["arm"], row["epoch"]) for row in rows} == {(a, e) for a in ("nscl", "scl", "ce") for e in "012"}
    assert {row["gap"] for row in rows if row["epoch"] == "0"} == {"0.0"}
    for name in ("mean", "sum", "global"):
        gaps = {(r["arm"], r["epoch"]): float(r["gap"]) for r in rows if r["layer"] == name}
        assert 0 < gaps["nscl", "1"] < gaps["nscl", "2"]
        assert gaps["nscl", "2"] < gaps["scl", "2"] < gaps["ce", "2"]


def test_a_second_call_computes_only_what_is_missing(new_run: NewRun, table: Read) -> None:
    """Rows that exist are not computed again: a snapshot that is gone by now does no harm."""
    run = new_run()
    path = run / "analysis" / "weight_gap.csv"
    assert main(["--run", str(run), "--compare", "nscl", "--epochs", "0,1"]) == 0
    first = path.read_bytes()
    (run / "snapshots/nscl/epoch_0000.safetensors").write_bytes(b"gone")
    assert main(["--run", str(run), "--compare", "nscl"]) == 0
    assert path.read_bytes().startswith(first)
    assert {row["epoch"] for row in table(path)} == {"0", "1", "2"}
    assert main(["--run", str(run), "--compare", "nscl"]) == 0
    assert len(table(path)) == 3 * len(first.splitlines()[1:]) // 2


def test_a_write_that_was_cut_short_is_completed(new_run: NewRun) -> None:
    """Killed in the middle of a row: the rest of that epoch is written, nothing twice."""
    run = new_run(epochs=(0, 1))
    path = run / "analysis" / "weight_gap.csv"
    assert main(["--run", str(run)]) == 0
    whole = path.read_bytes()
    for cut in (10, len(whole) // 3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        assert main(["--run", str(run)]) == 0
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_the_program_runs_from_another_directory_and_names_the_run(new_run: NewRun, tmp_path: Path) -> None:
    """A user calls it by its path, from wherever the runs are; without --run the newest is taken."""
    new_run("older", epochs=(0,))
    new_run("newer", epochs=(0, 1))
    done = subprocess.run(
        [sys.executable, PROGRAM, "--compare", "nscl"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "runs/newer" in done.stdout
    assert (tmp_path / "runs/newer/analysis/weight_gap.csv").is_file()
    assert not (tmp_path / "runs/older/analysis").exists()


def test_it_needs_no_model_and_no_image(new_run: NewRun) -> None:
    """On a machine with the snapshots alone: nothing that builds networks or reads images may be imported."""
    code = (
        "import sys; from analysis.weight_gap import main; status = main(sys.argv[1:]);"
        "sys.exit(status or [m for m in sys.modules if m in ('timm', 'torchvision', 'coupled.network')] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--run", new_run(epochs=(0,))], capture_output=True, text=True, timeout=100
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
        (["--compare"], "argument --compare: expected at least one argument"),
        (["--ouput", "x"], "unrecognized arguments: --ouput"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """The line names the option, the value and what exists."""
    assert main(["--run", str(drifting_run), "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.startswith("weight_gap.py: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_missing_snapshot_is_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the path, no traceback of safetensors, and the epochs before it are kept."""
    run = new_run()
    path = run / "snapshots/scl/epoch_0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["--run", str(run)]) == 2
    assert str(path) in capsys.readouterr().err
    assert b"\n0,cl,ce,global," in (run / "analysis/weight_gap.csv").read_bytes()
    path.unlink()
    assert main(["--run", str(run)]) == 2
    assert f"{path}: the manifest lists this snapshot, but the file is missing" in capsys.readouterr().err
