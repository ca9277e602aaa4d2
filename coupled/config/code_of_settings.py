"""The user's code that settings name: imported once, spelled in one way, its digests in the section `code`."""

from collections.abc import Callable, Mapping
from typing import Any

from coupled.config.monitor import with_measures
from coupled.config.user_code import import_code, imported, is_reference, of_callable


def with_code(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a user gives them, with every callable as its reference, every reference imported and spelled in one
    way, and `code`, the digest of each file that is named.

    Raises ValueError as `import_code` and `of_callable` do, and if `code` was given and a file has another digest.
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
            raise ValueError(f"code.{name}: got {given.get(name)}, found {found}; leave the section 'code' out")
    return {**tree, "code": dict(sorted(digests.items()))} if digests else tree


def import_of_run(settings: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Import all code that the resolved settings of a run name; `files` says where it was when the run was trained.

    Raises ValueError as `import_code` does, and for a file that is not what it was.
    """

    def checked(key: str, named: Any) -> Any:
        if isinstance(named, str) and is_reference(named):
            name = named.rpartition(":")[0]
            import_code(named, key, settings["code"].get(name), files.get(name))
        return named

    _at_every_name(settings, checked)


def check_imported(code: Mapping[str, str]) -> None:
    """Raise ValueError if a file is imported with another content than a run's settings say."""
    for name, digest in code.items():
        if name in imported and imported[name].digest != digest:
            raise ValueError(
                f"code.{name}: the run was trained with the digest {digest}, and this process has imported"
                f" {imported[name].digest}; put the file back and start Python again"
            )


def files_of(code: Mapping[str, str]) -> dict[str, str]:
    """Where the files are from which the code of settings was imported, by name."""
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
