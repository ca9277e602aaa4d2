"""Settings from a YAML file and dotted `key=value` overrides, resolved once: what `load_settings` returns is final."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coupled.config.by_name import did_you_mean
from coupled.config.code_of_settings import with_code
from coupled.config.command_line import PACKAGED, find_config
from coupled.config.registry import with_dataset_defaults, with_options
from coupled.config.safe_yaml import parse_yaml, read_yaml
from coupled.config.schema import Settings, from_resolved
from coupled.config.weights import with_weights_digest
from coupled.monitoring.commands import suggest

Tree = dict[str, Any]

DEFAULT_ARMS: dict[str, Any] = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}


def load_settings(
    config: Path | str,
    overrides: Sequence[str] = (),
    earlier: Callable[[str], Mapping[str, Any]] = lambda name: {},
    **changed: Any,
) -> Settings:
    """Return the final settings of a YAML file: defaults of the dataset and options of the objectives are filled in.

    Args:
        config: a YAML file, or the name of one that comes with the package, such as "demo".
        overrides: changes such as "optimizer.base_lr=0.2"; "arms.X=null" removes that arm.
        earlier: function that returns the resolved settings of the run to be continued, given the name of the run; its
            name, warm-up and image size are used where this file has none.
        changed: top-level keys with their values, such as epochs=2 or optimizer={"base_lr": 0.2}; a mapping changes
            only the keys that it has, except that `arms` is replaced as a whole.

    Returns:
        Frozen, complete settings. Two spellings of the same experiment have the same `sha256()`.

    Raises:
        ValueError: in one line, for an invalid file, key or value.

    Example:
        >>> load_settings("demo", ["seed=1"], epochs=2).epochs
        2
    """
    path = find_config(str(config))
    given = read_yaml(path)
    if not isinstance(given, dict):
        value = repr(given) if len(repr(given)) <= 80 else f"{repr(given)[:77]}..."
        found = {type(None): "an empty file", list: "a list"}.get(type(given), f"the value {value}")
        raise ValueError(f"{path}: a settings file must be a mapping of keys, got {found}")
    if "base" in given:  # no key of the settings
        command = suggest("sweep", str(path))
        raise ValueError(f"{path}: this is a sweep file (it has the key 'base'); run it with: {command}")
    tree = {"arms": dict(DEFAULT_ARMS), **given}
    for place, override in enumerate(overrides):
        key = override.partition("=")[0].strip()
        for before in overrides[:place]:
            if f"{before.partition('=')[0].strip()}.".startswith(f"{key}."):
                raise ValueError(f"override '{override}': it overwrites the earlier '{before}'; remove one of them")
        apply_override(tree, override)
    for key, value in changed.items():
        below = tree.get(key)
        merges = isinstance(below, dict) and isinstance(value, Mapping) and key != "arms"
        tree[key] = {**below, **value} if merges and below else value
    tree = _as_before(tree, earlier(str(tree.get("name", path.stem))))
    tree.setdefault("name", path.stem)
    return resolve(tree, path.stem if path.parent == PACKAGED else str(path))


def resolve(tree: Mapping[str, Any], source: str = "settings") -> Settings:
    """Return the final settings of a plain mapping, as a user would write it in YAML.

    Args:
        tree: settings by section; missing keys get their defaults.
        source: where the settings are from, for messages.

    Returns:
        Frozen settings, with the options of dataset and objectives filled in.

    Raises:
        ValueError: in one line that begins with `source` or the key, for an invalid key or value.

    Example:
        >>> settings = resolve({"name": "mine", "dataset": {"name": "digits"}, "arms": {"cl": "dcl"}})
        >>> settings.epochs, settings.arms["cl"].objective
        (100, 'dcl')
    """
    checked = from_resolved(with_dataset_defaults(with_code(tree)), source)
    return from_resolved(with_weights_digest(with_options(checked.resolved())), source)


def _as_before(tree: Tree, earlier: Mapping[str, Any]) -> Tree:
    """Return `tree` with name, warm-up and image size of `earlier` where it has none: their defaults depend on the name
    of the settings file, the epochs and the image files, which may have changed.
    """
    tree = dict(tree)
    if "name" in earlier:
        tree.setdefault("name", earlier["name"])
    for section, key in (("optimizer", "warmup_epochs"), ("dataset", "image_size")):
        here, there = tree.get(section, {}), earlier.get(section)
        if not isinstance(here, dict) or not isinstance(there, dict):
            continue  # refused later
        other_set = section == "dataset" and here.get("name") != there.get("name")
        if here.get(key) is None and there.get(key) is not None and not other_set:
            tree[section] = {**here, key: there[key]}
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set the value of "key=value" in the tree; dots in the key separate sections. Raises ValueError."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"override '{override}': write it as key=value, such as optimizer.base_lr=0.2")
    inner = tree
    for depth, part in enumerate(parts[:-1]):
        below = inner.get(part)
        if isinstance(below, str) and parts[0] == "arms" and depth == 1:
            below = {"objective": below}
        if not isinstance(below, dict | None):
            raise ValueError(f"override '{override}': '{'.'.join(parts[: depth + 1])}' is a value and has no keys")
        inner[part] = dict(below or {})
        inner = inner[part]
    value = parse_yaml(text, f"override '{override}'")
    if value is None and parts[0] == "arms" and len(parts) == 2 and parts[1] not in inner:
        near = did_you_mean(parts[1], inner)
        raise ValueError(f"override '{override}': no arm '{parts[1]}'{near}; arms: {', '.join(inner)}")
    inner[parts[-1]] = value
