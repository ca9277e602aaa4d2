"""Controls that say what is noise: twins, arms moved by the last bit of one weight, and arms with draws of their own.

An arm's initialisation, the order of its images and the parameters of its views come from the random sources that all
arms share, unless it has some `unshared`; a twin uses those of the arm it repeats. Arms are plain mappings here, as in
run.json.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from coupled.stream.seeds import philox

SHARED = ""  # in the place of an arm's name: what all arms share
KEYS = ("twin", "perturb", "unshared")  # of an arm, beside objective and its options
SOURCES = {"init": "init", "order": "order", "augmentation": "views"}  # of `unshared` -> names of the seed streams


class RandomSources(NamedTuple):
    """For each source of randomness the arm whose own draws are used, or `SHARED`."""

    init: str = SHARED
    order: str = SHARED
    views: str = SHARED

    def seed(self, source: str, seed: int) -> int:
        """The seed of `source` in a run with the seed `seed`: that of the run, or one of the arm's own."""
        arm = getattr(self, source)
        own = np.uint64(0) if arm == SHARED else philox(seed, f"own/{source}/{arm}").random_raw(1)[0] >> np.uint64(1)
        return seed if arm == SHARED else int(own)

    def of_stream(self, seed: int) -> tuple[int, int]:
        """The seeds of the order and of the views."""
        return self.seed("order", seed), self.seed("views", seed)


def random_sources(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, RandomSources]:
    """Whose draws each arm uses: its own, its sibling's if it is a twin, otherwise the shared ones."""
    found: dict[str, RandomSources] = {}
    for name in arms:
        used = dict.fromkeys(RandomSources._fields, SHARED)
        for each in reversed(list(_line(arms, name))):
            used |= dict.fromkeys((SOURCES[source] for source in arms[each].get("unshared") or ()), each)
        found[name] = RandomSources(**used)
    return found


def streams(used: Mapping[str, RandomSources]) -> dict[str, str]:
    """The stream of each arm; arms with the same order and views have one, called `SHARED` or after its first arm."""
    first: dict[tuple[str, str], str] = {(SHARED, SHARED): SHARED}
    return {name: first.setdefault((each.order, each.views), name) for name, each in used.items()}


def with_twin_options(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The arms with the objective and the options of its sibling written out for every twin.

    Raises ValueError for a twin of an arm that is not there or of itself, and for one whose objective or options differ
    from its sibling's.
    """
    filled = {}
    for name, arm in arms.items():
        first = list(_line(arms, name))[-1]
        sibling = {key: value for key, value in arms[first].items() if key not in KEYS}
        for key, value in arm.items():
            if first != name and key not in KEYS and value is not None and value != sibling.get(key):
                raise ValueError(
                    f"arms.{name}.{key}: got {value}; a twin takes objective and options from arm '{first}'; allowed"
                    f" are {', '.join(KEYS)}"
                )
        filled[name] = {**sibling, **{key: arm[key] for key in KEYS if arm.get(key)}}
    return filled


def twins(arms: Mapping[str, Mapping[str, Any]], of: str) -> list[str]:
    """The other resolved arms that train like the arm `of` but for a moved bit: what lies between them is noise."""
    used = random_sources(arms)
    same = {
        name: {key: arm[key] for key in arm if key not in KEYS} | used[name]._asdict() for name, arm in arms.items()
    }
    return [name for name in arms if name != of and same[name] == same[of]]


def twins_of_earlier_arms(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms that have an earlier twin."""
    return [name for place, name in enumerate(arms) if {*twins(arms, name)} & {*list(arms)[:place]}]


@torch.no_grad()
def perturb(network: nn.Module, ulps: int) -> None:
    """Move one weight, the first of the network's first kernel or matrix, up by `ulps` units in the last place."""
    weight = next(parameter for parameter in network.parameters() if parameter.dim() > 1)
    first = (0,) * weight.dim()
    value = weight[first].clone()
    for _ in range(ulps):
        value = value.nextafter(torch.full_like(value, torch.inf))
    weight[first] = value


def _line(arms: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    """The arm, its sibling if it is a twin, that one's sibling, and so on."""
    seen = [name]
    yield name
    while (twin := arms[seen[-1]].get("twin")) is not None:
        key = f"arms.{seen[-1]}.twin"
        if twin not in arms:
            raise ValueError(f"{key}: no arm '{twin}' (arms: {', '.join(arms)})")
        if twin in seen:
            raise ValueError(f"{key}: got {twin}, which makes an arm its own twin")
        seen.append(twin)
        yield twin
