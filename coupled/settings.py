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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from coupled.checked import one_line, parse_yaml

Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Above0 = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Range = tuple[Above0, Above0]
Tree = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]

DEFAULT_ARMS: dict[str, Any] = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
RECIPES: dict[str, dict[str, Any]] = {  # facts of the papers' protocol: 32-64 px, and 224 px
    "small": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "blur": 0.0},
    "large": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5},
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """A section whose further keys are the options of something found by name, checked by `checked.check_options`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ImageSetSettings(_Open):
    """`name` is a file of coupled/image_sets; the other keys are its options."""

    name: str


class ArmSettings(_Open):
    """`objective` is a file of coupled/objectives; the other keys are its options."""

    objective: str


class BatchSettings(_Section):
    """`size` counts the images of the global batch, over all processes."""

    size: Annotated[int, Field(strict=True, ge=2)] = 256
    order: Literal["uniform", "balanced"] = "uniform"
    workers: Count = 0


class ViewSettings(_Section):
    """Strengths of the augmentation; what is not given comes from the recipe."""

    recipe: Literal["small", "large"] = "small"
    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    flip: Probability = 0.5
    jitter: Probability = 0.8
    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[float, Field(strict=True, ge=0, le=0.5)]
    grayscale: Probability = 0.2
    blur: Probability
    blur_sigma: Range = (0.1, 2.0)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        recipe = given.get("recipe")
        return {
            **RECIPES[recipe if isinstance(recipe, str) and recipe in RECIPES else "small"],
            **given,
        }  # an unknown recipe is refused later

    @model_validator(mode="after")
    def _ranges(self) -> "ViewSettings":
        for key in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: got [{low}, {high}]; the first number must not exceed the second")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale: got {list(self.crop_scale)}; a crop covers at most 1 of the image")
        return self


class EncoderSettings(_Section):
    """A timm model without classifier; `width` scales the channels of a ResNet."""

    name: str = "resnet50"
    width: Above0 = 1.0
    stem: Literal["small", "standard"] = "small"
    image_size: Annotated[int, Field(strict=True, ge=4, le=4096)] = 32


class ProjectorSettings(_Section):
    """Two-layer projector; `hidden: null` is the width of the embedding."""

    hidden: Positive | None = None
    out: Positive = 128


class OptimizerSettings(_Section):
    """The rate at 256 images is `base_lr` under every scaling rule; the world size never enters."""

    name: Literal["lars", "sgd", "adamw"] = "lars"
    base_lr: Above0 = 0.3
    lr_scaling: Literal["linear", "sqrt", "fourth_root", "none"] = "linear"
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-6
    warmup_epochs: NonNegative = 10.0
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: Above0 | None = 1.0


class SnapshotSettings(_Section):
    """A snapshot after each of the first `dense_until` epochs, then after every `every`-th, and after the last."""

    every: Positive = 1
    dense_until: Count = 0


class PlacementSettings(_Section):
    """The ranks form a mesh of `arms` x data: each group of ranks on the axis of arms trains only its arms."""

    arms: Positive = 1


LAYOUT = ("placement", "timeout_seconds")  # settings that cannot change a number of the run


class Settings(_Section):
    """All settings of a run."""

    name: Name
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    epochs: Count = 100
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda)$")] = "auto"
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    deterministic: bool = True
    threads: Positive | None = None
    placement: PlacementSettings = PlacementSettings()
    timeout_seconds: Annotated[float, Field(strict=True, gt=0, le=10**6)] = 600.0
    image_set: ImageSetSettings
    batch: BatchSettings = BatchSettings()
    views: ViewSettings = Field(default_factory=lambda: ViewSettings.model_validate({}))
    encoder: EncoderSettings = EncoderSettings()
    projector: ProjectorSettings = ProjectorSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    temperature: Above0 = 0.5
    snapshots: SnapshotSettings = SnapshotSettings()
    arms: Annotated[dict[Name, ArmSettings], Field(min_length=1)]

    @field_validator("arms", mode="before")
    @classmethod
    def _one_line_arms(cls, arms: Any) -> Any:
        if not isinstance(arms, dict):
            return arms
        return {
            name: {"objective": arm} if isinstance(arm, str) else arm for name, arm in arms.items() if arm is not None
        }

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

    def sha256(self) -> str:
        """Digest of the resolved settings without `LAYOUT`, independent of the order of keys.

        Equal for runs that must give equal snapshots, whichever ranks train which arms.
        """
        numbers = {key: value for key, value in self.resolved().items() if key not in LAYOUT}
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def load(path: Path, overrides: Sequence[str] = (), complete: Callable[[Tree], Tree] = dict) -> Settings:
    """Settings of the YAML file `path`, changed by overrides such as "optimizer.base_lr=0.2", completed by `complete`.

    Without `name` the run is named after the file. An override `arms.X=null` leaves that arm out. Raises ValueError.
    """
    if not path.is_file():
        raise ValueError(f"--config: no file '{path}'")
    given = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(given, dict):
        raise ValueError(f"{path}: a settings file is a mapping of keys, got {type(given).__name__}")
    tree = {"name": path.stem, "arms": dict(DEFAULT_ARMS), **given}
    for override in overrides:
        _override(tree, override)
    return from_resolved(complete(tree), str(path))


def from_resolved(tree: Mapping[str, Any], source: str = "settings") -> Settings:
    """Check a plain mapping, such as `settings` of run.json. Raises ValueError that begins with `source`."""
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error, Settings)}") from None


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
