"""The settings in which runs differ, in one line: images and objectives first, every run and setting named once."""

from collections.abc import Mapping, Sequence
from typing import Any

from coupled.analysis.selections.seeds import OF_A_SEED
from coupled.config.sections import MAY_CHANGE

MOST_SETTINGS = 5  # that are listed with their values
MOST_ARMS, MOST_LETTERS = 4, 48  # that are named, and letters of a value
ABSENT = "absent"  # a key that a run does not have; a value of None is written as in YAML
TEMPERATURE = "temperature"  # may change when a run is continued only because the arms have it, too
WITHOUT_EFFECT = tuple(key for key in MAY_CHANGE if key != TEMPERATURE)
FURTHER = "further arms"


def differences(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line on the settings in which runs differ: "settings that differ (a | b): temperature 0.5 | 0.25".

    Settings without effect on the weights, such as `num_threads`, are left out. Arms that a run lacks are named,
    without their settings.

    Args:
        settings: the settings of each run by the name in labels.

    Returns:
        The line, with at most `MOST_SETTINGS` settings and the number of the others; "" if no setting differs.
    """
    rows = _differing(list(settings.values()))
    if not rows:
        return ""
    shown = [f"{key} {' | '.join(values)}" for key, values in rows[:MOST_SETTINGS]]
    more = [f"and {len(rows) - MOST_SETTINGS} more"] if len(rows) > MOST_SETTINGS else []
    return f"settings that differ ({' | '.join(settings)}): {'; '.join([*shown, *more])}"


def rank(key: str) -> int:
    """The place of a setting among others: images, then objectives, then everything else."""
    return 0 if key.startswith("dataset.") else 1 if key == FURTHER or key.endswith(".objective") else 2


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The settings that differ, with the value of each run."""
    arms = [each.get("arms", {}) for each in settings]
    common = [name for name in (arms[0] if arms else ()) if all(name in of_run for of_run in arms)]
    flat = [
        _flatten({**each, "arms": {name: of_run[name] for name in common}})
        for each, of_run in zip(settings, arms, strict=True)
    ]
    values = {
        key: [each.get(key, ABSENT) for each in flat] for key in dict.fromkeys(key for each in flat for key in each)
    }
    values[FURTHER] = [_further(of_run, common) for of_run in arms]
    of_all = values.get(TEMPERATURE)
    differing = [key for key, each in values.items() if len({*each}) > 1 and _matters(key, each, of_all)]
    short = {key: values[key] if key == FURTHER else [*map(_shortened, values[key])] for key in differing}
    return sorted(short.items(), key=lambda row: rank(row[0]))


def _matters(key: str, values: Sequence[str], temperatures: Sequence[str] | None) -> bool:
    """Whether a setting is named: not without an effect, and no temperature of an arm that is that of the run."""
    if key in OF_A_SEED or any(f"{key}.".startswith(f"{each}.") for each in WITHOUT_EFFECT):
        return False
    return not (key.endswith(f".{TEMPERATURE}") and values == temperatures)


def _further(arms: Mapping[str, Mapping[str, Any]], common: Sequence[str]) -> str:
    """The arms that not every run has, with the objective where the name does not say it."""
    names = [name if name == arm["objective"] else f"{name} ({arm['objective']})"
             for name, arm in arms.items() if name not in common]  # fmt: skip
    more = [f"and {len(names) - MOST_ARMS} more"] if len(names) > MOST_ARMS else []
    return ", ".join([*names[:MOST_ARMS], *more]) or "none"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys with their values as text."""
    facts: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            facts |= _flatten(value, f"{prefix}{key}.")
        else:
            facts[f"{prefix}{key}"] = "null" if value is None else str(value)
    return facts


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."
