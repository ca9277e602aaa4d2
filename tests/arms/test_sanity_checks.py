"""Warnings and refusals before a run starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny

from coupled.arms.sanity_checks import counts, one_class, unfilled_queues
from coupled.arms.summary import papers_temperatures
from coupled.arms.without_effect import without_effect
from coupled.config.registry import find_objective
from coupled.stream.sampler import order

LABELS_N = np.repeat([0, 1, 2], 40)


def objectives(**names: str) -> dict[str, Any]:
    return {arm: find_objective(arm, name, {}, 0.5) for arm, name in names.items()}


def look(batch_size: int, epochs: int = 100, kind: str = "uniform", **names: str) -> list[str]:
    return [*one_class(objectives(**names), dict.fromkeys(names, 7), LABELS_N, batch_size, kind, epochs)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_first_step_without_negatives_is_named_before_the_start(size: int) -> None:
    """The order is known in advance, and so is the first batch of one class."""
    steps = np.concatenate([LABELS_N[order(7, epoch, LABELS_N, size)] for epoch in range(1, 101)])
    first = next(step for step, labels_B in enumerate(steps, 1) if len({*labels_B.tolist()}) == 1)
    with pytest.raises(ValueError, match=rf"^batch\.size: got {size}; the images of step {first} are all .* arm b has"):
        look(size, a="dcl", b="nscl")


def test_objectives_with_negatives_in_every_batch_are_accepted() -> None:
    """CL needs only other images; SCL's denominator has all other rows; CE needs no negatives."""
    assert look(2, a="dcl", b="supcon", c="cross_entropy", d="vicreg", e="byol") == []
    assert look(60, b="nscl") == []
    assert look(6, b="nscl", kind="balanced") == []


def test_a_possible_batch_without_negatives_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking all epochs of a large dataset would take minutes."""
    monkeypatch.setattr("coupled.arms.sanity_checks.LOOKED_THROUGH", 1)
    (line,) = look(7, b="nscl")
    assert line.startswith("batch.size: got 7; 2.3 batches of one class are expected after epoch 1")


def test_objectives_that_need_another_class_are_detected() -> None:
    """There is no list of objectives: a new objective is a new file."""
    labels_B, names = (
        torch.zeros(4, dtype=torch.int64),
        ("dcl", "nscl", "n_pairs", "triplet", "supcon", "directpred", "spectral"),
    )
    assert [name for name, each in objectives(**{n: n for n in names}).items() if not counts(each, labels_B)] == [
        "nscl",
        "n_pairs",
        "triplet",
    ]


def said(device: str = "cpu", **changed: Any) -> list[str]:
    settings = tiny.tiny_settings(**changed).resolved()
    chosen = {
        arm: find_objective(
            arm, of["objective"], {k: v for k, v in of.items() if k != "objective"}, settings["temperature"]
        )
        for arm, of in settings["arms"].items()
    }
    return [line.split(":")[0] for line in without_effect(settings, chosen, device)]


def test_a_key_without_effect_is_a_warning() -> None:
    """A user who sets it expects an effect."""
    none: dict[str, Any] = {"arms": {"ce": {"objective": "cross_entropy", "input": "embedding"}}}
    assert said() == []
    assert said(temperature=0.3) == []
    assert said(temperature=0.3, **none, projector={}) == ["temperature"]
    assert said(temperature=0.3, arms={"cl": {"objective": "dcl", "temperature": 0.2}}) == ["temperature"]
    assert said(**none, projector={}) == []
    assert said(**none) == ["projector"]
    assert said(augmentation={"blur_sigma": [1, 2]}) == ["augmentation.blur_sigma"]
    assert said(augmentation={"blur_sigma": [1, 2], "blur_prob": 0.1}) == []
    assert said(augmentation={"jitter_prob": 0, "hue": 0.2}) == ["augmentation.hue"]
    assert said(augmentation={"jitter_prob": 0, "preset": "imagenet"}) == []
    assert said(augmentation={"solarize_threshold": 0.0, "rotation_degrees": 5}) == [
        *("augmentation.solarize_threshold", "augmentation.rotation_degrees")
    ]
    second = {"solarize_prob": 0.2, "solarize_threshold": 0.3, "blur_sigma": [1, 2]}
    assert said(augmentation={"solarize_threshold": 0.4, "blur_prob": 0.1, "second": second}) == [
        "augmentation.solarize_threshold"  # the second view has its own
    ]
    assert said(augmentation={"solarize_threshold": 0.4, "second": {"solarize_prob": 0.2}}) == []
    assert said(augmentation={"second": second}) == ["augmentation.second.blur_sigma"]
    assert said(snapshots={"dense_until_epoch": 3}) == ["snapshots.dense_until_epoch"]
    assert said(snapshots={"dense_until_epoch": 3, "every_epochs": 2}) == []
    assert said(tf32=True) == ["tf32"]
    assert said("cuda", tf32=True) == []


def test_a_run_warns_about_keys_without_effect_at_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not only the function that finds them."""
    tiny.train(tmp_path / "run", max_steps=1, tf32=True, arms={"cl": "dcl"})
    assert "warning: tf32: has no effect, because the device is cpu" in capsys.readouterr().out


def test_a_queue_that_the_run_does_not_fill_is_a_warning() -> None:
    """The default of MoCo, 65 536 rows, fits a long run; in a short one most negatives would be random directions."""
    moco, small = (
        find_objective("m", "moco", options, 0.5) for options in ({"queue_size": 1001}, {"queue_size": 1000})
    )
    (line,) = unfilled_queues({"m": moco, "small": small, "cl": find_objective("cl", "dcl", {}, 0.5)}, 5, 200)
    assert line.startswith("arms.m.queue_size: got 1,001, but the run adds only 1,000 rows (5 x 200); the other rows")
    assert [*unfilled_queues({"m": moco}, 0, 200)] == []  # epochs: 0 only writes the start
    directions = find_objective("p", "directpred_partitions", {"partitions": 1024}, 0.5)
    assert [*unfilled_queues({"p": directions}, 5, 200)] == []  # random rows that are no queue


def test_a_queue_that_is_never_full_is_a_warning_if_it_is_used_only_then() -> None:
    """SwAV's queue would be accepted and ignored, also if its rows enter too late; the centre of DINO is no queue."""
    swav = {
        f"{size} {start}": find_objective("s", "swav", {"queue_size": size, "queue_start": start}, 0.1)
        for size, start in ((1000, 0), (1001, 0), (800, 1), (801, 1), (1, 5))
    }
    lines = [*unfilled_queues(swav | {"dino": find_objective("d", "dino", {}, 0.1)}, 5, 200)]
    assert [line.split(".")[1] for line in lines] == ["1001 0", "801 1", "1 5"]
    assert lines[1] == (
        "arms.801 1.queue_size: got 801, but the run adds only 800 rows (4 x 200); the queue has no effect;"
        " use fewer rows, or more epochs"
    )


def test_an_arm_that_has_the_temperature_of_the_run_instead_of_its_papers_is_named() -> None:
    """SwAV at the demo's temperature of 0.5 trains badly, and its line alone does not say why."""
    arms = {name: find_objective(name, name, {}, 0.5) for name in ("dcl", "swav", "vicreg")}
    arms["own"] = find_objective("own", "dino", {"temperature": 0.2}, 0.5)
    (line,) = papers_temperatures(arms, 0.5)
    assert line == (
        "arm swav: temperature 0.5 is that of the run; the paper of swav has 0.1 (arms.swav.temperature=0.1)"
    )
    assert [*papers_temperatures({"swav": find_objective("swav", "swav", {}, 0.1)}, 0.1)] == []
