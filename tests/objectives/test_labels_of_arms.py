"""`nscl` with noisy and with coarse labels of one arm: the labels that it sees in a run, its ends, and refusals."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from support import tiny

import coupled
from coupled.arms import sanity_checks
from coupled.check_objective import checks
from coupled.config.label_noise import with_noise
from coupled.config.registry import find_objective, load_dataset
from coupled.objectives import Inputs, nscl
from coupled.stream.batches import step_batches
from coupled.stream.known_labels import label_groups

ARMS = {
    "cl": "dcl",
    "nscl": "nscl",
    "noisy": {"objective": "nscl", "label_noise": 0.5},
    "coarse": {"objective": "nscl", "label_groups": 2},
    "every": {"objective": "nscl", "label_groups": 10},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arms with true, noisy and coarse labels, two steps."""
    folder = tmp_path_factory.mktemp("labels") / "run"
    tiny.train(folder, arms=ARMS, epochs=1, batch={"size": 32}, max_steps=2)
    return folder


def losses(folder: Path, arm: str) -> list[float]:
    return [float(loss) for loss in pd.read_csv(folder / "steps.csv")[f"{arm}_loss"]]


@pytest.mark.parametrize("arm", ["noisy", "coarse"])
def test_an_arm_sees_its_own_labels(run: Path, arm: str) -> None:
    """The loss of the first step, computed from the snapshot of the start with labels drawn here."""
    start = coupled.open_run(run)
    settings, images = start.settings, start.images("train")
    noisy_N = with_noise(images, 0.5, settings.seed).labels_N
    labels_N = noisy_N if arm == "noisy" else label_groups(settings.seed, 10, 2)[images.labels_N]
    options = {"batch_size": settings.batch.size, "sampler": "uniform", "size": 8}
    recipes = {"": settings.augmentation.plain()}
    first = step_batches(1, dataset=images, seeds={"": (settings.seed,) * 2}, augmentations=recipes, **options)
    batch = next(iter(first))[""]
    with torch.no_grad():
        outputs = start.network(arm, epoch=0).train()(batch.views_VB3SS)
    labels = labels_N[batch.indices_B]
    loss = nscl.nscl(Inputs(outputs, outputs, labels, labels), temperature=settings.temperature).mean
    assert loss.item() == pytest.approx(losses(run, arm)[0], rel=1e-5)
    assert losses(run, arm)[0] != losses(run, "nscl")[0]


def test_noise_of_an_arm_is_that_of_the_dataset(run: Path, tmp_path: Path) -> None:
    """Bit for bit: both keys draw one and the same labels, so their runs can be compared."""
    noise = {**tiny.TINY["dataset"], "label_noise": 0.5}
    tiny.train(tmp_path / "run", arms={"nscl": "nscl"}, dataset=noise, epochs=1, batch={"size": 32}, max_steps=2)
    assert losses(tmp_path / "run", "nscl") == losses(run, "noisy")


def test_as_many_groups_as_classes_are_the_classes(run: Path) -> None:
    """Bit for bit: the names of the groups do not matter."""
    assert losses(run, "every") == losses(run, "nscl")


def test_coarser_labels_leave_fewer_negatives(run: Path) -> None:
    """Two groups: the images of about four other classes are no negatives any more, so the first loss is lower."""
    assert losses(run, "coarse")[0] < losses(run, "nscl")[0] < losses(run, "noisy")[0] < losses(run, "cl")[0]


def test_the_options_are_recorded_only_where_they_are_set(run: Path) -> None:
    """Runs without the options keep their digests."""
    arms = json.loads((run / "run.json").read_text())["settings"]["arms"]
    assert arms["noisy"] == {**arms["nscl"], "label_noise": 0.5}
    assert arms["coarse"] == {**arms["nscl"], "label_groups": 2}
    assert {*arms["nscl"]} == {"objective", "temperature", "positive_in_denominator"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": -0.1}, r"arms\.x\.label_noise: -0\.1 is not allowed; give a share from 0 to 1"),
        (
            {"label_groups": 1},
            r"arms\.x\.label_groups: 1 is not allowed; give 2 or more, at most the number of classes",
        ),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(options, message):
    """One group leaves no negative."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        find_objective("x", "nscl", options, 0.5)


def test_more_groups_than_classes_are_refused_before_the_first_step(tmp_path: Path) -> None:
    """Empty groups would be accepted and ignored."""
    with pytest.raises(ValueError, match=r"^arms\.x\.label_groups: got 11; the training images have 10 classes, "):
        tiny.train(tmp_path / "run", arms={"x": {"objective": "nscl", "label_groups": 11}})


def test_noise_of_the_dataset_and_of_an_arm_are_refused_together() -> None:
    """They draw the same numbers: together they would replace one set of labels twice."""
    noise = {**tiny.TINY["dataset"], "label_noise": 0.2}
    with pytest.raises(ValueError, match=r"^arms\.noisy\.label_noise: got 0\.5, but dataset\.label_noise=0\.2 already"):
        tiny.tiny_settings(dataset=noise, arms=ARMS)


@pytest.mark.parametrize("objective", ["supcon", "cross_entropy", "dcl"])
def test_objectives_that_would_ignore_the_options_refuse_them(objective):
    """Silence would train on the true labels."""
    with pytest.raises(ValueError, match=r"^arms\.x\.label_groups: unknown key"):
        find_objective("x", objective, {"label_groups": 2}, 0.5)


@pytest.mark.parametrize("options", [{"label_noise": 0.9}, {"label_groups": 2}])
def test_the_program_that_checks_objectives_takes_the_options(options):
    """It draws labels as a run does; all its checks pass."""
    failed = [each for each in checks(find_objective("x", "nscl", options, 0.5)) if not each.passed]
    assert failed == []


def test_labels_of_the_analysis_stay_true(run: Path) -> None:
    """Noise is a property of an arm, not of the images."""
    section = coupled.open_run(run).settings.dataset.model_dump()
    train = load_dataset(section, "train", seed=3)
    assert torch.equal(coupled.open_run(run).images("train").labels_N, train.labels_N)


def test_a_batch_of_one_class_is_no_certain_end_for_noisy_labels() -> None:
    """Noise gives such a batch other labels; the check before the start must not stop the run."""
    one = torch.zeros(8, dtype=torch.int64)
    counted = {p: sanity_checks.counts(find_objective("x", "nscl", {"label_noise": p}, 0.5), one) for p in (0, 0.5)}
    assert counted == {0: False, 0.5: True}
