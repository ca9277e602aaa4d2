"""Objects chosen by name in the settings, with the options that apply to them."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from coupled.config import by_name
from coupled.config.load import resolve
from coupled.config.registry import find_objective, load_dataset, with_dataset_defaults
from coupled.config.schema import from_resolved
from coupled.datasets import ImageDataset

TREE = {
    "name": "r",
    "epochs": 20,
    "temperature": 0.3,
    "dataset": {"name": "digits"},
    "arms": {"cl": "dcl", "cold": {"objective": "nscl", "temperature": 0.1}, "ce": "cross_entropy"},
}


def test_the_temperature_of_an_arm_overrides_that_of_the_run() -> None:
    """An arm at another temperature than its settings state would be another experiment."""
    assert find_objective("cl", "nscl", {}, 0.3).options == {"temperature": 0.3, "positive_in_denominator": False}
    assert find_objective("cold", "nscl", {"temperature": 0.1}, 0.3).options["temperature"] == 0.1
    assert "temperature" not in find_objective("ce", "cross_entropy", {}, 0.3).options


def test_resolved_settings_are_complete_and_resolving_twice_changes_nothing() -> None:
    """--resume and the analysis read run.json: it must rebuild the same run even if defaults change."""
    filled = resolve(TREE).resolved()
    assert filled["arms"]["cold"] == {"objective": "nscl", "temperature": 0.1, "positive_in_denominator": False}
    assert filled["dataset"] == {"name": "digits", "image_size": 16, "num_workers": None}
    again = from_resolved(filled)
    assert resolve(again.resolved()).resolved() == filled
    assert resolve({**TREE, "dataset": {"name": "digits", "image_size": 16}}).sha256() == again.sha256()


def test_two_spellings_of_one_experiment_have_one_digest() -> None:
    """The run's temperature and the preset are replaced by the values that they set in the arms and strengths."""
    run_level = resolve({**TREE, "temperature": 0.2, "arms": {"cl": "dcl", "nscl": "nscl"}})
    arms = {name: {"objective": objective, "temperature": 0.2} for name, objective in (("cl", "dcl"), ("nscl", "nscl"))}
    assert resolve({**TREE, "temperature": 0.7, "arms": arms}).sha256() == run_level.sha256()
    assert resolve({**TREE, "temperature": 0.7, "arms": {"cl": "dcl", "nscl": "nscl"}}).sha256() != run_level.sha256()
    strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "blur_prob": 0.0}
    spelled = resolve({**TREE, "augmentation": {"preset": "imagenet", **strengths}})
    assert spelled.sha256() == resolve({**TREE, "augmentation": {"preset": "cifar"}}).sha256()
    assert spelled.sha256() != resolve({**TREE, "augmentation": {"preset": "imagenet"}}).sha256()


def test_an_incomplete_objective_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unfinished user-defined file."""
    half = ModuleType("half")
    half.__file__ = "coupled/objectives/half.py"
    half.needs = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(by_name, "find", lambda *_: half)
    with pytest.raises(ValueError, match=r"^arms\.b\.objective: coupled/objectives/half\.py has no half\(\)$"):
        find_objective("b", "half", {}, 0.5)


def test_the_invalid_key_is_named() -> None:
    """arms.<name>.<key>, as the user wrote it."""
    with pytest.raises(ValueError, match=r"arms\.cl\.objective: unknown objective 'dlc'"):
        find_objective("cl", "dlc", {}, 0.3)
    with pytest.raises(ValueError, match=r"dataset\.sise: unknown key"):
        resolve({**TREE, "dataset": {"name": "digits", "sise": 8}}).resolved()


@pytest.mark.parametrize(
    "options", [{"ema_decay": "0.9"}, {"ema_decay": True}, {"hidden_dim": 8.5}, {"ema_decay": 2.0}]
)
def test_an_option_that_may_be_null_is_checked_as_strictly(options: dict[str, object]) -> None:
    """A number in quotes is text, also for a type such as float | None."""
    assert find_objective("b", "byol", {"ema_decay": None}, 0.3).options["ema_decay"] is None
    assert find_objective("b", "byol", {"ema_decay": 1}, 0.3).options["ema_decay"] == 1.0
    with pytest.raises(ValueError, match=rf"^arms\.b\.{next(iter(options))}") as error:
        find_objective("b", "byol", options, 0.3)
    assert "\n" not in str(error.value)


def test_drawn_classes_follow_from_the_seed_and_are_nested() -> None:
    """A sweep over numbers of classes should add classes, not exchange them; and a run must be repeatable."""
    names = {n: load_dataset({"name": "digits", "classes": n}, "test", 5).class_names for n in (2, 4, 8, 10)}
    assert [len(each) for each in names.values()] == [2, 4, 8, 10]
    assert set(names[2]) < set(names[4]) < set(names[8]) < set(names[10])
    assert all(list(each) == sorted(each) for each in names.values())
    assert load_dataset({"name": "digits", "classes": 4}, "train", 5).class_names == names[4]
    drawn = {load_dataset({"name": "digits", "classes": 4}, "test", seed).class_names for seed in range(20)}
    assert len(drawn) > 10


def test_classes_are_listed_by_number_or_name_in_their_order() -> None:
    """Label k is the k-th of the list."""
    listed = load_dataset({"name": "digits", "classes": [7, "3"]}, "test", 0)
    assert listed.class_names == ("7", "3")
    whole = load_dataset({"name": "digits"}, "test", 0)
    assert listed.labels_N.bincount().tolist() == [int((whole.labels_N == digit).sum()) for digit in (7, 3)]


def test_a_number_that_is_also_the_name_of_another_class_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders 0 to 11 sort as text, so number 2 is the class "10", but a user who writes 2 means the class "2"."""
    images_N3HW, labels_N = torch.zeros(12, 3, 4, 4, dtype=torch.uint8), torch.arange(12)

    def load(names: list[str], classes: list[int | str]) -> tuple[str, ...]:
        whole = ImageDataset("mine", "train", images_N3HW, labels_N, tuple(names), (0.5,) * 3, (0.5,) * 3)
        monkeypatch.setattr(by_name, "find", lambda *_: SimpleNamespace(load=lambda split: whole))
        return load_dataset({"name": "mine", "classes": classes}, "train", 0).class_names

    plain = sorted(map(str, range(12)))
    message = (
        r'dataset.classes: got 2, which may mean class number 2, named "10" or class number 4, named "2" of \'mine\';'
        " write the name of the one you mean, in quotes"
    )
    with pytest.raises(ValueError, match=message):
        load(plain, [2, 3])
    assert load(plain, ["2", "10"]) == ("2", "10")
    assert load(plain, [0, 1]) == ("0", "1")  # number and name agree
    assert load([f"{k:02d}" for k in range(12)], [2, 3]) == ("02", "03")
    with pytest.raises(ValueError, match=r'number 1, named "02" or class number 2, named "03"'):
        load([f"{k:02d}" for k in range(1, 13)], [2, 3])
    assert load([f"{k}" for k in range(100, 112)], [105, 3]) == ("105", "103")  # no class has the number 105


def test_a_generated_dataset_has_as_many_classes_as_requested(tmp_path: Path) -> None:
    """Fractals have any number of classes, and a class does not depend on that number."""
    options = {"root": tmp_path, "image_size": 8, "train_per_class": 3, "test_per_class": 1}
    six = load_dataset({"name": "fractals", **options, "classes": 6}, "train", 0)
    some = load_dataset({"name": "fractals", **options, "classes": [5, 2]}, "train", 0)
    assert len(six.class_names) == 6
    assert some.class_names == ("fractal_005", "fractal_002")
    assert torch.equal(some.images_N3HW[some.labels_N == 0], six.images_N3HW[six.labels_N == 5])
    tree = from_resolved({**TREE, "dataset": {"name": "fractals", "classes": [5, 2]}})
    filled = resolve(tree.resolved()).resolved()
    assert filled["dataset"]["classes"] == [5, 2]
    assert resolve(filled).resolved() == filled


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (1, "dataset.classes: got 1; allowed is a number of classes to draw, or a list"),
        (2.5, "dataset.classes: got 2.5; allowed"),
        (True, "dataset.classes: got True; allowed"),
        ("3", "dataset.classes: got 3; allowed"),
        ([3], r"dataset.classes: got \[3\]; allowed"),
        ([3, 2.0], r"dataset.classes: got \[3, 2.0\]; allowed"),
        (11, "dataset.classes: got 11; 'digits' has 10 classes"),
        ([3, 10], "dataset.classes: 'digits' has no class 10; it has 0 to 9, named 0, 1, 2, ..."),
        ([3, -1], "dataset.classes: 'digits' has no class -1"),
        ([3, "ten"], "dataset.classes: 'digits' has no class 'ten'"),
        ([3, 4, "3"], r"dataset.classes: class 3 \('3'\) is listed twice"),
    ],
)
def test_impossible_choices_of_classes_are_refused_in_one_line(classes: object, message: str) -> None:
    """A class that is silently omitted would be another experiment."""
    with pytest.raises(ValueError, match=message) as raised:
        load_dataset({"name": "digits", "classes": classes}, "test", 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "size", "stem", "preset"),
    [
        ({}, 96, "imagenet", "imagenet"),
        ({"dataset": {"name": "stl10", "image_size": 48}}, 48, "cifar", "cifar"),
        ({"encoder": {"stem": "cifar"}, "augmentation": {"preset": "cifar"}}, 96, "cifar", "cifar"),
        ({"dataset": {"name": "folder", "image_size": 32}}, 32, "cifar", "cifar"),
        ({"dataset": {"name": "folder", "image_size": 224}}, 224, "imagenet", "imagenet"),
    ],
)
def test_omitted_settings_have_defaults_that_depend_on_the_dataset(
    given: dict, size: int, stem: str, preset: str
) -> None:
    """STL-10 at 32 px would lose detail; a value that the user writes is never changed."""
    tree = with_dataset_defaults({"dataset": {"name": "stl10"}, **given})
    assert tree["dataset"]["image_size"] == size
    assert (tree["encoder"], tree["augmentation"]) == ({"stem": stem}, {"preset": preset})


def test_dataset_defaults_ignore_invalid_settings() -> None:
    """The validation that follows reports them; only an unknown dataset is refused here."""
    for tree in ({}, {"dataset": None}, {"dataset": {}}, {"dataset": {"name": 3}}):
        assert with_dataset_defaults(tree) == tree
    assert with_dataset_defaults({"dataset": {"name": "stl10"}, "augmentation": None, "encoder": 3})["encoder"] == 3
    with pytest.raises(ValueError, match=r"dataset\.name: unknown dataset 'stl'"):
        with_dataset_defaults({"dataset": {"name": "stl"}})
