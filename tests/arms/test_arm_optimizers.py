"""Keys of `optimizer` of an arm's own: inherited by twins, resumed exactly and named in figures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import tiny

from coupled.analysis.plots.figure_tables import figure_tables
from coupled.analysis.run import open_run
from coupled.config.arm_sections import not_shared, not_shared_text
from coupled.config.schema import from_resolved

OWN = {"name": "rmsprop", "base_lr": 0.002, "schedule": "step", "milestones": [1], "head_weight_decay": 0.1}
BYOL = {"objective": "byol", "hidden_dim": 32, "ema_decay": 0.9, "target_schedule": "cosine"}
ARMS: dict[str, Any] = {
    "cl": "dcl",
    "ce": {"objective": "cross_entropy", "optimizer": OWN},
    "copy": {"twin": "ce"},
    "byol": {**BYOL, "optimizer": {"exclude_1d": False, "head_lr_multiplier": 10.0}},
}


def settings_of(*arms: str, **optimizer: Any) -> dict[str, Any]:
    return {"arms": {arm: ARMS[arm] for arm in arms}, "optimizer": {**tiny.TINY["optimizer"], **optimizer}}


@pytest.mark.slow
def test_an_arm_with_its_own_optimizer_resumes_exactly(tmp_path: Path) -> None:
    """Every byte of every snapshot, after a stop within an epoch; a twin has the optimizer of its sibling."""
    run, stopped = (tmp_path / name for name in ("run", "stopped"))
    tiny.train(run, **settings_of(*ARMS))
    tiny.train(stopped, max_steps=7, **settings_of(*ARMS))
    tiny.train(stopped, resume=True, **settings_of(*ARMS))
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(stopped)
    first, copy, start = (tiny.tensors(run, arm, epoch) for arm, epoch in (("ce", 2), ("copy", 2), ("ce", 0)))
    assert all(torch.equal(first[key], copy[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], start["classifier.weight"])

    rates = pd.read_csv(run / "epochs.csv").pivot(index="epoch", columns="arm", values="lr")
    assert list(rates["ce"]) == list(rates["copy"]) == [0.002, pytest.approx(0.0002)]
    assert rates["cl"].iloc[0] > 0.002
    steps = pd.read_csv(run / "steps.csv")
    assert [*steps][3:7] == ["lr", "ce_lr", "copy_lr", "byol_lr"]
    last = steps.groupby("epoch")[["lr", "ce_lr", "copy_lr", "byol_lr"]].last()
    assert last.to_numpy().tolist() == rates[["cl", "ce", "copy", "byol"]].to_numpy().tolist()

    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["arms"]["ce"]["optimizer"]["momentum"] == 0.0  # resolved: the default of rmsprop
    named = "; byol optimizer.exclude_1d, optimizer.head_lr_multiplier"
    assert named in figure_tables(open_run(run)).note


def test_the_section_of_an_arm_is_whole_and_equal_keys_are_shared() -> None:
    """Two spellings of one experiment have one digest, and run.json reads back to the same settings."""
    whole = tiny.tiny_settings(**settings_of(*ARMS))
    assert from_resolved(whole.resolved()) == whole
    assert not_shared(whole.resolved())["byol"] == ["optimizer.exclude_1d", "optimizer.head_lr_multiplier"]
    assert "optimizer.name" in not_shared(whole.resolved())["copy"]
    plain, equal = (
        tiny.tiny_settings(arms={"cl": {"objective": "dcl", "optimizer": own}}) for own in (None, {"base_lr": 0.06})
    )
    assert plain.sha256() == equal.sha256()
    assert not_shared_text(plain.resolved()) == ""
    changed = tiny.tiny_settings(**settings_of("cl", "ce", weight_decay=0.3))
    assert changed.optimizer_of("ce").weight_decay == 0.3
    assert changed.optimizer_of("ce").schedule == "step"


def test_unused_keys_are_not_in_the_digest() -> None:
    """Keys at their default are omitted, so a run without them has the same digest."""
    resolved = tiny.tiny_settings().resolved()
    assert list(resolved["optimizer"]) == [
        *("name", "base_lr", "lr_scaling", "momentum", "betas", "weight_decay", "warmup_epochs", "schedule"),
        "clip_grad_norm",
    ]
    assert all({"optimizer", "target_schedule"}.isdisjoint(arm) for arm in resolved["arms"].values())


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"base_lrr": 1.0}, "arms.ce.optimizer.base_lrr: unknown key; did you mean 'base_lr'"),
        ({"schedule": "step"}, "arms.ce.optimizer.milestones: missing"),
        ({"schedule": "step", "milestones": [2]}, "arms.ce.optimizer.milestones: got 2 with epochs: 2"),
        ({"schedule": "warmup_stable_decay", "decay_epochs": 3.0}, "arms.ce.optimizer.decay_epochs: got 3"),
        ({"name": "adamw", "momentum": 0.9}, "arms.ce.optimizer.momentum: got 0.9 with adamw"),
        ({"warmup_epochs": 2.0}, "arms.ce.optimizer.warmup_epochs: got 2 with epochs: 2"),
    ],
)
def test_a_wrong_key_of_an_arm_is_named(own: dict[str, Any], message: str) -> None:
    """One line with the arm's key, not that of the shared section."""
    with pytest.raises(ValueError, match="^settings: " + message.replace(".", r"\.")):
        tiny.tiny_settings(arms={"cl": "dcl", "ce": {"objective": "cross_entropy", "optimizer": own}})


def test_a_target_schedule_needs_a_target_network() -> None:
    """It has no effect on DCL, so it is refused."""
    with pytest.raises(ValueError, match=r"arms\.cl\.target_schedule: got cosine with 'dcl'"):
        tiny.tiny_settings(arms={"cl": {"objective": "dcl", "target_schedule": "cosine"}})


@pytest.mark.parametrize(("key", "value"), [("head_lr_multiplier", 10.0), ("head_weight_decay", 0.0)])
def test_settings_of_heads_need_a_head(key: str, value: float) -> None:
    """A key that nothing uses would be accepted and ignored."""
    plain, with_head = {"objective": "dcl"}, {"objective": "byol", "hidden_dim": 32}
    with pytest.raises(ValueError, match=rf"optimizer\.{key}: got {value}, but no arm has a predictor or classifier"):
        tiny.tiny_settings(arms={"cl": plain}, optimizer={key: value})
    own = {**plain, "optimizer": {key: value}}
    with pytest.raises(ValueError, match=rf"arms\.cl\.optimizer\.{key}: got {value}, but the arm has no predictor"):
        tiny.tiny_settings(arms={"cl": own, "byol": with_head})
    tiny.tiny_settings(arms={"cl": {**plain, "optimizer": {"base_lr": 0.1}}, "byol": with_head}, optimizer={key: value})


def test_epochs_may_change_only_if_no_arm_depends_on_them() -> None:
    """A cosine of one arm, or of its target network, would take another course."""
    endless = {"schedule": "constant"}
    assert "epochs" in tiny.tiny_settings(**settings_of("cl", "ce", **endless)).may_change()
    assert "epochs" not in tiny.tiny_settings(**settings_of("cl", "byol", **endless)).may_change()
    cosine = {"cl": {"objective": "dcl", "optimizer": {"schedule": "cosine"}}}
    optimizer = {**tiny.TINY["optimizer"], **endless}
    assert "epochs" not in tiny.tiny_settings(arms=cosine, optimizer=optimizer).may_change()
