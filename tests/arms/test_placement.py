"""Arms are divided among groups of ranks so that no group waits long for another."""

from hypothesis import given
from hypothesis import strategies as st

from coupled.arms.build import place_arms


def test_equal_arms_are_divided_evenly_in_the_order_of_the_settings() -> None:
    """Five equal arms in two groups: three and two, each in the order of the settings."""
    placed = place_arms(dict.fromkeys("abcde", 7), 2)
    assert placed == [["a", "c", "e"], ["b", "d"]]


def test_a_large_arm_has_a_group_to_itself() -> None:
    """Arms are balanced by their number of parameters."""
    assert place_arms({"a": 10, "large": 100, "b": 20, "c": 30}, 2) == [["large"], ["a", "b", "c"]]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 10**9), min_size=1), st.data())
def test_every_arm_has_one_group_and_no_group_is_empty(parameters: dict[str, int], data: st.DataObject) -> None:
    """An arm in no group would not be trained; one in two groups would be logged twice."""
    places = data.draw(st.integers(1, len(parameters)))
    placed = place_arms(parameters, places)
    assert sorted(name for own in placed for name in own) == sorted(parameters)
    assert all(placed)
    heaviest = max(sum(parameters[name] for name in own) for own in placed)
    assert heaviest <= 4 / 3 * max(sum(parameters.values()), places * max(parameters.values()))
