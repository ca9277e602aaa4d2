"""Arms are spread over places so that no place waits long for another."""

from hypothesis import given
from hypothesis import strategies as st

from coupled.arms.build import place_arms


def test_equal_arms_are_spread_evenly_in_the_order_given() -> None:
    """Five arms of one size on two places: three and two, each in the order of the settings."""
    placed = place_arms(dict.fromkeys("abcde", 7), 2)
    assert placed == [["a", "c", "e"], ["b", "d"]]


def test_a_large_arm_has_a_place_to_itself() -> None:
    """Parameters count, not arms."""
    assert place_arms({"a": 10, "large": 100, "b": 20, "c": 30}, 2) == [["large"], ["a", "b", "c"]]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 10**9), min_size=1), st.data())
def test_every_arm_has_one_place_and_no_place_is_empty(parameters: dict[str, int], data: st.DataObject) -> None:
    """An arm nowhere would not be trained, one at two places would be logged twice."""
    places = data.draw(st.integers(1, len(parameters)))
    placed = place_arms(parameters, places)
    assert sorted(name for own in placed for name in own) == sorted(parameters)
    assert all(placed)
    heaviest = max(sum(parameters[name] for name in own) for own in placed)
    assert heaviest <= 4 / 3 * max(sum(parameters.values()), places * max(parameters.values()))
