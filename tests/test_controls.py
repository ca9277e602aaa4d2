"""Controls of a run: each changes what it names and nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from support import tiny

from coupled.analysis import verify
from coupled.analysis.verification.snapshots import faults_of_starts
from coupled.arms.summary import controls
from coupled.datasets.digits import load
from coupled.storage.snapshots import SnapshotStore

CL = {"objective": "dcl"}


def weights(run: Path, arm: str, epoch: int) -> dict[str, torch.Tensor]:
    return tiny.tensors(run, arm, epoch)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors have equal bytes."""
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with every control in it."""
    folder = tmp_path_factory.mktemp("controls") / "run"
    arms: dict[str, Any] = {
        "cl": "dcl",
        "twin": {"twin": "cl"},
        "moved": {"twin": "cl", "perturb": {"ulps": 1}},
        "later": {"twin": "cl", "perturb": {"step": 6}},
        "init": {"twin": "cl", "unshared": ["init"]},
        "order": {"twin": "cl", "unshared": ["order"]},
        "views": {"twin": "cl", "unshared": ["augmentation"]},
        "views_twin": {"twin": "views"},
    }
    tiny.train(folder, arms=arms, **tiny.FEW_IMAGES)
    return folder


def inputs(run: Path, arm: str) -> list[str]:
    """The digests of the inputs of a stream."""
    return list(pandas.read_csv(run / "steps.csv")[f"{arm}_inputs_digest" if arm else "inputs_digest"])


def test_only_an_arm_with_unshared_initialisation_starts_from_other_weights(run: Path) -> None:
    start = weights(run, "cl", 0)
    for arm in ("twin", "later", "order", "views", "views_twin"):
        assert equal(weights(run, arm, 0), start), arm
    assert not torch.equal(weights(run, "init", 0)["encoder.conv1.weight"], start["encoder.conv1.weight"])
    differing = [name for name, tensor in weights(run, "moved", 0).items() if not torch.equal(tensor, start[name])]
    assert differing == ["encoder.conv1.weight"]


def test_the_start_of_a_run_lists_the_controls() -> None:
    """Deliberate exceptions from shared randomness must be visible."""
    assert controls({"objective": "dcl"}) == ""
    assert controls({"twin": "cl", "unshared": ["init", "augmentation"]}) == "; twin of cl; its own init, augmentation"
    assert controls({"twin": "cl", "perturb": {"ulps": 2, "step": 0}}) == (
        "; twin of cl; a weight moved by 2 ulp at step 0"
    )


def test_verify_accepts_the_controls(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a weight perturbed before the first snapshot nor an unshared initialisation is a finding."""
    assert verify.main(["--run-dir", str(run)]) == 0, capsys.readouterr().out
    about = json.loads((run / "run.json").read_text())
    arms = about["settings"]["arms"]
    arms["later"]["perturb"]["step"] = 0
    text = "arms 'cl' and 'later' do not start with equal weights at epoch 0: expected one perturbed weight, found 0"
    store = SnapshotStore(run / "snapshots")
    starts = {arm: {"encoder.conv1.weight": weights(run, arm, 0)["encoder.conv1.weight"]} for arm in arms}
    assert text in "".join(faults_of_starts(store, arms, starts))


def test_twins_stay_bit_identical_until_the_perturbation(run: Path) -> None:
    """The twin of an arm with unshared views uses that arm's views."""
    for epoch in (1, 2):
        assert equal(weights(run, "twin", epoch), weights(run, "cl", epoch))
        assert equal(weights(run, "views_twin", epoch), weights(run, "views", epoch))
        assert not equal(weights(run, "moved", epoch), weights(run, "cl", epoch))
    assert equal(weights(run, "later", 1), weights(run, "cl", 1))
    assert not equal(weights(run, "later", 2), weights(run, "cl", 2))


def test_a_perturbation_changes_less_than_unshared_randomness(run: Path) -> None:
    """Rounding differences grow fast in so small a network: after ten steps the factor is not a hundred."""

    def gap(arm: str) -> float:
        return float(
            (weights(run, arm, 2)["encoder.conv1.weight"] - weights(run, "cl", 2)["encoder.conv1.weight"]).norm()
        )

    assert 0 < gap("moved") < 0.5 * min(gap("order"), gap("views"), gap("init"))


def test_arms_share_a_stream_unless_they_have_their_own(run: Path) -> None:
    """steps.csv has one column of digests per stream: `init`, `twin` and the perturbed arms get the inputs of `cl`."""
    columns = [column for column in pandas.read_csv(run / "steps.csv") if column.endswith("inputs_digest")]
    assert columns == ["inputs_digest", "order_inputs_digest", "views_inputs_digest"]
    assert not set(inputs(run, "")) & set(inputs(run, "order"))
    assert not set(inputs(run, "")) & set(inputs(run, "views"))


@pytest.mark.parametrize(
    ("own", "same"), [(["order"], ["views"]), (["augmentation"], ["order"]), (["order", "augmentation"], [])]
)
def test_unshared_sources_change_only_what_they_name(tmp_path: Path, own: Sequence[str], same: Sequence[str]) -> None:
    """The two streams of a run, step by step: whether images are equal, and whether each image's views are."""
    made = tiny.train(tmp_path / "run", arms={"cl": "dcl", "b": {"twin": "cl", "unshared": list(own)}}, epochs=0)
    steps = list(made.step_batches(1))
    shared, other = ([step[name] for step in steps] for name in ("", "b"))
    orders = [torch.cat([batch.indices_G for batch in batches]) for batches in (shared, other)]
    assert torch.equal(*orders) == ("order" in same)
    images = [
        torch.cat([batch.views_VB3SS for batch in batches], 1)[:, indices.argsort()]
        for batches, indices in zip((shared, other), orders, strict=True)
    ]
    seen = [indices.sort().values for indices in orders]
    both = [torch.isin(seen[0], seen[1]), torch.isin(seen[1], seen[0])]
    alike = (images[0][:, both[0]] == images[1][:, both[1]]).flatten(2).all(2)
    assert alike.all() if "views" in same else alike.float().mean() < 0.05
    assert len(orders[0].unique()) == len(orders[0]) <= len(load("train", image_size=8))
    assert [batch.number for batch in shared] == [batch.number for batch in other]


def test_an_arm_does_not_depend_on_unshared_sources_of_other_arms(run: Path, tmp_path: Path) -> None:
    tiny.train(tmp_path / "alone", arms={"cl": "dcl"}, **tiny.FEW_IMAGES)
    assert equal(weights(tmp_path / "alone", "cl", 2), weights(run, "cl", 2))


def test_a_run_with_controls_resumes_without_a_changed_bit(run: Path, tmp_path: Path) -> None:
    """Stopped just after a perturbation: it is neither lost nor applied twice."""
    arms = tiny_arms(run)
    tiny.train(tmp_path / "run", arms=arms, max_steps=6, **tiny.FEW_IMAGES)
    tiny.train(tmp_path / "run", arms=arms, resume=True, **tiny.FEW_IMAGES)
    assert tiny.snapshot_bytes(tmp_path / "run") == tiny.snapshot_bytes(run)
    assert (tmp_path / "run/steps.csv").read_bytes() == (run / "steps.csv").read_bytes()


def tiny_arms(run: Path) -> dict[str, Any]:
    """The arms as in run.json, each written out."""
    arms: dict[str, Any] = json.loads((run / "run.json").read_text())["settings"]["arms"]
    return arms


def test_run_json_records_the_controls(run: Path) -> None:
    arms = tiny_arms(run)
    assert arms["cl"].keys() == arms["twin"].keys() - {"twin"}
    assert arms["later"]["perturb"] == {"ulps": 1, "step": 6}
    assert arms["views"]["unshared"] == ["augmentation"]


def test_a_perturbation_after_the_last_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"arms\.m\.perturb\.step: got 11; the run has 10 steps, allowed is 0 to 10"):
        tiny.train(tmp_path / "run", arms={"cl": "dcl", "m": {"twin": "cl", "perturb": {"step": 11}}})
