"""The settings of a run: one frozen tree of checked values.

Unknown keys are refused with the nearest known one; every error is a `ValueError` of one line that names the key, the
value and what is allowed. What an objective or a dataset takes is checked against the signature of its function
(`errors.check_options`), so that a new one needs no change here.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from coupled.config.across import check_across
from coupled.config.arm_sections import spelled_out, with_arm_sections, without_own_presets
from coupled.config.augmentation import AugmentationSettings
from coupled.config.encoder_settings import OF_NETWORK, OF_WEIGHTS, EncoderSettings
from coupled.config.errors import one_line
from coupled.config.fields import Above0, LeanSection, Name, about
from coupled.config.monitor import MonitorSettings, OnlineProbeSettings, Trackers
from coupled.config.optimizer_settings import NEVER_ENDS, OptimizerSettings, with_warmup
from coupled.config.projector_settings import ProjectorSettings
from coupled.config.sections import (
    MAY_CHANGE,
    TEMPERATURE,
    ArmSettings,
    BatchSettings,
    CheckpointSettings,
    DatasetSettings,
    ParallelSettings,
    SnapshotSettings,
)
from coupled.config.user_code import is_reference

EVERY_ARM = "all"  # what `--compare` calls all arms


class Settings(LeanSection):
    """All settings of a run: a frozen object with one field per top-level key of a settings file.

    `coupled.load_settings` makes one from a YAML file, `coupled.config.load.resolve` from a mapping. Both fill in every
    default and check every value, so the result is final. A section such as `optimizer` is an object with a field per
    key. To change a value, load the settings again with the change: an assignment raises an error.

    Example:
        >>> import coupled
        >>> settings = coupled.load_settings("demo", ["optimizer.base_lr=0.2"], epochs=2)
        >>> settings.epochs, settings.optimizer.base_lr, settings.arms["nscl"].objective
        (2, 0.2, 'nscl')
    """

    LEAN = ("code", "online_probe")

    name: Annotated[Name, about("Name of the run; letters, digits, - and _.", default="name of the settings file")]
    seed: Annotated[
        Annotated[int, Field(strict=True, ge=0, lt=2**63)],
        about("Seed of all random draws: initial weights, order of the images, views, classes."),
    ] = 0
    epochs: Annotated[
        Annotated[int, Field(strict=True, ge=0, le=1_000_000)], about("Length of the training.", "epochs")
    ] = 100
    device: Annotated[Annotated[str, Field(pattern=r"^(auto|cpu|cuda)$")], about("`auto`: a GPU if there is one.")] = (
        "auto"
    )
    precision: Annotated[
        Literal["float32", "bfloat16", "float64"],
        about("Floating-point type of the networks; `bfloat16` uses torch's autocast."),
    ] = "float32"
    deterministic: Annotated[
        bool, about("Repeated runs on one machine give equal bits; see [Guarantees](../guarantees.md).")
    ] = True
    tf32: Annotated[bool, about("TensorFloat-32 in matrix products and convolutions on a GPU.")] = False
    channels_last: Annotated[
        bool,
        about(
            "Memory format channels_last: faster, not safe with every network on a CPU; see"
            " [Performance](../performance.md#channels_last)."
        ),
    ] = False
    compile: Annotated[bool, about("Compile the networks of all arms with torch.compile.")] = False
    activation_checkpointing: Annotated[
        bool,
        about(
            "Keep only the inputs of the blocks of the encoder's stages, and compute their activations again in the"
            " backward pass: less memory, equal bits, more time."
        ),
    ] = False
    num_threads: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=4096)] | None,
        about("CPU threads of a process. `null`: as torch or torchrun sets them."),
    ] = None
    parallel: Annotated[ParallelSettings, about("How several processes share arms and batch.")] = ParallelSettings()
    log_every: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None,
        about(
            "Steps between two reads of losses, gradient norms and signals. `null`: 1 on a CPU; on a GPU 10, or as many"
            " as take two seconds.",
            "steps",
        ),
    ] = None
    timeout_seconds: Annotated[
        Annotated[float, Field(strict=True, gt=0, le=10**6)], about("How long a rank waits for the others.", "seconds")
    ] = 600.0
    dataset: Annotated[DatasetSettings, about("The images.")]
    batch: Annotated[BatchSettings, about("Size and sampler of the global batch.")] = BatchSettings()
    augmentation: Annotated[AugmentationSettings, about("The recipe of the views.")] = Field(
        default_factory=lambda: AugmentationSettings.model_validate({})
    )
    encoder: Annotated[EncoderSettings, about("The encoder.")] = EncoderSettings()
    projector: Annotated[ProjectorSettings, about("The projector on top of the encoder.")] = ProjectorSettings()
    optimizer: Annotated[OptimizerSettings, about("The optimizer of every arm, unless its arm changes a key.")]
    temperature: Annotated[
        Above0, about("Temperature of every objective that has one, unless its arm sets another.")
    ] = TEMPERATURE
    snapshots: Annotated[SnapshotSettings, about("Which epochs' weights are saved.")] = SnapshotSettings()
    checkpoint: Annotated[CheckpointSettings, about("How often the training state is saved.")] = CheckpointSettings()
    trackers: Annotated[
        Trackers, about("Experiment trackers that receive losses and metrics; see [Trackers](../how-to/trackers.md).")
    ] = ()
    monitor: Annotated[MonitorSettings | None, about("Metrics during training, in monitor.csv. `null`: none.")] = None
    online_probe: Annotated[
        OnlineProbeSettings | None, about("A linear classifier trained beside every arm. `null`: none.")
    ] = None
    arms: Annotated[
        dict[Name, ArmSettings],
        Field(min_length=1),
        about("The arms by name.", default="`cl: dcl`, `nscl: nscl`, `scl: supcon`, `ce: cross_entropy`"),
    ]
    code: Annotated[
        dict[str, str],
        about("Filled in by the program: each file of your own code that the settings name, with its digest."),
    ] = Field(default_factory=dict)

    @field_validator("arms", mode="before")
    @classmethod
    def _one_line_arms(cls, arms: Any) -> Any:
        if not isinstance(arms, dict):
            return arms
        if arms.get(EVERY_ARM) is not None:
            raise ValueError(
                f"{EVERY_ARM}: not allowed as an arm's name: `--compare {EVERY_ARM}` means all arms; rename it"
            )
        return {
            name: {"objective": arm} if isinstance(arm, str) else arm for name, arm in arms.items() if arm is not None
        }

    @model_validator(mode="before")
    @classmethod
    def _fill_arms(cls, given: Any) -> Any:
        """The default warm-up. Then the sections that arms change are merged with the shared ones."""
        if not isinstance(given, dict) or not isinstance(given.get("optimizer", {}), dict):
            return given  # refused later
        return with_arm_sections(with_warmup(given, cls.model_fields["epochs"].default))

    @model_validator(mode="after")
    def _across(self) -> "Settings":
        check_across(self)
        return self

    @property
    def image_size(self) -> int:
        """The side of a view in pixels. Raises ValueError for settings that are not resolved."""
        if self.dataset.image_size is None:
            raise ValueError("dataset.image_size: missing; make the settings with load_settings or resolve")
        return self.dataset.image_size

    def optimizer_of(self, arm: str) -> OptimizerSettings:
        """The optimizer of an arm: the shared section with the keys that the arm changes."""
        return self.arms[arm].optimizer or self.optimizer

    def projector_of(self, arm: str | None) -> ProjectorSettings:
        """The projector of an arm, as `optimizer_of`; the shared one for None and for arms that are not there."""
        return (self.arms[arm].projector if arm in self.arms else None) or self.projector

    def augmentation_of(self, arm: str) -> AugmentationSettings:
        """The recipe of an arm's views, as `optimizer_of`."""
        return self.arms[arm].augmentation or self.augmentation

    def network_options(self, arm: str | None = None) -> dict[str, Any]:
        """The arguments of `build_network` without the seed, for the network of an arm or with the shared projector."""
        encoder = self.encoder.model_dump(exclude={*OF_WEIGHTS, *OF_NETWORK})
        of_projector = {f"projector_{key}": value for key, value in self.projector_of(arm).model_dump().items()}
        name = encoder.pop("name")
        if is_reference(name):  # as text, because networks are cached by their arguments
            encoder = {"encoder_options": json.dumps(encoder, sort_keys=True)}
        elif further := encoder.pop("timm_options", None):
            encoder["encoder_options"] = json.dumps(further, sort_keys=True)
        passes = {"views_in_one_pass": self.encoder.views_in_one_pass}
        return {"encoder": name, **encoder, **passes, "image_size": self.image_size, **of_projector}

    def resolved(self) -> dict[str, Any]:
        """All settings as plain values.

        Returns:
            JSON values by section, defaults included, as in run.json.

        Example:
            >>> settings.resolved()["batch"]["size"]
            256
        """
        return spelled_out(self.model_dump(mode="json"))

    def may_change(self) -> tuple[str, ...]:
        """Keys that may be changed when a run is continued: they do not enter the computation of a step."""
        endless = all(
            self.optimizer_of(name).schedule in NEVER_ENDS and arm.target_schedule == "constant"
            for name, arm in self.arms.items()
        )
        return (*MAY_CHANGE, "epochs") if endless and self.optimizer.schedule in NEVER_ENDS else MAY_CHANGE

    def sha256(self) -> str:
        """Digest of the resolved settings without those that may change, independent of the order of keys.

        Returns:
            64 hexadecimal digits: equal for runs that must give equal snapshots, whichever ranks train which arms.

        Example:
            >>> len(settings.sha256())
            64
        """
        tree = without_own_presets(self.resolved())
        for key in self.may_change():
            section, _, name = key.rpartition(".")
            (tree[section] if section else tree).pop(name, None)
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def from_resolved(tree: Mapping[str, Any], source: str = "settings") -> Settings:
    """Check a mapping of resolved settings, such as those of run.json.

    Args:
        tree: all settings by section.
        source: where the settings are from, for messages.

    Returns:
        Frozen settings.

    Raises:
        ValueError: in one line that begins with `source`, for an invalid key or value.

    Example:
        >>> from_resolved(settings.resolved()) == settings
        True
    """
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error, Settings)}") from None
