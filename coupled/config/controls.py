"""Controls for the noise floor: twins, arms with one weight moved by its last bit, and arms with unshared draws.

All arms share the random sources of the initialisation, the order of the images and the parameters of the views. An arm
does not share those that it lists in `unshared`; a twin uses the sources of the arm that it repeats. Arms are plain
mappings here, as in run.json.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from coupled.config.by_name import did_you_mean
from coupled.stream.seeds import philox

USUAL_REFERENCE = "cl"
SHARED = ""  # instead of an arm's name: the source that all arms share
KEYS = ("twin", "perturb", "unshared")  # of an arm, beside objective and its options
# of an arm and its twins: they are no options of its objective
TRAINING_KEYS = ("optimizer", "projector", "augmentation", "target_schedule")
ARM_KEYS = ("objective", *KEYS, *TRAINING_KEYS)  # all other keys of an arm are options of its objective
SOURCES = {"init": "init", "order": "order", "augmentation": "views"}  # of `unshared` -> names of the seed streams


def usual_reference(arms: Sequence[str]) -> str:
    """The default reference arm of a run: `cl`, or the first arm if there is no `cl`."""
    return USUAL_REFERENCE if USUAL_REFERENCE in arms else next(iter(arms), USUAL_REFERENCE)


class RandomSources(NamedTuple):
    """For each source of randomness the arm that it belongs to, or `SHARED`."""

    init: str = SHARED
    order: str = SHARED
    views: str = SHARED

    def seed(self, source: str, seed: int) -> int:
        """The seed of `source` in a run with the seed `seed`: that of the run, or one derived for the arm."""
        arm = getattr(self, source)
        own = np.uint64(0) if arm == SHARED else philox(seed, f"own/{source}/{arm}").random_raw(1)[0] >> np.uint64(1)
        return seed if arm == SHARED else int(own)

    def of_stream(self, seed: int) -> tuple[int, int]:
        """The seeds of the order and of the views."""
        return self.seed("order", seed), self.seed("views", seed)


def random_sources(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, RandomSources]:
    """The random sources of each arm: `unshared` ones are its own; a twin has its sibling's; all others are shared."""
    found: dict[str, RandomSources] = {}
    for name in arms:
        used = dict.fromkeys(RandomSources._fields, SHARED)
        for each in reversed(list(_line(arms, name))):
            used |= dict.fromkeys((SOURCES[source] for source in arms[each].get("unshared") or ()), each)
        found[name] = RandomSources(**used)
    return found


def streams(used: Mapping[str, RandomSources], arms: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """The stream of each arm, `SHARED` or the name of its first arm. Arms with equal order, views and recipe share it.

    `arms` are resolved; without them all arms have the shared recipe.
    """
    first: dict[tuple[str, str, str], str] = {(SHARED, SHARED, SHARED): SHARED}
    own = {name: arm.get("augmentation") for name, arm in (arms or {}).items()}
    recipes = {name: _recipe(section) if section else SHARED for name, section in own.items()}
    return {
        name: first.setdefault((each.order, each.views, recipes.get(name, SHARED)), name) for name, each in used.items()
    }


def _recipe(augmentation: Mapping[str, Any]) -> str:
    """Return the keys of a recipe as text, without the name of its preset, whose strengths are among them."""
    return json.dumps({key: value for key, value in augmentation.items() if key != "preset"})


def _differing(value: Any, other: Any) -> str:
    """Return "got <value>", or of two sections only the keys that differ."""
    if not isinstance(value, Mapping) or not isinstance(other, Mapping):
        return f"got {value}"
    return f"got { ({key: each for key, each in value.items() if each != other.get(key)}) }"


def with_twin_options(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The arms with the objective and the options of its sibling written out for every twin.

    Raises ValueError for a twin of a missing arm or of itself, and for a twin whose objective or options differ from
    those of its sibling.
    """
    filled = {}
    for name, arm in arms.items():
        first = list(_line(arms, name))[-1]
        sibling = {key: value for key, value in arms[first].items() if key not in KEYS}
        for key, value in arm.items():
            if first != name and key not in KEYS and value is not None and value != sibling.get(key):
                raise ValueError(
                    f"arms.{name}.{key}: {_differing(value, sibling.get(key))}; a twin takes objective and options from"
                    f" arm '{first}'; allowed are {', '.join(KEYS)}"
                )
        filled[name] = {**sibling, **{key: arm[key] for key in KEYS if arm.get(key)}}
    return filled


def twins(arms: Mapping[str, Mapping[str, Any]], of: str) -> list[str]:
    """The other resolved arms that train like the arm `of`, except for `perturb`: their difference is noise."""
    used = random_sources(arms)
    same = {
        name: {key: arm[key] for key in arm if key not in KEYS} | used[name]._asdict() for name, arm in arms.items()
    }
    return [name for name in arms if name != of and same[name] == same[of]]


def twins_of_earlier_arms(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms of which an earlier arm is a twin."""
    return [name for place, name in enumerate(arms) if {*twins(arms, name)} & {*list(arms)[:place]}]


@torch.no_grad()
def perturb(network: nn.Module, ulps: int, precision: torch.dtype) -> None:
    """Increase one weight, the first entry of the first trained kernel or matrix, by `ulps` units in the last place.

    The units are those of `precision`, in which the network is computed: the rounding to bfloat16 would remove a change
    of one unit of float32.
    """
    weight = next(parameter for parameter in network.parameters() if parameter.dim() > 1 and parameter.requires_grad)
    first = (0,) * weight.dim()
    rounded = weight[first].to(precision)
    moved = rounded
    for _ in range(ulps):
        moved = moved.nextafter(torch.full_like(moved, torch.inf))
    weight[first] += (moved - rounded).to(weight.dtype)


def _line(arms: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    """The arm, the arm that it is a twin of, the arm that this one is a twin of, and so on."""
    seen = [name]
    yield name
    while (twin := arms[seen[-1]].get("twin")) is not None:
        key = f"arms.{seen[-1]}.twin"
        if twin not in arms:
            raise ValueError(f"{key}: no arm '{twin}'{did_you_mean(twin, arms)} (arms: {', '.join(arms)})")
        if twin in seen:
            raise ValueError(f"{key}: got {twin}, which makes an arm its own twin; name another arm")
        seen.append(twin)
        yield twin
