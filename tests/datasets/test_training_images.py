"""Training images that differ from the split train: noisy labels, unlabelled images; and two label sets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat
from support import image_formats as formats
from support.tiny import tiny_settings, train
from torchvision.datasets import CIFAR100

from coupled.analysis import quality
from coupled.analysis.run import open_run
from coupled.config.label_noise import with_noise
from coupled.config.registry import load_dataset, load_train_images
from coupled.datasets import ImageDataset, cifar100, stl10, svhn
from coupled.stream.seeds import random_uint32

DIGITS = {"name": "digits", "image_size": 8}
FINE_TO_COARSE = """
4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15 13 14 17 18
10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17
8 14 13
"""  # the labels of CIFAR-100's own files: the coarse class of each fine class


def images(labels: list[int], classes: int) -> ImageDataset:
    none = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    colour = (0.5, 0.5, 0.5)
    return ImageDataset("x", "train", none, torch.tensor(labels), tuple(map(str, range(classes))), colour, colour)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 2**40))
def test_noise_equals_a_slow_loop_and_never_replaces_a_label_by_itself(labels: list[int], share: float, seed: int):
    """Symmetric noise: with probability `share`, one of the other classes."""
    noisy = with_noise(images(labels, 5), share, seed).labels_N.tolist()
    for number, label in enumerate(labels):
        chance, which = random_uint32(seed, "label noise", shape=(len(labels), 2))[number].tolist()
        others = [*range(label + 1, 5), *range(label)]
        assert noisy[number] == (others[which * 4 // 2**32] if chance < round(share * 2**32) else label)


def test_the_share_and_the_new_classes_of_the_noise_are_those_asked_for() -> None:
    """40 000 labels: four standard deviations of a binomial distribution. `random` labels do not depend on the true."""
    clean = images([number % 10 for number in range(40_000)], 10)
    noisy = with_noise(clean, 0.3, 1).labels_N
    assert abs(float((noisy != clean.labels_N).double().mean()) - 0.3) < 4 * (0.21 / 40_000) ** 0.5
    changed = noisy[(clean.labels_N == 3) & (noisy != 3)]
    counts_C = torch.bincount(changed, minlength=10)
    assert counts_C[3] == 0
    assert (counts_C[counts_C > 0] > 80).all()
    assert (counts_C > 0).sum() == 9
    assert bool((with_noise(clean, 1.0, 1).labels_N != clean.labels_N).all())
    random = with_noise(clean, "random", 1).labels_N
    pairs_CC = torch.bincount(clean.labels_N * 10 + random, minlength=100).reshape(10, 10)
    chi_squared = float(((pairs_CC - 400) ** 2 / 400).sum())
    assert chi_squared < 90 + 4 * (2 * 90) ** 0.5


def test_more_noise_replaces_more_labels_by_the_same_classes() -> None:
    """A sweep over the noise compares nested sets of labels; another seed gives other labels."""
    clean = load_dataset(DIGITS, "train", 0)
    some, more, other = (with_noise(clean, share, seed).labels_N for share, seed in ((0.2, 0), (0.6, 0), (0.2, 1)))
    replaced = some != clean.labels_N
    assert torch.equal(some[replaced], more[replaced])
    assert not torch.equal(some, other)


def test_a_run_trains_on_noisy_labels_and_is_analysed_with_the_true_ones(tmp_path: Path) -> None:
    """CL does not read labels, so noise leaves its bits as they are; NSCL changes. run.json has what was trained on."""
    arms = {"cl": "dcl", "nscl": "nscl"}
    runs, monitor = {}, {"metrics": ["nccc"], "every_epochs": 1}
    for name, noise in (("clean", {}), ("noisy", {"label_noise": 0.5})):
        coordinator = train(tmp_path / name, dataset={**DIGITS, **noise}, epochs=1, arms=arms, monitor=monitor)
        runs[name] = coordinator, json.loads((tmp_path / name / "run.json").read_text())
    clean, noisy = (about["dataset"] for _, about in runs.values())
    assert noisy["train_digest"] == clean["train_digest"]
    assert noisy["training_digest"] == runs["noisy"][0].images.digest() != clean["train_digest"]
    assert 600 < noisy["replaced_labels"] < 840
    assert noisy["training_images"] == 1440
    assert not {"training_digest", "replaced_labels"} & {*clean}
    assert runs["clean"][1]["settings"]["dataset"].keys() == {"name", "image_size", "num_workers"}
    weights = {name: [open_run(tmp_path / name).state_dict(arm, 1) for arm in arms] for name in runs}
    same = [
        all(torch.equal(a[key], b[key]) for key in a) for a, b in zip(weights["clean"], weights["noisy"], strict=True)
    ]
    assert same == [True, False]
    seen = [
        [row for row in (tmp_path / name / "monitor.csv").read_text().splitlines() if ",cl," in row] for name in runs
    ]
    assert seen[0] == seen[1] != []
    run = open_run(tmp_path / "noisy")
    assert torch.equal(run.images("train").labels_N, load_dataset(DIGITS, "train", 0).labels_N)


@pytest.mark.parametrize("noise", [-0.1, 1.5, "all", True, [0.5]])
def test_bad_noise_is_one_line(noise: object) -> None:
    with pytest.raises(ValueError, match=r"^dataset.label_noise: got .*; allowed is a share of 0 to 1, or random$"):
        tiny_settings(dataset={**DIGITS, "label_noise": noise})


def test_no_noise_is_the_same_experiment_as_none() -> None:
    """A sweep over the noise begins at 0; its settings must have the digest of a run without the key."""
    without, none = tiny_settings(), tiny_settings(dataset={**DIGITS, "label_noise": 0})
    assert without.sha256() == none.sha256()
    assert without.sha256() != tiny_settings(dataset={**DIGITS, "label_noise": "random"}).sha256()
    found = load_train_images(none.dataset.model_dump(), 0)
    assert found.steps is found.train


def test_unlabelled_images_of_stl10_are_trained_and_the_labelled_ones_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files store columns; unlabelled images have no label, and follow the labelled ones in `train+unlabeled`."""
    content = formats.unlabelled_stl10(tmp_path, monkeypatch)
    upright = torch.from_numpy(content.transpose(0, 1, 3, 2).copy())
    section = {"name": "stl10", "root": tmp_path}
    labelled = load_train_images(section, 0)
    assert labelled.steps is labelled.train
    for part, before in (("unlabeled", 0), ("train+unlabeled", 20)):
        steps, kept = load_train_images({**section, "train_part": part}, 0)
        assert torch.equal(steps.images_N3HW[before:], upright)
        assert steps.images_N3HW.is_contiguous()
        assert torch.equal(steps.images_N3HW[:before], kept.images_N3HW[:before])
        assert (steps.labels_N == -1).all()
        assert steps.class_names == ()
        assert (steps.mean, steps.std) == (kept.mean, kept.std)
        assert kept.digest() == labelled.train.digest()
        assert len(kept.class_names) == 10
    for key, value in (("classes", 3), ("label_noise", 0.5)):
        with pytest.raises(ValueError, match=f"^dataset.{key}: got .*train_part=unlabeled trains without labels"):
            load_train_images({**section, "train_part": "unlabeled", key: value}, 0)
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").unlink()
    with pytest.raises(ValueError, match="no complete, undamaged STL10 with its unlabelled images"):
        stl10.unlabelled(labelled.train, root=tmp_path, train_part="unlabeled")


def test_a_run_on_unlabelled_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arms that need labels are refused in one line; the others train, and quality uses the labelled images."""
    formats.unlabelled_stl10(tmp_path, monkeypatch)
    dataset = {"name": "stl10", "root": str(tmp_path), "image_size": 16, "train_part": "train+unlabeled"}
    options = {"dataset": dataset, "epochs": 1, "batch": {"size": 20}}
    with pytest.raises(ValueError, match=r"^arms: nscl \(nscl\) need labels, and the training images have none"):
        train(tmp_path / "refused", **options, arms={"cl": "dcl", "nscl": "nscl"})
    coordinator = train(tmp_path / "run", **options, arms={"cl": "dcl"})
    assert coordinator.steps_per_epoch == 50 // 20
    assert "1 epoch of 2 steps\ntraining steps use 50 images without labels" in capsys.readouterr().out
    about = json.loads((tmp_path / "run" / "run.json").read_text())["dataset"]
    assert (about["train_images"], about["training_images"], len(about["classes"])) == (20, 50, 10)
    table = quality.compute(open_run(tmp_path / "run"), epochs=[1], metrics=["nccc"], layers="h")
    assert set(table["num_train_images"]) == {20}
    with pytest.raises(ValueError, match=r"dataset.train_part was train.unlabeled, is unlabeled"):
        train(
            tmp_path / "run",
            resume=True,
            **{**options, "dataset": {**dataset, "train_part": "unlabeled"}},
            arms={"cl": "dcl"},
        )


def test_extra_images_of_svhn_follow_the_train_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and std stay those of the train images, so runs with and without `extra` are normalised alike."""
    formats.svhn(tmp_path, monkeypatch)
    train_set, extra = (svhn.load("train", root=tmp_path, extra=chosen) for chosen in (False, True))
    file = loadmat(tmp_path / "extra_32x32.mat")
    assert torch.equal(extra.images_N3HW[:20], train_set.images_N3HW)
    assert np.array_equal(extra.images_N3HW[20:].numpy(), file["X"].transpose(3, 2, 0, 1))
    assert extra.labels_N.tolist()[20:] == (file["y"][:, 0] % 10).tolist()
    assert (extra.mean, extra.std) == (train_set.mean, train_set.std)
    assert svhn.load("test", root=tmp_path, extra=True).digest() == svhn.load("test", root=tmp_path).digest()
    (tmp_path / "extra_32x32.mat").unlink()
    with pytest.raises(ValueError, match=r"dataset.root: .*extra_32x32.mat"):
        svhn.load("train", root=tmp_path, extra=True)


def test_coarse_labels_are_those_of_the_published_files() -> None:
    """The table by names in the code against the numbers in the files; each coarse class has five fine ones."""
    assert cifar100.coarse_of_fine().tolist() == [*map(int, FINE_TO_COARSE.split())]
    assert torch.bincount(cifar100.coarse_of_fine()).tolist() == [5] * 20


def test_a_run_on_fine_labels_is_measured_with_coarse_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are the same; only the labels differ. The default is not recorded, so old digests stay valid."""
    formats.cifar(CIFAR100, tmp_path, monkeypatch)
    dataset = {"name": "cifar100", "root": str(tmp_path)}
    fine, coarse = (load_dataset({**dataset, "labels": which}, "test", 0) for which in ("fine", "coarse"))
    assert torch.equal(fine.images_N3HW, coarse.images_N3HW)
    assert torch.equal(coarse.labels_N, cifar100.coarse_of_fine()[fine.labels_N])
    assert len(coarse.class_names) == 20
    train(tmp_path / "run", dataset=dataset, epochs=0, arms={"cl": "dcl"}, batch={"size": 100})
    run = open_run(tmp_path / "run")
    assert "labels" not in run.settings.dataset.options
    assert tiny_settings(dataset={**dataset, "labels": "coarse"}).dataset.options["labels"] == "coarse"
    table = quality.compute(run, metrics=["nccc"], layers="h", split="test", dataset="labels=coarse")
    assert set(table["dataset"]) == {"labels=coarse"}
    own = quality.compute(run, metrics=["nccc"], layers="h", split="test")
    assert not table["value"].equals(own["value"])
    with pytest.raises(ValueError, match=r"--dataset labels=medium: .*'fine' or 'coarse'"):
        quality.compute(run, metrics=["nccc"], dataset="labels=medium")
