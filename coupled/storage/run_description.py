"""run.json: the description of a run. It may be damaged or come from someone else, so its types are checked when read.

Its `digest` covers all other keys, so every change of the description is detected (analysis/verify.py).
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from coupled._version import RELEASE, git_commit
from coupled.config.errors import one_line
from coupled.config.fields import Name
from coupled.config.safe_yaml import DEEPEST
from coupled.storage.atomic_files import write_durably

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "safetensors")
LARGEST = 2**26  # bytes: the names of a million classes
Positive = Annotated[int, Field(strict=True, ge=1)]
Text = Annotated[str, Field(strict=True)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Deviation = Annotated[Finite, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _DatasetRecord(_Part):
    name: Text = ""
    classes: list[Text] = []
    train_digest: Text = ""
    test_digest: Text = ""
    training_digest: Text = ""
    mean: tuple[Finite, Finite, Finite] | None = None
    std: tuple[Deviation, Deviation, Deviation] | None = None


class _Start(_Part):
    weights: Text = ""
    encoder_digest: Text = ""


class _ImportedArm(_Part):
    files: Text = ""
    epochs: list[Annotated[int, Field(strict=True, ge=0)]] = []


class _Imported(_Part):
    arms: dict[Text, _ImportedArm] = {}
    projector: Annotated[bool, Field(strict=True)] = True
    given: list[Text] = []


class _Launch(_Part):
    name: Text = ""
    agents: list[Text] = []


KINDS: dict[str, Any] = {
    "format": Text,
    "name": Name,
    "seed": Annotated[int, Field(strict=True, ge=0)],
    "settings": dict[Text, Any],
    "settings_sha256": Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")],
    "code_files": dict[Text, Text],
    "dataset": _DatasetRecord,
    "start": _Start,
    "imported": _Imported,
    "world_size": Positive,
    "placement": list[list[Text]],
    "threads": Positive,
    "launch": _Launch,
    "device": Text,
    "precision": Text,
    "git_commit": Text | None,
    "versions": dict[Text, Text | None],
}
_fields: dict[str, Any] = {
    key: (kind, None) for key, kind in KINDS.items()
}  # every key is optional; a key that exists must have its type
_Description = create_model("_Description", __config__=ConfigDict(extra="allow"), **_fields)


def read_run_json(run: Path) -> dict[str, Any]:
    """Return the content of run/run.json. Raise ValueError in one line, with file and key, if it is not valid.

    Of the settings only the type, a mapping, is checked here; `settings.from_resolved` checks the rest.
    """
    path = run / "run.json"
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(f"{size:,} bytes long; allowed are at most {LARGEST:,}")
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # raises for half of a surrogate pair, which cannot be printed
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as a run's description: {error}; restore the file") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    if _deeper_than(content, DEEPEST):
        raise ValueError(f"{path}: nested deeper than {DEEPEST} levels")
    try:
        _Description.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {one_line(error, _Description)}") from None
    return content


def write_run_json(run: Path, content: Mapping[str, Any]) -> None:
    """Write run/run.json durably, with a digest of its content."""
    whole = {**content, "digest": description_digest(content)}
    write_durably(run / "run.json", (json.dumps(whole, indent=2) + "\n").encode())


def description_digest(content: Mapping[str, Any]) -> str:
    """Return blake2b (32 hex digits) of all keys and values except `digest`, in their order."""
    text = json.dumps({key: value for key, value in content.items() if key != "digest"})
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def is_as_written(content: Mapping[str, Any]) -> bool:
    """Return whether the description matches its digest."""
    return bool(content.get("digest") == description_digest(content))


def _deeper_than(tree: Any, levels: int) -> bool:
    """Return whether nested mappings and lists are deeper than `levels`; works level by level, without recursion."""
    level: list[Any] = [tree]
    for _ in range(levels):
        inner: list[Iterable[Any]] = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for each in inner for value in each if isinstance(value, dict | list)]
    return bool(level)


def describe_code() -> dict[str, Any]:
    """Return the git commit of this code (None if unknown), its release, and the versions of the libraries."""
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "git_commit": git_commit(),
        "versions": {"python": sys.version.split()[0], **versions, "coupled": RELEASE},
    }


def imported_epochs(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the imported epochs by arm; {} for a run that was trained here."""
    arms = description.get("imported", {}).get("arms", {})
    return {name: sorted(arm.get("epochs", [])) for name, arm in arms.items()}


def has_projector(description: Mapping[str, Any]) -> bool:
    """Return whether the snapshots of the run have a projector; an imported run may have none."""
    return bool(description.get("imported", {}).get("projector", True))


def settings_of(run: Path) -> dict[str, Any]:
    """Return the unchecked settings of the run in the folder `run`; {} if it has no run.json. Raise ValueError."""
    return (read_run_json(run).get("settings") or {}) if (run / "run.json").is_file() else {}
