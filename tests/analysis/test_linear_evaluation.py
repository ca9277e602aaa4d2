"""linear-evaluation: the classifiers equal a slow form, are independent of each other, and their rows and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import published
from torch.nn.functional import one_hot

import coupled.metrics
from coupled.analysis.linear_evaluation import compute, keys_of, main
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_sample
from coupled.analysis.representations.linear_classifiers import Trained, linear, protocol_of, train_classifiers
from coupled.analysis.run import Run, open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.config.recipe_settings import PRESETS
from coupled.config.schema import Settings
from coupled.stream.augment import augment, normalise
from coupled.stream.seeds import permutation, philox
from coupled.stream.view_plan import view_plan

Read = Callable[[Path], list[dict[str, str]]]
SMALL = ["--num-images", "96", "--batch-size", "32", "--train-epochs", "2", "--lr", "0.1"]


def trained(run: Run, arms: list[str], rates: list[float], epochs: int = 3, **changed: Any) -> dict[Trained, Any]:
    """Return the classifiers of h of some arms on 96 images."""
    embedder = Embedder(run, torch.device("cpu"))
    protocol = protocol_of(run.settings, changed, {"crop_scale": [0.5, 1.0]}, epochs, 32)
    wanted = [Trained(arm, "h", lr) for arm in arms for lr in rates]
    networks = {arm: embedder.network(arm, 2) for arm in arms}
    return train_classifiers(networks, load_sample(run, "train", 96, False), wanted, protocol, run.settings)


def slow_weights(run: Run, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Train by hand in float64: SGD with momentum .9, the rate times .2 after 2 of 3 epochs (60 and 75 % are one)."""
    settings: Settings = run.settings
    images, network = run.images("train"), run.network("scl", 2)
    chosen = choose_images(len(images), 96, settings.seed, "train").numpy()
    recipe = settings.augmentation.model_copy(update={"crop_scale": (0.5, 1.0)}).plain()
    layer = linear(32, 10, settings.seed)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for epoch in (1, 2, 3):
        plan = view_plan(settings.seed, epoch, len(images), recipe, "analysis/linear_evaluation views")
        order = chosen[permutation(96, philox(settings.seed, "analysis/linear_evaluation order", epoch))]
        for places in order.reshape(3, 32):
            pixels = augment(images.images_N3HW[places], plan[places], 8)[0]
            with torch.no_grad():
                rows = network(normalise(pixels, images.mean, images.std)[None])["embedding"][0].double()
            wrong = (rows @ weight.T + bias).softmax(1) - one_hot(images.labels_N[places], 10).double()
            for momentum, gradient in zip(momenta, (wrong.T @ rows / 32, wrong.mean(0)), strict=True):
                momentum.mul_(0.9).add_(gradient)
            rate = lr if epoch < 3 else 0.2 * lr
            weight, bias = weight - rate * momenta[0], bias - rate * momenta[1]
    return weight, bias


def test_a_classifier_equals_one_trained_by_hand(drifting_run: Path) -> None:
    """A wrong order, view, schedule or momentum, or a view of the training's stream, gives other weights."""
    run = open_run(drifting_run)
    (classifier,) = trained(run, ["scl"], [0.3]).values()
    weight, bias = slow_weights(run, 0.3)
    assert (weight - linear(32, 10, run.settings.seed).weight).abs().max() > 0.1
    torch.testing.assert_close(classifier.weight.double(), weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(classifier.bias.double(), bias, rtol=1e-4, atol=1e-4)


def test_a_classifier_does_not_depend_on_the_others_and_the_network_is_unchanged(drifting_run: Path) -> None:
    """Arms and rates share the views only; a draw from a global generator would change a training in this process."""
    run = open_run(drifting_run)
    state = torch.get_rng_state()
    alone, again = (trained(run, ["ce"], [0.3], epochs=1) for _ in range(2))
    beside = trained(run, ["cl", "ce"], [5.0, 0.3], epochs=1)
    key = Trained("ce", "h", 0.3)
    assert torch.equal(alone[key].weight, again[key].weight)
    assert torch.equal(alone[key].weight, beside[key].weight)
    assert not torch.equal(beside[key].weight, beside[Trained("cl", "h", 0.3)].weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in run.network("ce", 2).parameters())


@pytest.mark.parametrize("name", ["lars", "adamw", "rmsprop"])
def test_the_chosen_optimizer_trains_the_classifier(drifting_run: Path, name: str) -> None:
    """An optimizer that is accepted and ignored would give the weights of SGD. tests/models compare their steps."""
    run = open_run(drifting_run)
    (classifier,) = trained(run, ["ce"], [0.01], epochs=1, name=name).values()
    (other,) = trained(run, ["ce"], [0.01], epochs=1).values()
    assert 1e-5 < (classifier.weight - linear(32, 10, run.settings.seed).weight).abs().max() < 1
    assert not torch.allclose(other.weight, classifier.weight, rtol=1e-3)


def test_rows_hold_the_metrics_of_the_logits_of_clean_images(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arms, layers, splits and rates must not be mixed up; a second call computes nothing."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), *SMALL, "--arms", "cl", "ce"]
    assert main([*base, "--split", "train", "test", "--layers", "h", "z"]) == 0
    rows = table(tmp_path / "linear_evaluation.csv")
    assert tuple(rows[0]) == SCHEMAS["linear_evaluation.csv"].columns
    assert len(rows) == 2 * 2 * 2 * 4
    assert {(r["epoch"], r["optimizer"], r["lr"], r["num_images"], r["num_train_images"]) for r in rows} == {
        ("2", "sgd", "0.1", "96", "96")
    }
    run = open_run(drifting_run)
    embedder = Embedder(run, torch.device("cpu"))
    sample = load_sample(run, "test", 96, False)
    protocol = protocol_of(run.settings, {}, {}, 2, 32)
    wanted = [Trained("ce", "z", 0.1)]
    network = embedder.network("ce", 2)
    (classifier,) = train_classifiers(
        {"ce": network}, load_sample(run, "train", 96, False), wanted, protocol, run.settings
    ).values()
    (found,) = (batch["ce", "z"] for batch in embedder.outputs(*sample[:2], ["ce"], 2, ["z"]))
    logits = classifier(found).detach()
    for row in (r for r in rows if (r["split"], r["arm"], r["module"]) == ("test", "ce", "z")):
        expected = getattr(coupled.metrics, row["metric"])(logits, sample.images.labels_N[sample.chosen_N])
        assert float(row["value"]) == pytest.approx(expected, abs=1e-6)
    capsys.readouterr()
    assert main([*base, "--layers", "z"]) == 0
    assert "0 new rows, 32 in all" in capsys.readouterr().out
    frame = compute(run, arms=["cl", "ce"], lr=0.1, train_epochs=2, batch_size=32, num_images=96)
    assert frame["value"].tolist() == [float(r["value"]) for r in rows if (r["split"], r["module"]) == ("test", "h")]


def test_the_protocol_names_what_was_chosen(drifting_run: Path) -> None:
    """Rows of different trainings must differ in it, and two spellings of one training must not."""
    settings = open_run(drifting_run).settings
    usual = protocol_of(settings, {}, {}, 100, 512)
    assert usual.text == (
        "epochs=100 batch_size=512 lr_scaling=none momentum=0.9 weight_decay=0.0 exclude_1d=false warmup_epochs=0.0"
        " schedule=step milestones=[60,75,90] gamma=0.2"
    )
    assert (usual.augmentation.views, usual.augmentation.recipe()) == (1, settings.augmentation.recipe())
    same = {"hflip_prob": settings.augmentation.hflip_prob, "preset": "cifar"}
    assert protocol_of(settings, {"momentum": 0.9}, same, 100, 512).text == usual.text
    other = protocol_of(settings, {"name": "rmsprop", "schedule": "cosine"}, {"crop_scale": [0.2, 1.0]}, 9, 64)
    assert other.text == (
        "epochs=9 batch_size=64 lr_scaling=none momentum=0.0 alpha=0.99 weight_decay=0.0 exclude_1d=false"
        " warmup_epochs=0.0 schedule=cosine augmentation.crop_scale=[0.2,1.0]"
    )
    stacked = protocol_of(settings, {}, {"preset": "stacked_rand_augment"}, 1, 64)
    assert stacked.augmentation.policy == PRESETS["stacked_rand_augment"]["policy"] == "rand_augment"
    assert "schedule=constant augmentation.brightness=0.8" in stacked.text


def test_the_header_of_the_paper_gives_every_augmentation_of_stage_2_for_every_one_of_stage_1() -> None:
    """The four of stage 1 in their order; a key that is left from stage 1 would give a fifth augmentation."""
    path = published.CONFIGS / "supcon/augmentation.yaml"
    runs = published.settings_of(path)
    lines = [line.split()[1:] for line in published.header(path) if line.startswith("--augmentation ")]
    assert len(lines) == len(runs) == 4
    for line, expected in zip(lines, runs, strict=True):
        for run in runs:
            found = protocol_of(run, {}, keys_of("augmentation", line), 90, 512).augmentation
            assert found.recipe() == expected.augmentation.plain().recipe()


def test_a_classifier_that_diverges_has_no_value(drifting_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A logit that is not finite would count as the lowest class."""
    options = {"arms": "ce", "train_epochs": 2, "batch_size": 32, "num_images": 96}
    frame = compute(open_run(drifting_run), **options, lr=1e38, optimizer={"lr_scaling": "none"})
    assert frame["value"].isna().all()
    assert "ce h lr 1e+38, top1 classifier: no value: the classifier diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--batch-size", "97"], "--batch-size: got 97; the classifiers are trained on 96 images"),
        (["--optimizer", "base_lr=1"], "--optimizer: got base_lr; the learning rate is --lr; allowed are alpha, betas"),
        (["--optimizer", "momentum"], "--optimizer: got 'momentum'; write KEY=VALUE, such as weight_decay=1e-4"),
        (["--optimizer", "momentum=0", "momentum=1"], "--optimizer: got 'momentum=1'; the key is given twice"),
        (["--optimizer", "name=adam"], "optimizer.name: got 'adam'; allowed are 'lars', 'sgd', 'adamw' or 'rmsprop'"),
        (["--optimizer", "milestones=[2]"], "optimizer.milestones: got 2 with epochs: 2; give epochs from the end of"),
        (["--augmentation", "views=4"], "--augmentation: got views; allowed are blur_prob, blur_sigma"),
        (["--augmentation", "mixup_alpha=1"], "--augmentation: got mixup_alpha; allowed are "),
        (["--augmentation", "crop_scal=1"], "augmentation.crop_scal: unknown key; did you mean"),
        (["--augmentation", "blur_taps=17"], "augmentation.blur_taps: got 17 for views of 8 px; allowed are odd"),
        (["--lr", "0"], "argument --lr: got '0'; a number above 0 is allowed"),
        (["--epochs", "7"], "--epochs: arm 'cl' has no snapshot of epoch 7"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """The line names the option or key, the value and what is allowed."""
    given = {SMALL[i]: SMALL[i + 1] for i in range(0, len(SMALL), 2) if SMALL[i] not in arguments}
    words = [*np.ravel([*given.items()]).tolist(), *arguments]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled linear-evaluation: {part}")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out/*.csv"))
