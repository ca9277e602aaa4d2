"""One frozen tree of checked settings, from a YAML file and dotted `key=value` overrides.

Unknown keys are refused with the nearest known one; every error is a `ValueError` of one line that names the key, the
value and what is allowed. What an objective or an image set takes is checked against the signature of its function
(`checked.check_options`), so that a new one needs no change here.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from coupled.config.errors import one_line
from coupled.config.safe_yaml import parse_yaml, read_yaml
from coupled.config.sections import (
    TEMPERATURE,
    Above0,
    ArmSettings,
    BatchSettings,
    EncoderSettings,
    ImageSetSettings,
    Name,
    OptimizerSettings,
    PlacementSettings,
    ProjectorSettings,
    ResumeSettings,
    Section,
    SnapshotSettings,
    ViewSettings,
)
from coupled.monitoring.commands import suggest

Tree = dict[str, Any]

DEFAULT_ARMS: dict[str, Any] = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
LONGEST_WARMUP = 10.0  # epochs, unless the settings say it
EVERY_ARM = "all"  # what `--compare` calls all arms
# With `epochs` under a constant learning rate, which does not depend on it
MAY_CHANGE = (
    "device",
    "threads",
    "read_every",
    "placement.arms",
    "timeout_seconds",
    "batch.workers",
    "resume.every_minutes",
    "snapshots.check_free_space",
)


class Settings(Section):
    """All settings of a run."""

    name: Name
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    epochs: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda)$")] = "auto"
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    deterministic: bool = True
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False
    threads: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    placement: PlacementSettings = PlacementSettings()
    read_every: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    timeout_seconds: Annotated[float, Field(strict=True, gt=0, le=10**6)] = 600.0
    image_set: ImageSetSettings
    batch: BatchSettings = BatchSettings()
    views: ViewSettings = Field(default_factory=lambda: ViewSettings.model_validate({}))
    encoder: EncoderSettings = EncoderSettings()
    projector: ProjectorSettings = ProjectorSettings()
    optimizer: OptimizerSettings
    temperature: Above0 = TEMPERATURE
    snapshots: SnapshotSettings = SnapshotSettings()
    resume: ResumeSettings = ResumeSettings()
    arms: Annotated[dict[Name, ArmSettings], Field(min_length=1)]

    @field_validator("arms", mode="before")
    @classmethod
    def _one_line_arms(cls, arms: Any) -> Any:
        if not isinstance(arms, dict):
            return arms
        if arms.get(EVERY_ARM) is not None:
            raise ValueError(f"{EVERY_ARM}: not an arm's name: `--compare {EVERY_ARM}` means all arms; use another one")
        return {
            name: {"objective": arm} if isinstance(arm, str) else arm for name, arm in arms.items() if arm is not None
        }

    @model_validator(mode="before")
    @classmethod
    def _fill_warmup(cls, given: Any) -> Any:
        """Short runs warm up for a tenth of their epochs."""
        if not isinstance(given, dict) or not isinstance(given.get("optimizer", {}), dict):
            return given  # refused later
        epochs = given.get("epochs", cls.model_fields["epochs"].default)
        warmup = min(LONGEST_WARMUP, epochs / 10) if isinstance(epochs, int) else LONGEST_WARMUP
        return {**given, "optimizer": {"warmup_epochs": warmup, **given.get("optimizer", {})}}

    @model_validator(mode="after")
    def _across(self) -> "Settings":
        warmup = self.optimizer.warmup_epochs
        if self.epochs and warmup >= self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs: got {warmup:g} with epochs: {self.epochs}; warm-up must end before the run"
                f" does: set optimizer.warmup_epochs below {self.epochs}"
            )
        if self.placement.arms > len(self.arms):
            raise ValueError(
                f"placement.arms: got {self.placement.arms} with {len(self.arms)} arms; at most one place per arm"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """All settings as plain JSON values, defaults included."""
        return self.model_dump(mode="json")

    def may_change(self) -> tuple[str, ...]:
        """Keys that may be changed when a run is continued: they do not enter what is computed at a step."""
        return (*MAY_CHANGE, "epochs") if self.optimizer.schedule == "constant" else MAY_CHANGE

    def sha256(self) -> str:
        """Digest of the resolved settings without those that may change, independent of the order of keys.

        Equal for runs that must give equal snapshots, whichever ranks train which arms.
        """
        tree = self.resolved()
        for key in self.may_change():
            section, _, name = key.rpartition(".")
            (tree[section] if section else tree).pop(name)
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def load(
    path: Path,
    overrides: Sequence[str] = (),
    complete: Callable[[Tree], Tree] = dict,
    earlier: Callable[[str], Mapping[str, Any]] = lambda name: {},
) -> Settings:
    """Settings of the YAML file `path`, changed by overrides such as "optimizer.base_lr=0.2", completed by `complete`.

    `earlier` gives the resolved settings of the run that is to be continued, by the name that the run has here, or
    none; what is left open here is taken from there. A run without a name is called after the file. An override
    `arms.X=null` leaves that arm out. Raises ValueError.
    """
    if not path.is_file():
        raise ValueError(f"--config: no file '{path}'")
    given = read_yaml(path)
    if not isinstance(given, dict):
        raise ValueError(f"{path}: a settings file is a mapping of keys, got {type(given).__name__}")
    if "base" in given:  # no key of the settings
        command = suggest("sweep", str(path))
        raise ValueError(f"{path}: a sweep file, for it has the key 'base'; run it with: {command}")
    tree = {"arms": dict(DEFAULT_ARMS), **given}
    for place, override in enumerate(overrides):
        key = override.partition("=")[0].strip()
        for before in overrides[:place]:
            if f"{before.partition('=')[0].strip()}.".startswith(f"{key}."):
                raise ValueError(
                    f"override '{override}': it would undo '{before}', which stands before it; leave one out"
                )
        _override(tree, override)
    tree = _as_before(tree, earlier(str(tree.get("name", path.stem))))
    tree.setdefault("name", path.stem)
    return from_resolved(complete(tree), " with ".join(filter(None, [str(path), " ".join(overrides)])))


def from_resolved(tree: Mapping[str, Any], source: str = "settings") -> Settings:
    """Check a plain mapping, such as `settings` of run.json. Raises ValueError that begins with `source`."""
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error, Settings)}") from None


def _as_before(tree: Tree, earlier: Mapping[str, Any]) -> Tree:
    """`tree` with the values of `earlier` for what it leaves open and would get from elsewhere: the name from the
    settings file, the warm-up from the epochs, the size of the images from the pictures, any of which may have changed.
    """
    tree = dict(tree)
    if "name" in earlier:
        tree.setdefault("name", earlier["name"])
    for section, key in (("optimizer", "warmup_epochs"), ("image_set", "size")):
        here, there = tree.get(section, {}), earlier.get(section)
        if not isinstance(here, dict) or not isinstance(there, dict):
            continue  # refused later
        other_set = section == "image_set" and here.get("name") != there.get("name")
        if here.get(key) is None and there.get(key) is not None and not other_set:
            tree[section] = {**here, key: there[key]}
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
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
    inner[parts[-1]] = parse_yaml(text, f"override '{override}'")
