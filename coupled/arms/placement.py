"""Which arms live at which place of the mesh's axis of arms."""

from collections.abc import Mapping


def place_arms(parameters: Mapping[str, int], places: int) -> list[list[str]]:
    """The arms at each place, balanced by their number of parameters; a pure function, so every rank knows all of it.

    The largest arm first, each to the place with the fewest parameters so far; equal arms in the order given. No place
    is empty if there are as many arms. Within a place the arms keep the order given. Source: Graham 1969, the
    longest-processing-time rule, never more than 4/3 of the best balance.
    """
    placed: list[list[str]] = [[] for _ in range(places)]
    for arm in sorted(parameters, key=lambda name: -parameters[name]):
        min(placed, key=lambda own: (sum(parameters[name] for name in own), len(own))).append(arm)
    order = list(parameters)
    return [sorted(own, key=order.index) for own in placed]
