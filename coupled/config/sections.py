"""The sections of the settings: each a checked, frozen group of keys."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from coupled.config.by_name import did_you_mean
from coupled.config.user_code import is_reference

Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
LARGEST = 1e6  # of a number with a fraction: far above all uses, and far below what float32 holds
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Above0 = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Range = tuple[Above0, Above0]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]

TEMPERATURE = 0.5
BETAS = (0.9, 0.999)  # of AdamW, as in torch
MOMENTUM = 0.9  # of LARS and SGD
OF_TIMM = ("width_multiplier", "stem", "zero_init_last")  # of the encoder
OF_WEIGHTS = ("weights", "weights_digest", "freeze")  # of the encoder: in run.json and in digests only where given


def _sorted_once(sources: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(sources)))


class Section(BaseModel):
    """A group of keys, all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(BaseModel):
    """A section whose further keys are the options of something found by name, checked by `errors.check_options`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})


class DatasetSettings(OpenSection):
    """`name` is a file of coupled/datasets; keys not named here are its options, such as `root` and `classes`.

    `image_size` is the side of a view, and of the images where the dataset can be read at any size; without it, that at
    which the dataset is usually shown. `num_workers` threads or processes make batches ahead.
    """

    name: str
    image_size: Annotated[int, Field(strict=True, ge=4, le=4096)] | None = None
    num_workers: Annotated[int, Field(strict=True, ge=0, le=1024)] | None = None


class PerturbSettings(Section):
    """After step `step` one weight moves by `ulps` units in the last place; 0 is before the first step."""

    ulps: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    step: Count = 0


class ArmSettings(OpenSection):
    """`objective` is a file of coupled/objectives, and keys not named here are its options.

    A `twin` has the objective and the draws of another arm; `unshared` names the draws that the arm does not share.
    """

    objective: str | None = None
    twin: Name | None = None
    perturb: PerturbSettings | None = None
    unshared: Annotated[tuple[Literal["init", "order", "augmentation"], ...], AfterValidator(_sorted_once)] = ()

    @model_validator(mode="after")
    def _objective_or_twin(self) -> "ArmSettings":
        if self.objective is None and self.twin is None:
            raise ValueError("objective: missing; an arm has an objective, or is the twin of one")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in whole(self).items() if key in self.options or value}


class BatchSettings(Section):
    """`size` counts the images of the global batch, over all processes."""

    size: Annotated[int, Field(strict=True, ge=2)] = 256
    sampler: Literal["uniform", "balanced"] = "uniform"


class EncoderSettings(OpenSection):
    """A timm model without classifier; `width_multiplier` scales the channels of a ResNet, `stem: cifar` suits images
    of 32 px. Of the user's code in place of `name` the further keys are options, and those of timm are none unless its
    function takes them.

    `zero_init_last` starts the last norm scale of every residual block at 0, as timm does by default. All arms start
    from `weights` (see weights.py), whose file has the sha256 `weights_digest`; parameters whose names match a pattern
    of `freeze` are not trained.
    """

    name: str = "resnet50"
    width_multiplier: Annotated[float, Field(strict=True, gt=0, le=16)] = 1.0
    stem: Literal["cifar", "imagenet"] = "cifar"
    zero_init_last: Annotated[bool, Field(strict=True)] = False
    weights: Annotated[str, Field(min_length=1)] | None = None
    weights_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    freeze: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        """Of timm no further keys; of the user's code null is a key of timm that was not given."""
        if not isinstance(given, dict):
            return given
        if is_reference(str(given.get("name", ""))):
            return {key: value for key, value in given.items() if key not in OF_TIMM or value is not None}
        known = sorted(cls.model_fields)
        for key in given:
            if key not in known:
                raise ValueError(f"{key}: unknown key{did_you_mean(str(key), known)} (known: {', '.join(known)})")
        return given

    @model_validator(mode="after")
    def _digest_of_weights(self) -> "EncoderSettings":
        if self.weights_digest and not self.weights:
            raise ValueError(f"weights_digest: got {self.weights_digest} without encoder.weights, whose file it is of")
        return self

    @model_serializer(mode="wrap")
    def _only_what_applies(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {*OF_TIMM} - self.model_fields_set if is_reference(self.name) else ()
        kept = ((key, value) for key, value in whole(self).items() if key not in unused)
        return {key: value for key, value in kept if key not in OF_WEIGHTS or value}


class ProjectorSettings(Section):
    """Two-layer projector; `hidden_dim: null` is the width of the embedding."""

    hidden_dim: Annotated[int, Field(strict=True, ge=1, le=2**16)] | None = None
    output_dim: Annotated[int, Field(strict=True, ge=1, le=2**16)] = 128


class OptimizerSettings(Section):
    """The rate at 256 images is `base_lr` under every scaling rule; the world size never enters.

    LARS and SGD have a `momentum`, AdamW has `betas`.
    """

    name: Literal["lars", "sgd", "adamw"] = "lars"
    base_lr: Above0 = 0.3
    lr_scaling: Literal["linear", "sqrt", "fourth_root", "none"] = "linear"
    momentum: Share | None = None
    betas: tuple[Share, Share] | None = None
    weight_decay: NonNegative = 1e-6
    warmup_epochs: NonNegative  # min(10, epochs / 10) if not given: see schema.py
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_grad_norm: Above0 | None = 1.0

    @model_validator(mode="before")
    @classmethod
    def _fill_momentum(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        key, value = ("betas", BETAS) if given.get("name") == "adamw" else ("momentum", MOMENTUM)
        return {**given, key: value} if given.get(key) is None else given

    @model_validator(mode="after")
    def _only_its_own(self) -> "OptimizerSettings":
        if self.name == "adamw" and self.momentum is not None:
            raise ValueError(f"momentum: got {self.momentum} with adamw, which has betas; allowed is betas=[a, b]")
        if self.name != "adamw" and self.betas is not None:
            raise ValueError(f"betas: got {list(self.betas)} with {self.name}, which has a momentum; set momentum")
        return self


class SnapshotSettings(Section):
    """A snapshot after each of the first `dense_until_epoch` epochs, then after every
    `every_epochs`-th, and after the last.
    """

    every_epochs: Positive = 1
    dense_until_epoch: Count = 0
    check_free_space: bool = True


class CheckpointSettings(Section):
    """A checkpoint is saved after every epoch, when the run is asked to stop, and every so many minutes if given."""

    every_minutes: Above0 | None = 15.0


class ParallelSettings(Section):
    """The ranks form a mesh of `arm_groups` x data: each group of ranks on the axis of arms trains only its arms."""

    arm_groups: Positive = 1
