"""verify.py and --skip-corrupt: each fault in a copy of a good run is one line; a good run has none."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file, save
from support import tiny

from coupled.analysis import alignment, collapse, losses, quality, verify, weight_gap
from coupled.analysis.run import open_run
from coupled.analysis.verification.snapshots import weight_difference

ARMS = {"cl": "dcl", "nscl": "nscl", "ce": "cross_entropy"}
ROWS = ("steps.csv", "epochs.csv", "log_digests.jsonl")
SNAPSHOT = "snapshots/nscl/epoch_0001.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "good"
    tiny.train(run, arms=ARMS, **tiny.FEW_IMAGES)
    return run


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "other"
    tiny.train(run, arms=ARMS, seed=9, **tiny.FEW_IMAGES)
    return run


@pytest.fixture
def run(good: Path, other: Path, tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    for name in ROWS:
        shutil.copy(other / name, tmp_path / "rows" / name)
    return Path(shutil.copytree(good, tmp_path / "run"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def header_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    data = path.read_bytes()
    header: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return header


def change(run: Path, harm: Callable[[dict[str, torch.Tensor]], None], epoch: int = 1) -> None:
    """Rewrite a snapshot of `nscl` and update the manifest to match."""
    path = run / f"snapshots/nscl/epoch_{epoch:04d}.safetensors"
    tensors = load_file(path)
    harm(tensors)
    replace(run, epoch, save(tensors, metadata=header_of(path)))


def forge(folder: Path, about: str | None, **changed: object) -> None:
    """Give a snapshot of `nscl` other metadata, as text or with changed keys, and a matching manifest."""
    path = folder / SNAPSHOT
    text = about if about is not None else json.dumps(json.loads(header_of(path)["coupled"]) | changed)
    replace(folder, 1, save(load_file(path), metadata={"coupled": text}))


def replace(run: Path, epoch: int, data: bytes) -> None:
    """Replace a snapshot of `nscl` by `data`, with a matching manifest."""
    path = run / f"snapshots/nscl/epoch_{epoch:04d}.safetensors"
    path.write_bytes(data)
    manifest = run / "snapshots/manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        if line["file"] == f"nscl/epoch_{epoch:04d}.safetensors":
            line |= {
                "digest": hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest(),
                "bytes": path.stat().st_size,
            }
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"].view(-1)[0] = float("nan")


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.other"] = tensors.pop("encoder.conv1.weight")


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"] = tensors["encoder.conv1.weight"][:1].clone()


def shift(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"] += 1e-6


def edit(path: Path, old: str, new: str) -> None:
    """Replace the last `old` in a text file."""
    before, found, after = path.read_text().rpartition(old)
    assert found
    path.write_text(before + new + after)


def swap(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"] = tensors["encoder.conv1.weight"].permute(1, 0, 2, 3).contiguous()


def cast(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    def harm(tensors: dict[str, torch.Tensor]) -> None:
        tensors["encoder.conv1.weight"] = tensors["encoder.conv1.weight"].to(dtype)

    return harm


def change_setting(run: Path) -> None:
    """Change a setting as an editor would: the file's digest is not updated."""
    about = json.loads((run / "run.json").read_text())
    about["settings"]["optimizer"]["base_lr"] = 0.25
    (run / "run.json").write_text(json.dumps(about, indent=2) + "\n")


def drop_digest(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    del about["digest"]
    (run / "run.json").write_text(json.dumps(about))


def enlarge(run: Path) -> None:
    """Extend a file beyond the size limit; it is sparse and uses no disk space."""
    os.truncate(run / "epochs.csv", 2**31 + 1)


def older_manifest(run: Path) -> None:
    lines = (run / "snapshots/manifest.jsonl").read_text().splitlines(keepends=True)
    (run / "snapshots/manifest.jsonl").write_text("".join(lines[: 2 * len(ARMS)]))


def flip_state(run: Path) -> None:
    flip(run / "checkpoints/step_00000010/nscl.safetensors")


MANIFEST, NO_EPOCH = "snapshots/manifest.jsonl", "arm 'cl', epoch 2: expected one snapshot, found 0"
FOREIGN, NOT_OURS = "steps.csv: the rows of steps 1 to 5: not as written", "not the expected snapshot: expected "
WEIGHT = "tensor 'encoder.conv1.weight': expected (4, 3, 3, 3) float32, found "
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda run: flip(run / SNAPSHOT), "damaged or foreign: expected"),
    "truncated": (lambda run: (run / SNAPSHOT).write_bytes(b"x"), "found 1 with"),
    "missing file": (lambda run: (run / SNAPSHOT).unlink(), "file is missing"),
    "missing line": (lambda run: drop_line(run / "snapshots/manifest.jsonl", 4), "arm 'nscl', epoch 1: expected one"),
    "lost tail": (lambda run: drop_line(run / "snapshots/manifest.jsonl", 8), "arm 'ce', epoch 2: expected one"),
    "not finite": (lambda run: change(run, set_nan), "conv1.weight': expected finite numbers"),
    "another name": (lambda run: change(run, rename), "tensor 'encoder.other': expected None, found"),
    "another shape": (lambda run: change(run, reshape), "found (1, 3, 3, 3)"),
    "another start": (lambda run: change(run, shift, epoch=0), "do not start with equal weights"),
    "a gap of rows": (lambda run: drop_line(run / "steps.csv", 3), "row 3: expected step 3, found 4"),
    "no rows": (lambda run: (run / "steps.csv").unlink(), "steps.csv: expected a table of steps, found no file"),
    "a digit of a loss": (lambda run: edit(run / "steps.csv", ".", ".1"), "the rows of steps 6 to 10: not as written"),
    "a digest": (lambda run: edit(run / "steps.csv", "\n2,9,", "\n2,9,f"), "the rows of steps 6 to 10: not as written"),
    "no number": (lambda run: edit(run / "steps.csv", ".", "x"), "expected a finite number, found"),
    "a cut last row": (lambda run: drop_line(run / "steps.csv", 10), "the rows of steps 6 to 10: not as written"),
    "a row more": (lambda run: edit(run / "steps.csv", "\n", "\n3,11,\n"), "steps.csv: the run ended with"),
    "rows of another run": (lambda run: shutil.copy(run.parent / "rows/steps.csv", run), FOREIGN),
    "rows and digests of another run": (
        lambda run: [shutil.copy(run.parent / "rows" / name, run) for name in ROWS],
        "log_digests.jsonl line 1: of a run with other settings: expected settings_sha256 ",
    ),
    "epochs.csv": (lambda run: edit(run / "epochs.csv", ",", ",1"), "epochs.csv: the rows of steps 6 to 10: not as"),
    "no epochs": (lambda run: (run / "epochs.csv").unlink(), "epochs.csv: expected a table of epochs, found no file"),
    "no digests of rows": (
        lambda run: (run / "log_digests.jsonl").unlink(),
        "expected one line per save, found none",
    ),
    "a setting": (change_setting, "run.json: settings_sha256: expected the digest of its settings, "),
    "a version": (lambda run: edit(run / "run.json", '"torch": "', '"torch": "1'), "run.json: changed since it was"),
    "no digest of the description": (drop_digest, "run.json: no digest; a change of the file cannot be detected"),
    "a table that is too large": (enlarge, "epochs.csv: 2,147,483,649 bytes long; a table has at most"),
    "an older manifest": (older_manifest, NO_EPOCH),
    "no manifest": (lambda run: (run / MANIFEST).unlink(), NO_EPOCH),
    "a step in the manifest": (lambda run: edit(run / MANIFEST, '"step": 10', '"step": 11'), "expected step 11, found"),
    "a checkpoint": (flip_state, "checkpoints/step_00000010/nscl.safetensors: damaged"),
    "its head": (lambda run: edit(run / "checkpoints/step_00000010/state.json", "10", "11"), "state.json: damaged"),
    "no newest state": (
        lambda run: shutil.rmtree(run / "checkpoints/step_00000010"),
        "expected 'step_00000010' as the",
    ),
    "no state": (lambda run: shutil.rmtree(run / "checkpoints"), "as the newest checkpoint, found ''"),
    "swapped axes": (lambda run: change(run, swap), WEIGHT + "(3, 4, 3, 3) float32"),
    "integers": (lambda run: change(run, cast(torch.int64)), WEIGHT + "(4, 3, 3, 3) int64"),
    "truth values": (lambda run: change(run, cast(torch.bool)), WEIGHT + "(4, 3, 3, 3) bool"),
    "float64": (lambda run: change(run, cast(torch.float64)), "'encoder.conv1.weight': expected one of F32, "),
    "complex": (lambda run: change(run, cast(torch.complex64)), "I8, U8, BOOL, found C64"),
    "float8": (lambda run: change(run, cast(torch.float8_e4m3fn)), "I8, U8, BOOL, found F8_E4M3"),
    "of another run": (lambda run: forge(run, None, run="b"), NOT_OURS + "run tiny, found run b"),
    "of other settings": (lambda run: forge(run, None, settings_sha256="0"), NOT_OURS + "settings_sha256 "),
    "of another step": (lambda run: forge(run, None, step=7), NOT_OURS + "step 5, found step 7"),
    "metadata: no JSON": (lambda run: forge(run, "{"), "its metadata has no JSON object 'coupled'"),
    "metadata: a number": (lambda run: forge(run, "3"), "its metadata has no JSON object 'coupled'"),
    "metadata: deep": (lambda run: forge(run, "[" * 10**5), "its metadata has no JSON object 'coupled'"),
    "metadata: none": (lambda run: replace(run, 1, save(load_file(run / SNAPSHOT))), "no JSON object 'coupled'"),
    "half a manifest": (lambda run: (run / "snapshots/manifest.jsonl").write_text("{\n"), "manifest.jsonl line 1"),
}


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("harm", HARM)
def test_every_fault_is_found_and_named(run: Path, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    """A fault that verify misses is found by nothing else."""
    do, message = HARM[harm]
    do(run)
    assert verify.main(["--run-dir", str(run)]) == 1
    assert message in capsys.readouterr().out


def test_verify_of_a_good_run_reports_only_that_its_images_can_be_read(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its images nothing more can be measured."""
    assert verify.main(["--run-dir", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{run}: nothing is wrong, and the images can be read"]

    def gone(*_: object) -> None:
        raise ValueError("dataset: no folder 'there'")

    monkeypatch.setattr("coupled.analysis.representations.embeddings.load_dataset", gone)
    assert verify.main(["--run-dir", str(run)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the train images cannot be read: dataset: no folder 'there'"
    assert said[-1] == "2 findings"


def test_snapshots_of_another_run_are_refused(run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their manifest is consistent, but they belong to another run."""
    shutil.rmtree(run / "snapshots")
    shutil.copytree(other / "snapshots", run / "snapshots")
    for program, options in ((weight_gap, []), (alignment, ["--num-images", "64"])):
        assert program.main(["--run-dir", str(run), *options]) == 2
        assert "not the expected snapshot: expected settings_sha256" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["float8", "metadata: deep", "metadata: none"])
def test_every_program_refuses_a_forged_snapshot_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    """It may come from someone else's folder; a traceback would not name the file."""
    HARM[harm][0](run)
    few = ["--run-dir", str(run), "--epochs", "1"]
    for program in (alignment, collapse, losses, quality, weight_gap):
        arm = ["--arms", "nscl"] if program in (collapse, losses, quality) else ["--compare", "nscl"]
        assert program.main([*few, *arm]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert SNAPSHOT in line


def test_a_tensor_of_another_dtype_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torch would convert integers to floats without a warning."""
    change(run, cast(torch.int64))
    assert collapse.main(["--run-dir", str(run), "--epochs", "1", "--arms", "nscl"]) == 2
    assert ": expected (4, 3, 3, 3) float32, found (4, 3, 3, 3) int64" in capsys.readouterr().err


def test_verify_accepts_a_run_in_progress_and_a_killed_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row digests and manifest lines are written before the checkpoint that counts them; later rows are ignored."""
    (run / "checkpoints/step_00000010").rename(run / "checkpoints/.step_00000010.tmp")
    assert verify.main(["--run-dir", str(run)]) == 0, capsys.readouterr().out
    for name, lines in (("log_digests.jsonl", 2), (MANIFEST, 2 * len(ARMS) + 1)):
        whole = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(whole[:lines]) + whole[lines][:20])
    rows = (run / "steps.csv").read_text().splitlines(keepends=True)
    (run / "steps.csv").write_text("".join(rows[:9]) + rows[9][:20])
    assert verify.main(["--run-dir", str(run)]) == 0, capsys.readouterr().out


def test_two_runs_are_compared(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, settings and weights: a run with itself, with other objectives on equal inputs, with another seed."""
    tiny.train(tmp_path / "same", arms=ARMS, **tiny.FEW_IMAGES)
    other = {**ARMS, "nscl": {"objective": "nscl", "temperature": 0.2}}
    tiny.train(tmp_path / "other", arms=other, epochs=1, **tiny.FEW_IMAGES)
    tiny.train(tmp_path / "seed", arms=ARMS, epochs=1, seed=9, **tiny.FEW_IMAGES)
    capsys.readouterr()
    assert verify.main(["--run-dir", str(good), "--against", str(tmp_path / "same")]) == 0
    assert "inputs: identical up to step 10 of 10 and 10" in capsys.readouterr().out
    assert verify.main(["--run-dir", str(good), "--against", str(tmp_path / "other")]) == 1
    out = capsys.readouterr().out
    assert "inputs: identical up to step 5 of 10 and 5" in out
    assert "settings: arms.nscl.temperature: 0.5 and 0.2" in out
    gaps = weight_gap.compute(open_run(good), against=tmp_path / "other", compare="nscl").dropna(subset="tensor")
    most = gaps.loc[gaps.gap.idxmax()]
    assert (
        f"arm 'nscl': the weights differ from epoch 1 on; most at epoch {most.epoch}: {most.tensor}, with a gap of"
        f" {most.gap:.3g} (Frobenius)"
    ) in out.splitlines()
    shutil.copytree(good, tmp_path / "changed")
    change(tmp_path / "changed", lambda tensors: tensors.update({"encoder.more": torch.ones(2)}), epoch=2)
    found = weight_difference(*(open_run(each).snapshots for each in (good, tmp_path / "changed")), "nscl")
    lacks = "encoder.more is in only one of the runs, or has another shape"
    assert found == f"arm 'nscl': the weights differ from epoch 2 on; {lacks}"
    assert "arm 'cl': the weights" in out  # the schedule of one epoch is another
    assert verify.main(["--run-dir", str(good), "--against", str(tmp_path / "seed")]) == 1
    assert "inputs: identical up to step 0" in capsys.readouterr().out


def test_findings_from_python_equal_those_of_the_program(
    good: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For one run and for two; identical inputs are not a finding."""
    run = open_run(good)
    assert verify.compute(run) == verify.compute(run, run) == []
    assert verify.main(["--run-dir", str(good), "--against", str(other)]) == 1
    *lines, count = capsys.readouterr().out.splitlines()
    assert verify.compute(run, open_run(other)) == lines
    assert count == f"{len(lines)} findings"


def test_findings_are_written_to_a_table_for_the_report(run: Path, tmp_path: Path) -> None:
    """Only with --output; a run without faults has a row too, so that it differs from one never verified."""
    before = sorted(run.rglob("*"))
    assert verify.main(["--run-dir", str(run)]) == 0
    assert sorted(run.rglob("*")) == before
    assert verify.main(["--run-dir", str(run), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/verify.csv").read_text() == "last_epoch,finding\n2,\n"
    flip(run / SNAPSHOT)
    assert verify.main(["--run-dir", str(run), "--output", str(tmp_path / "out")]) == 1
    rows = pandas.read_csv(tmp_path / "out/verify.csv")
    assert rows["last_epoch"].tolist() == [2]
    assert SNAPSHOT in rows["finding"][0]


@pytest.mark.parametrize("program", [weight_gap, alignment])
def test_a_damaged_snapshot_stops_the_analysis_without_skip_corrupt(
    run: Path, capsys: pytest.CaptureFixture[str], program: object
) -> None:
    """A flipped bit must not become a point of a figure; with --skip-corrupt it is one line, the rest is computed."""
    flip(run / SNAPSHOT)
    (run / "snapshots/ce/epoch_0002.safetensors").unlink()
    arguments = ["--run-dir", str(run), *(["--num-images", "64", "--split", "test"] if program is alignment else [])]
    assert program.main(arguments) == 2  # type: ignore[attr-defined]
    assert capsys.readouterr().err.count("\n") == 1
    assert program.main([*arguments, "--skip-corrupt", "--compare", "nscl", "ce", "gone"]) == 0  # type: ignore[attr-defined]
    errors = capsys.readouterr().err
    assert errors.count("skipped: ") == errors.count("\n") == 3
    assert "no arm 'gone'" in errors
    assert "epoch_0001.safetensors: damaged or foreign: expected" in errors
    name = "weight_gap.csv" if program is weight_gap else "test_alignment.csv"
    rows = pandas.read_csv(run / "analysis" / name)
    found = {(arm, epoch) for arm, epoch in zip(rows["arm"], rows["epoch"], strict=True)}
    assert found == {("nscl", 0), ("ce", 0), ("ce", 1), ("nscl", 2)}


def test_a_path_that_is_not_utf8_is_escaped_in_the_table(tmp_path: Path) -> None:
    """A folder of Latin-1 bytes, or of non-ASCII bytes in the C locale."""
    verify.write_findings(tmp_path / "verify.csv", 3, ["r\udcfc/run.json: damaged"])
    assert (tmp_path / "verify.csv").read_text() == "last_epoch,finding\n3,r\\udcfc/run.json: damaged\n"


def test_a_file_instead_of_the_output_folder_is_bad_input(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message equals that of the other programs."""
    (tmp_path / "fil").write_text("")
    assert verify.main(["--run-dir", str(good), "--output", str(tmp_path / "fil")]) == 2
    assert capsys.readouterr().err == f"coupled verify: --output: cannot write to '{tmp_path / 'fil'}': File exists\n"
