"""pretext: the transformations equal other implementations, each image has its own, and the rows of the program."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from coupled.analysis.pretext import accuracy, compute, main
from coupled.analysis.probe_parsers import PRETEXT_TASKS
from coupled.analysis.representations.embeddings import Embedder, Sample, load_sample
from coupled.analysis.representations.pretext_tasks import (
    NOISE,
    TASKS,
    drawn_classes,
    noise_of,
    pretext_features,
    sobel,
    transformed,
)
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.metrics import linear_probe
from coupled.metrics.arm import Labelled
from coupled.stream.augment import clean_views, normalise

Read = Callable[[Path], list[dict[str, str]]]
PIXELS = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
NUMPY = PIXELS.double().numpy()
GREY = np.repeat(np.tensordot([0.2989, 0.587, 0.114], NUMPY, (0, 1))[:, None], 3, axis=1)


def blurred(sigma: float, taps: int) -> np.ndarray:
    return ndimage.gaussian_filter(NUMPY, sigma, mode="mirror", radius=taps // 2, axes=(-2, -1))


def gradients() -> np.ndarray:
    planes = NUMPY.reshape(-1, 12, 12)  # scipy smooths along all other axes
    found = [np.hypot(*(ndimage.sobel(plane, axis=axis, mode="nearest") for axis in (0, 1))) for plane in planes]
    return np.reshape(found, NUMPY.shape) / np.sqrt(20)


@pytest.mark.parametrize(
    ("task", "which", "expected"),
    [
        ("rotation", 0, NUMPY),
        ("rotation", 1, np.rot90(NUMPY, 1, (2, 3))),
        ("rotation", 3, np.rot90(NUMPY, -1, (2, 3))),
        ("colour", 0, NUMPY),
        ("colour", 1, GREY),
        ("channels", 0, NUMPY),
        ("channels", 3, NUMPY[:, [1, 2, 0]]),
        ("corruption", 0, NUMPY),
        ("corruption", 1, np.clip(NUMPY + NOISE * 2, 0, 1)),
        ("corruption", 2, blurred(12 / 32, 3)),
        ("corruption", 3, gradients()),
    ],
)
def test_a_transformation_equals_that_of_numpy_or_scipy(task: str, which: int, expected: np.ndarray) -> None:
    """A transformation that does nothing would give the accuracy of guessing, as if z had lost everything."""
    found = TASKS[task].transform(PIXELS, which, torch.full_like(PIXELS, 2.0))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    assert (which == 0) == torch.equal(found, PIXELS)


def test_the_largest_gradient_is_1() -> None:
    """A larger one would be outside the range of pixels; all patterns of 3 x 3 black and white pixels are tried."""
    patterns = torch.tensor([*product((0.0, 1.0), repeat=9)]).view(-1, 1, 3, 3)
    assert float(sobel(patterns)[:, 0, 1, 1].max()) == pytest.approx(1, abs=1e-6)


def test_each_transformation_has_as_many_images_and_is_drawn_anew_for_each_task_and_split() -> None:
    """Unequal numbers would change the accuracy of guessing; equal draws would tie the tasks to each other."""
    drawn = {(task, split): drawn_classes(task, split, 30, 4) for task in TASKS for split in ("train", "test")}
    for (task, _), classes_N in drawn.items():
        counts = classes_N.bincount(minlength=len(TASKS[task].classes))
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(drawn["rotation", "train"], drawn["rotation", "test"])
    assert not torch.equal(drawn["rotation", "train"], drawn["corruption", "train"])
    assert torch.equal(drawn["rotation", "train"], drawn_classes("rotation", "train", 30, 4))
    assert not torch.equal(drawn["rotation", "train"], drawn_classes("rotation", "train", 30, 5))
    noise = torch.stack([noise_of(4, "test", image, 15) for image in range(40)])
    assert noise.shape == (40, 3, 15, 15)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("task", ["rotation", "corruption"])
def test_the_representations_are_those_of_each_image_with_its_transformation(drifting_run: Path, task: str) -> None:
    """Image by image; a label of another image would give the accuracy of guessing."""
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    sample = load_sample(embedder.run, "test", 20, False)
    found, coloured = pretext_features(embedder, sample, "test", task, "nscl", 2, ["h", "z"])
    assert not coloured  # digits
    images, seed = sample.images, embedder.settings.seed
    classes = drawn_classes(task, "test", 20, seed)
    assert torch.equal(found["h"].labels_N, classes)
    mean, std = (torch.tensor([*each])[:, None, None] for each in (images.mean, images.std))
    for place in range(0, 20, 3):
        image = int(sample.chosen_N[place])
        pixels = clean_views(images.images_N3HW[image][None], 8, images.mean, images.std) * std + mean
        changed = TASKS[task].transform(pixels, int(classes[place]), noise_of(seed, "test", image, 8)[None])
        with torch.no_grad():
            outputs = embedder.network("nscl", 2)(normalise(changed, images.mean, images.std)[None])
        torch.testing.assert_close(found["h"].rows_ND[place], outputs["embedding"][0, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["z"].rows_ND[place], outputs["projection"][0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["colour", "channels"])
def test_images_with_colours_are_transformed_in_their_own_pixels(drifting_run: Path, task: str) -> None:
    """Transformed after the normalisation, a channel would have the mean and deviation of another."""
    run = open_run(drifting_run)
    pixels = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    images = replace(run.images("test"), images_N3HW=pixels, labels_N=torch.zeros(9).long(), mean=mean, std=std)
    sample = Sample(images, torch.tensor([0, 2, 3, 5, 8]), "")
    ((views, classes, coloured),) = transformed(sample, "test", task, run.settings, torch.device("cpu"))
    assert coloured
    for view, which, image in zip(views, classes, (0, 2, 3, 5, 8), strict=True):
        expected = TASKS[task].transform(pixels[image][None] / 255, int(which), None)[0]
        for channel in range(3):
            torch.testing.assert_close(
                view[channel], (expected[channel] - mean[channel]) / std[channel], rtol=1e-4, atol=1e-4
            )


def test_rows_hold_the_accuracies_of_the_probe_on_test(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Splits, layers and tasks must not be mixed up; grey images have no colour to predict; nothing is done twice."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--epochs", "2", "--arms", "nscl"]
    base += ["--num-images", "30"]
    assert main([*base, "--tasks", "rotation", "colour"]) == 0
    said = capsys.readouterr().out
    assert said.count("colour: no value: all images are grey (first for epoch ") == 1  # and not for every arm and layer
    rows = table(tmp_path / "pretext.csv")
    assert tuple(rows[0]) == SCHEMAS["pretext.csv"].columns
    assert [(r["task"], r["module"], r["chance"]) for r in rows] == [
        *[("rotation", "h", "0.25"), ("rotation", "z", "0.25"), ("colour", "h", "0.5"), ("colour", "z", "0.5")]
    ]
    assert [bool(r["value"]) for r in rows] == [True, True, False, False]
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    of_split = [
        pretext_features(embedder, load_sample(embedder.run, split, 30, False), split, "rotation", "nscl", 2, ["z"])
        for split in ("train", "test")
    ]
    expected = linear_probe(*of_split[0][0]["z"], *of_split[1][0]["z"], seed=embedder.settings.seed)
    assert float(rows[1]["value"]) == expected
    assert main([*base, "--tasks", "rotation"]) == 0
    assert "0 new rows, 4 in all" in capsys.readouterr().out
    frame = compute(embedder.run, arms="nscl", epochs=2, layers="z", tasks="rotation", num_images=30)
    assert frame["value"].tolist() == [expected]


def test_only_tasks_of_colours_need_coloured_images() -> None:
    """A number for grey images would compare the transformation with itself."""
    generator = torch.Generator().manual_seed(0)
    rows = Labelled(torch.randn(40, 3, generator=generator), torch.arange(40) % 2)
    assert accuracy(rows, rows, "channels", False, 0).reason == "all images are grey"
    assert 0.4 <= accuracy(rows, rows, "channels", True, 0) <= 1
    assert 0.4 <= accuracy(rows, rows, "rotation", False, 0) <= 1


def test_bad_input_is_one_line_and_status_2(drifting_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser has a copy of the names of the tasks, because the tasks need torch."""
    assert tuple(TASKS) == PRETEXT_TASKS
    assert main(["--run-dir", str(drifting_run), "--tasks", "jigsaw"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("coupled pretext: argument --tasks: invalid choice: 'jigsaw' (choose from")
    assert error.count("\n") == 1
    with pytest.raises(ValueError, match=r"^tasks: got 'jigsaw'; allowed are rotation"):
        compute(open_run(drifting_run), tasks="jigsaw")
