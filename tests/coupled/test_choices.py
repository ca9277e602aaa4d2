"""What the settings choose by name, with the options that apply."""

import pytest

from coupled.choices import filled_in, find_objective
from coupled.settings import from_resolved

TREE = {
    "name": "r",
    "epochs": 20,
    "temperature": 0.3,
    "image_set": {"name": "digits"},
    "arms": {"cl": "dcl", "cold": {"objective": "nscl", "temperature": 0.1}, "ce": "cross_entropy"},
}


def test_the_runs_temperature_reaches_the_arms_and_an_arms_own_wins() -> None:
    """An arm at another temperature than the settings say would be another experiment."""
    assert find_objective("cl", "dcl", {}, 0.3).options == {"temperature": 0.3, "positive_in_denominator": False}
    assert find_objective("cold", "nscl", {"temperature": 0.1}, 0.3).options["temperature"] == 0.1
    assert "temperature" not in find_objective("ce", "cross_entropy", {}, 0.3).options


def test_settings_filled_in_say_everything_and_stay_the_same_when_filled_again() -> None:
    """run.json is read back by --resume and by the analysis: it must rebuild the very run, whatever defaults become."""
    filled = filled_in(from_resolved(TREE).resolved())
    assert filled["arms"]["cold"] == {"objective": "nscl", "temperature": 0.1, "positive_in_denominator": False}
    assert filled["image_set"] == {"name": "digits", "size": 16}
    again = from_resolved(filled)
    assert filled_in(again.resolved()) == filled
    assert from_resolved({**TREE, "image_set": {"name": "digits", "size": 16}}).sha256() != again.sha256()
    assert filled_in(from_resolved({**TREE, "image_set": {"name": "digits", "size": 16}}).resolved()) == filled


def test_the_key_that_is_wrong_is_named() -> None:
    """arms.<name>.<key>, as the user wrote it."""
    with pytest.raises(ValueError, match=r"arms\.cl\.objective: unknown objective 'dlc'"):
        find_objective("cl", "dlc", {}, 0.3)
    with pytest.raises(ValueError, match=r"image_set\.sise: unknown key; did you mean 'size'"):
        filled_in(from_resolved({**TREE, "image_set": {"name": "digits", "sise": 8}}).resolved())
