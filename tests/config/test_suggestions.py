"""A misspelt name is refused with the nearest known one, wherever a name is given."""

from typing import Any

import pytest

from coupled.analysis import parsers
from coupled.analysis.selection import choices, no_arm
from coupled.config.by_name import did_you_mean, with_option
from coupled.config.command_line import Parser, find_config
from coupled.config.load import resolve
from coupled.config.registry import find_objective


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dlc", "dcl"),
        ("ncsl", "nscl"),
        ("supcom", "supcon"),
        ("NT-Xent", "nt_xent"),
        ("moc", "moco"),
        ("mco", "moco"),
        ("upc", "cpu"),
        ("gpu", ""),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_proposed(name: str, meant: str) -> None:
    """Short names have few letters in common with their typos: swapped letters come first, then fewer equal letters."""
    known = ["", "cpu", "dcl", "l_c", "moco", "nscl", "nt_xent", "supcon"]
    assert did_you_mean(name, known) == (f"; did you mean '{meant}'?" if meant else "")


def test_a_misspelt_objective_and_an_option_of_another_are_refused_with_what_was_meant() -> None:
    """`label_fraction` exists, but another objective has it; the keys of an arm are known beside the options."""
    with pytest.raises(ValueError, match=r"^arms\.x\.objective: unknown objective 'dlc'; did you mean 'dcl'\?"):
        find_objective("x", "dlc", {}, 0.5)
    assert with_option("coupled.objectives", "label_fraction") == ["nscl"]
    arms: dict[str, Any] = {"scl": {"objective": "supcon", "label_fraction": 1}}
    settings = {"name": "x", "dataset": {"name": "digits"}, "arms": arms}
    with pytest.raises(ValueError, match=r"arms\.scl\.label_fraction: unknown key .*; an option of nscl$") as error:
        resolve(settings)
    for key in ("objective", "optimizer", "projector", "augmentation", "target_schedule", "twin", "temperature"):
        assert f" {key}" in str(error.value)
    settings["arms"] = {"cl": {"objective": "dcl", "optimiser": {}}}
    with pytest.raises(ValueError, match=r"arms\.cl\.optimiser: unknown key; did you mean 'optimizer'\?"):
        resolve(settings)


def test_the_last_word_of_a_name_is_enough_if_only_one_ends_with_it() -> None:
    """`lr` is what other programs call the rate; two candidates would be a guess."""
    assert did_you_mean("lr", ["base_lr", "lr_scaling", "momentum"]) == "; did you mean 'base_lr'?"
    assert did_you_mean("size", ["batch_size", "queue_size"]) == did_you_mean("r", ["base_lr"]) == ""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"online_probe": {"lr": 0.1}}, r"online_probe\.lr: unknown key; did you mean 'base_lr'\? \(known: base_lr, "),
        ({"batch": {"sampler": "unifrom"}}, "batch.sampler: got 'unifrom'; .*; did you mean 'uniform'"),
        ({"online_probe": True}, r"online_probe: got True; allowed is a section with keys \(base_lr, .*\), or {}"),
        ({"batch": 3}, r"batch: got 3; allowed is a section with keys \(.*size.*\), or {}"),
        ({"optimizer": {"name": "adamW"}}, "optimizer.name: got 'adamW'; .*; did you mean 'adamw'"),
        ({"arms": {"cl": "dcl", "x": {"twin": "lc"}}}, "arms.x.twin: no arm 'lc'; did you mean 'cl'"),
    ],
)
def test_a_misspelt_value_is_refused_with_the_nearest(settings: dict[str, Any], text: str) -> None:
    """Choices of a key, and names of arms."""
    whole = {"name": "x", "dataset": {"name": "digits"}, "arms": {"cl": "dcl"}, **settings}
    with pytest.raises(ValueError, match=text):
        resolve(whole)


def test_misspelt_arguments_of_a_command_are_refused_with_the_nearest() -> None:
    """An option, a choice, an arm, a settings file."""
    for arguments, text in (
        (["--metrcs", "cka"], r"unrecognized arguments: --metrcs cka; did you mean '--metrics'\?"),
        (["--split", "tset"], r"invalid choice: 'tset' \(choose from .*\); did you mean 'test'\?"),
    ):
        with pytest.raises(ValueError, match=text):
            parsers.alignment().parse_args(arguments)
    with pytest.raises(ValueError, match=r"invalid choice: 'x' \(choose from [^)]*\)$"):
        parsers.alignment().parse_args(["--split", "x"])
    with pytest.raises(ValueError, match=r"align: got 'permutaion'; allowed are .*; did you mean 'permutation'\?"):
        choices("align", ["permutaion"], ("none", "permutation"))
    assert no_arm("nslc", ["cl", "nscl"]) == "the run has no arm 'nslc' (arms: cl, nscl); did you mean 'nscl'?"
    with pytest.raises(ValueError, match=r"config: no file 'dmeo'; did you mean 'demo'\?"):
        find_config("dmeo")
    with pytest.raises(ValueError, match=r"unrecognized arguments: --x$"):
        Parser().parse_args(["--x"])
