"""The tests that define the project: equal initial weights, equal inputs, arms that differ only in the objective."""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from torch import Tensor

from coupled.arms.arm import Arm
from coupled.arms.consistency import check_equal_start
from coupled.config.schema import from_resolved
from coupled.coordinator import Coordinator
from coupled.models.network import shared_tensors
from coupled.parallel.process_group import process_group
from coupled.stream.batches import Batch


def train(run: Path, **options: Any) -> None:
    """Train the tiny run on few images, if the options name no others."""
    tiny.train(run, **{**tiny.FEW_IMAGES, **options})


@pytest.fixture(scope="module")
def four_arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of CL, NSCL, SCL and CE."""
    run = tmp_path_factory.mktemp("runs") / "four"
    train(run)
    return run


def weights(run: Path, arm: str, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"snapshots/{arm}/epoch_{epoch:04d}.safetensors")


def assert_equal_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_all_arms_start_with_equal_bytes_and_diverge_afterwards(four_arms: Path) -> None:
    """A gap at epoch 0 would count as drift; no gap at the end would mean that nothing was trained."""
    start = weights(four_arms, "cl", 0)
    shared = {name for name in start if name.startswith(("encoder.", "projector."))}
    for arm in ("nscl", "scl", "ce"):
        other = weights(four_arms, arm, 0)
        assert_equal_bits(start, {name: tensor for name, tensor in other.items() if name in shared})
        end, end_of_cl = weights(four_arms, arm, 2), weights(four_arms, "cl", 2)
        assert not torch.equal(end["encoder.conv1.weight"], end_of_cl["encoder.conv1.weight"])


def test_an_arm_is_bit_identical_alone_and_with_other_arms_in_any_order(four_arms: Path, tmp_path: Path) -> None:
    """Otherwise a comparison would measure the effect of the other arms, not of the objective."""
    train(tmp_path / "alone", arms={"nscl": "nscl"})
    train(tmp_path / "reversed", arms={"ce": "cross_entropy", "nscl": "nscl", "cl": "dcl"})
    for epoch in (0, 1, 2):
        expected = weights(four_arms, "nscl", epoch)
        assert_equal_bits(weights(tmp_path / "alone", "nscl", epoch), expected)
        assert_equal_bits(weights(tmp_path / "reversed", "nscl", epoch), expected)


def test_twins_stay_bit_identical(tmp_path: Path) -> None:
    """Two arms with one objective are the noise floor: without it no gap can be interpreted."""
    train(tmp_path / "run", arms={"cl": "dcl", "twin": "dcl"})
    for epoch in (1, 2):
        assert_equal_bits(weights(tmp_path / "run", "cl", epoch), weights(tmp_path / "run", "twin", epoch))


def test_equal_settings_give_equal_bytes_and_another_seed_does_not(four_arms: Path, tmp_path: Path) -> None:
    """Snapshots, manifest and steps.csv are functions of the settings."""
    train(tmp_path / "again")
    assert tiny.snapshot_bytes(tmp_path / "again") == tiny.snapshot_bytes(four_arms)
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        assert (tmp_path / "again" / file).read_bytes() == (four_arms / file).read_bytes()
    train(tmp_path / "other", seed=4, epochs=1, arms={"cl": "dcl"})
    digests = [pandas.read_csv(run / "steps.csv")["inputs_digest"][:5] for run in (four_arms, tmp_path / "other")]
    assert not (digests[0] == digests[1]).any()


def test_the_settings_of_the_arms_do_not_change_the_inputs(four_arms: Path, tmp_path: Path) -> None:
    """Equal digests are the proof that two runs saw the same inputs; objectives and rates must not touch the stream."""
    train(tmp_path / "run", arms={"a": "nt_xent"}, optimizer={**tiny.TINY["optimizer"], "base_lr": 0.01})
    inputs = [pandas.read_csv(run / "steps.csv")["inputs_digest"].tolist() for run in (four_arms, tmp_path / "run")]
    assert inputs[0] == inputs[1]
    assert len(set(inputs[0])) == 10


@pytest.mark.parametrize("stop_at", [3, 7])
def test_resumed_run_equals_uninterrupted_run(
    four_arms: Path, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3 is before the first checkpoint, step 7 within epoch 2; later rows are removed, not doubled."""
    gradients, seen = Arm.gradients, []

    def interrupted(arm: Arm, batch: Batch) -> Tensor:
        seen.append(arm.name)
        if len(seen) == 4 * stop_at - 1:
            raise KeyboardInterrupt
        return gradients(arm, batch)

    monkeypatch.setattr(Arm, "gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    monkeypatch.setattr(Arm, "gradients", gradients)
    train(tmp_path / "run", resume=True)
    assert tiny.snapshot_bytes(tmp_path / "run") == tiny.snapshot_bytes(four_arms)
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (four_arms / file).read_bytes()
    assert len(pandas.read_csv(tmp_path / "run" / "epochs.csv")) == 8


def test_a_difference_between_initial_weights_is_an_error(tmp_path: Path) -> None:
    """One bit in one tensor of one arm: the run must not begin."""
    with process_group("cpu") as group:
        arms = Coordinator(tiny.tiny_settings(**tiny.FEW_IMAGES), group, tmp_path / "run").arms
        check_equal_start({arm.name: shared_tensors(arm.network) for arm in arms})
        with torch.no_grad():
            arms[2].network.get_parameter("encoder.layer1.0.conv1.weight")[0, 0, 0, 0] += 1e-7
        with pytest.raises(RuntimeError, match="arm 'scl' on rank 0 starts with other weights than arm 'cl' on rank 0"):
            check_equal_start({arm.name: shared_tensors(arm.network) for arm in arms})


@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """Training on after a NaN would give meaningless figures; the message names arm, epoch and step."""
    huge = {"base_lr": 1e6, "weight_decay": 1e6}  # a step makes each weight 1e12 times as large
    with pytest.raises(
        FloatingPointError, match=r"arm '\w+': (loss|gradient norm) is (nan|inf)\. .* before step \d+ \(epoch 1\)"
    ):
        train(tmp_path / "run", optimizer={"name": "sgd", **huge, "warmup_epochs": 0, "clip_grad_norm": None})


def test_an_existing_run_is_not_changed(four_arms: Path, tmp_path: Path) -> None:
    """A finished run may be days of work; the error names --resume and --overwrite."""
    before = tiny.snapshot_bytes(four_arms)
    with pytest.raises(ValueError, match=r"a run is already in '.*'; pass --resume .* or --overwrite"):
        train(four_arms)
    with pytest.raises(ValueError, match=r"--resume: .* other settings: seed was 3, is 4"):
        train(four_arms, resume=True, seed=4)
    assert tiny.snapshot_bytes(four_arms) == before
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="is not a run folder"):
        train(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_resuming_a_finished_run_changes_nothing(four_arms: Path) -> None:
    """On a cluster the same command is often started once more than needed."""
    before = {p: p.read_bytes() for p in four_arms.rglob("*") if p.is_file()}
    train(four_arms, resume=True)
    assert {p: p.read_bytes() for p in four_arms.rglob("*") if p.is_file()} == before


def test_overwrite_removes_all_of_the_old_run(tmp_path: Path) -> None:
    """Nothing of the old run may remain beside the new one."""
    train(tmp_path / "run", arms={"old": "dcl"}, epochs=1)
    train(tmp_path / "run", arms={"new": "dcl"}, epochs=1, overwrite=True)
    assert sorted(tiny.snapshot_bytes(tmp_path / "run")) == ["new/epoch_0000.safetensors", "new/epoch_0001.safetensors"]


def test_run_json_records_settings_digests_and_versions(four_arms: Path) -> None:
    """They belong to the numbers."""
    about = json.loads((four_arms / "run.json").read_text())
    settings = from_resolved(about["settings"])
    assert about["settings_sha256"] == settings.sha256()
    assert settings.arms["cl"].options == {"temperature": 0.5, "positive_in_denominator": False, "similarity": "cosine"}
    assert settings.arms["scl"].options["variant"] == "out"
    assert settings.dataset.image_size == 8
    assert {"torch", "timm", "python"} <= about["versions"].keys()
    assert len(about["dataset"]["train_digest"]) == len(about["dataset"]["test_digest"]) == 32
    assert (about["seed"], about["world_size"], about["precision"]) == (3, 1, "float32")


def test_two_spellings_of_one_experiment_are_one_run(four_arms: Path) -> None:
    """Defaults are filled in before the digest: writing out a default does not prevent a resume."""
    spelled = {"cl": {"objective": "dcl", "temperature": 0.5}, "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
    train(four_arms, resume=True, arms=spelled)
    with pytest.raises(ValueError, match=r"arms\.cl\.temperature was 0\.5, is 0\.1"):
        train(four_arms, resume=True, arms={**spelled, "cl": {"objective": "dcl", "temperature": 0.1}})


def test_too_little_disk_space_is_reported_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--overwrite must not delete the old run and then refuse the new one; a refused run leaves no folder."""
    run = tmp_path / "run"
    train(run, arms={"old": "dcl"}, epochs=1)
    before = tiny.snapshot_bytes(run)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=0, free=10))
    with pytest.raises(ValueError, match=r"snapshots: .* MiB needed, 0 MiB free .*snapshots\.every_epochs"):
        train(run, overwrite=True)
    assert tiny.snapshot_bytes(run) == before
    with pytest.raises(ValueError, match="MiB needed"):
        train(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_resume_without_a_run_starts_it(four_arms: Path, tmp_path: Path) -> None:
    """The same command works for a cluster's first start and every requeue."""
    train(tmp_path / "run", resume=True, arms={"nscl": "nscl"})
    for epoch in (0, 1, 2):
        assert_equal_bits(weights(tmp_path / "run", "nscl", epoch), weights(four_arms, "nscl", epoch))


def test_prefetching_does_not_change_a_run(four_arms: Path, tmp_path: Path) -> None:
    """Worker threads prepare batches ahead; the bytes of every snapshot are equal."""
    train(tmp_path / "run", dataset={**tiny.FEW_IMAGES["dataset"], "num_workers": 2}, arms={"cl": "dcl"}, epochs=1)
    assert_equal_bits(weights(tmp_path / "run", "cl", 1), weights_after_one_epoch())


def weights_after_one_epoch() -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", arms={"cl": "dcl"}, epochs=1)
        return weights(Path(folder) / "run", "cl", 1)


AT_32: dict[str, Any] = {"dataset": {"name": "digits", "image_size": 32, "classes": [0, 1]}, "batch": {"size": 96}}


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": {"size": 256, "sampler": "balanced"}, "arms": {"in": {"objective": "supcon", "variant": "in"}}},
        {"arms": {"ce": {"objective": "cross_entropy", "input": "embedding"}, "keep": {"objective": "nt_xent"}}},
        {"optimizer": {"name": "lars", "warmup_epochs": 0.5}, "arms": {"cl": "dcl"}},
        {"encoder": {**tiny.TINY["encoder"]}, "arms": {"cl": "dcl"}, "precision": "bfloat16"},
        {
            "optimizer": {"name": "adamw", "base_lr": 1e-3, "warmup_epochs": 0},
            "arms": {"n": "nscl"},
            "augmentation": {"preset": "imagenet"},
        },
        {
            **AT_32,
            "encoder": {"name": "vit_tiny_patch16_224", "stem": "imagenet", "timm_options": {"depth": 2}},
            "arms": {"cl": "dcl"},
        },
        {**AT_32, "encoder": {"name": "mobilenetv3_small_050", "stem": "imagenet"}, "arms": {"cl": "dcl"}},
    ],
)
def test_every_kind_of_setting_trains(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A setting that no run ever used may have no effect, or fail after a day in a queue."""
    run = tmp_path / "run"
    train(run, epochs=1, **changed)
    steps = pandas.read_csv(run / "steps.csv")
    for arm in changed["arms"]:
        assert steps[f"{arm}_loss"].notna().all()
        start, end = weights(run, arm, 0), weights(run, arm, 1)
        assert any(not torch.equal(start[name], end[name]) for name in start)
    if "ce" in changed["arms"]:  # a classifier on the embedding leaves the projector as it was
        frozen = [name for name in start if name.startswith("projector.")]
        start, end = weights(run, "ce", 0), weights(run, "ce", 1)
        assert all(torch.equal(start[name], end[name]) for name in frozen)


def test_thinned_snapshots_are_kept_and_resumed(four_arms: Path, tmp_path: Path) -> None:
    """every: 2 keeps epochs 0 and 2; the epoch between has a checkpoint but no snapshot."""
    train(tmp_path / "run", snapshots={"every_epochs": 2}, arms={"nscl": "nscl"})
    kept = tiny.snapshot_bytes(tmp_path / "run")
    assert sorted({name.split("_")[-1] for name in kept}) == ["0000.safetensors", "0002.safetensors"]
    assert_equal_bits(weights(tmp_path / "run", "nscl", 2), weights(four_arms, "nscl", 2))


def test_logs_have_a_row_for_every_step_and_epoch(four_arms: Path) -> None:
    """Losses equal those of the arms, the learning rate that of the schedule; every step has another inputs digest."""
    steps = pandas.read_csv(four_arms / "steps.csv")
    assert steps["step"].tolist() == list(range(1, 11))
    assert steps["epoch"].tolist() == [1] * 5 + [2] * 5
    assert {"cl_loss", "cl_grad_norm", "ce_loss", "ce_grad_norm", "inputs_digest", "lr"} <= set(steps.columns)
    assert steps["lr"].iloc[0] == 0.06 * 52 / 256
    epochs = pandas.read_csv(four_arms / "epochs.csv")
    assert epochs["arm"].tolist() == ["cl", "nscl", "scl", "ce"] * 2
    mean = steps[steps["epoch"] == 2]["nscl_loss"].mean()
    assert epochs[(epochs["epoch"] == 2) & (epochs["arm"] == "nscl")]["loss"].item() == pytest.approx(mean)


def test_snapshots_contain_shared_tensors_and_metadata(four_arms: Path) -> None:
    """Every arm has the same shared keys; CE has its classifier as well."""
    keys = {arm: set(weights(four_arms, arm, 1)) for arm in ("cl", "nscl", "scl", "ce")}
    assert keys["cl"] == keys["nscl"] == keys["scl"] == keys["ce"] - {"classifier.weight", "classifier.bias"}
    assert all(name.startswith(("encoder.", "projector.")) for name in keys["cl"])


def test_batch_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A batch larger than the dataset would give an epoch without steps."""
    with pytest.raises(ValueError, match=r"batch\.size: got 2000; dataset 'digits' has 288 images"):
        train(tmp_path / "run", batch={"size": 2000})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            {"objective": "ncsl"},
            r"arms\.x\.objective: unknown objective 'ncsl'; did you mean 'nscl'\? \(known: .*supcon",
        ),
        ({"objective": "dcl", "temprature": 1.0}, r"arms\.x\.temprature: unknown key; did you mean 'temperature'"),
        ({"objective": "cross_entropy", "temperature": 1.0}, r"arms\.x\.temperature: unknown key"),
        ({"objective": "supcon", "variant": "inside"}, r"arms\.x\.variant: got 'inside'; .*'out' or 'in'"),
        ({"objective": "dcl", "temperature": -1.0}, r"arms\.x\.temperature: -1\.0 is not allowed"),
    ],
)
def test_invalid_arms_are_refused_before_anything_is_written(
    tmp_path: Path, arm: dict[str, object], message: str
) -> None:
    """The message has the key, the value and what is allowed; no run folder is created."""
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", arms={"x": arm})
    assert not (tmp_path / "run").exists()
