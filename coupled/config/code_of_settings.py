"""User code that settings name: import it once, spell it in one way, and keep its digests in the section `code`."""

from collections.abc import Callable, Mapping
from typing import Any

from coupled.config.monitor import with_measures
from coupled.config.user_code import import_code, imported, is_reference, of_callable


def with_code(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Import all user code of the settings, replace callables by references, spell references in one way, and add
    `code` with the digest of each file.

    Raises ValueError as `import_code` and `of_callable` do, and if the settings have `code` and a file another digest.
    """
    digests: dict[str, str] = {}

    def spelled(key: str, named: Any) -> Any:
        if callable(named):
            code = of_callable(named, key)
        elif isinstance(named, str) and is_reference(named):
            code = import_code(named, key)
        else:
            return named
        digests[code.reference.rpartition(":")[0]] = code.source.digest
        return code.reference

    tree = _at_every_name(tree, spelled)
    if isinstance(monitor := tree.get("monitor"), Mapping):
        tree["monitor"] = with_measures(monitor)
    given = tree.pop("code", None)
    for name in {**given, **digests} if isinstance(given, dict) and given else ():
        if given.get(name) != digests.get(name):
            found = digests.get(name, "no setting that names it")
            raise ValueError(f"code.{name}: got {given.get(name)}, found {found}; remove the section 'code'")
    return {**tree, "code": dict(sorted(digests.items()))} if digests else tree


def import_of_run(settings: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Import all code that the resolved settings of a run name; `files` has its location at the time of the training.

    Raises ValueError as `import_code` does, and for a file that has changed.
    """

    def checked(key: str, named: Any) -> Any:
        if isinstance(named, str) and is_reference(named):
            name = named.rpartition(":")[0]
            import_code(named, key, settings["code"].get(name), files.get(name))
        return named

    _at_every_name(settings, checked)


def check_imported(code: Mapping[str, str]) -> None:
    """Raise ValueError if an imported file has another digest than in a run's settings."""
    for name, digest in code.items():
        if name in imported and imported[name].digest != digest:
            raise ValueError(
                f"code.{name}: the run was trained with the digest {digest}, but this process has imported"
                f" {imported[name].digest}; restore the file and restart Python"
            )


def files_of(code: Mapping[str, str]) -> dict[str, str]:
    """The paths of the files from which the code of settings was imported, by name."""
    return {name: str(imported[name].file) for name in code}


def _at_every_name(tree: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The settings with `change(key, name)` for every name of an objective, dataset, encoder and augmentation step."""
    changed = dict(tree)
    if isinstance(arms := tree.get("arms"), Mapping):
        changed["arms"] = {
            arm: _changed_in(given, "objective", f"arms.{arm}.objective", change)
            if isinstance(given, Mapping)
            else change(f"arms.{arm}.objective", given)
            for arm, given in arms.items()
        }
    for section in ("dataset", "encoder"):
        if isinstance(given := tree.get(section), Mapping):
            changed[section] = _changed_in(given, "name", f"{section}.name", change)
    augmentation = tree.get("augmentation")
    if isinstance(augmentation, Mapping) and isinstance(given := augmentation.get("steps"), list | tuple):
        steps = [
            _changed_in(
                step if isinstance(step, Mapping) else {"name": step}, "name", f"augmentation.steps.{k}", change
            )
            for k, step in enumerate(given)
        ]
        changed["augmentation"] = {**augmentation, "steps": steps}
    return changed


def _changed_in(given: Mapping[str, Any], key: str, path: str, change: Callable[[str, Any], Any]) -> dict[str, Any]:
    return {**given, key: change(path, given[key])} if key in given else dict(given)
