"""The section `encoder` of the settings: a timm model, a linear map, or user code."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coupled.config.by_name import did_you_mean
from coupled.config.fields import OpenSection, Width, about
from coupled.config.user_code import is_reference

LINEAR = "linear"  # the encoder that is one matrix
OF_TIMM = ("width_multiplier", "stem", "zero_init_last", "timm_options")
OF_LINEAR = ("embedding_dim",)
OF_OTHERS = (*OF_TIMM, *OF_LINEAR)  # not of user code, unless its function takes them
OF_WEIGHTS = ("weights", "weights_digest", "freeze")  # in run.json and in digests only if they are set
TimmValue = bool | int | float | str | tuple[bool | int | float | str, ...]
OF_NETWORK = ("views_in_one_pass",)  # in run.json and in digests only if it is false


def of_timm(name: str) -> bool:
    """Whether `encoder.name` means a timm model."""
    return name != LINEAR and not is_reference(name)


class EncoderSettings(OpenSection):
    """The network without its projector, the same in all arms.

    If `name` is your own code, further keys are options of its function. The keys of timm encoders are then refused
    unless the function takes them.
    """

    name: Annotated[
        str,
        about(
            "A timm model, used without its classifier; `linear`, one matrix without bias that maps the pixels to the"
            " embedding; or code of your own: `path/to/file.py:function` or `package.module:function`."
        ),
    ] = "resnet50"
    width_multiplier: Annotated[
        Annotated[float, Field(strict=True, gt=0, le=16)], about("Factor for the number of channels of a timm ResNet.")
    ] = 1.0
    stem: Annotated[
        Literal["cifar", "imagenet"],
        about(
            "`cifar`: a 3x3 convolution without pooling (patches of 4 px for a ViT); `imagenet`: timm's own stem.",
            default="`cifar` up to 64 px, else `imagenet`",
        ),
    ] = "cifar"
    zero_init_last: Annotated[
        Annotated[bool, Field(strict=True)],
        about("Initialise the last norm scale of every residual block to 0, as timm does by default, instead of 1."),
    ] = False
    embedding_dim: Annotated[
        Width | None, about("Width of the embedding of `linear`.", "features", "required for `linear`")
    ] = None
    timm_options: Annotated[
        dict[str, TimmValue],
        about(
            "Further arguments of timm's model, such as `{num_heads: 12, depth: 6}` of a ViT. Only arguments of the"
            " model's class that no other key sets."
        ),
    ] = Field(default_factory=dict)
    views_in_one_pass: Annotated[
        Annotated[bool, Field(strict=True)],
        about(
            "Pass all views of the batch through the network together in training. `false`: each view by itself, so"
            " that every batch norm has separate statistics per view, as in the papers' published code."
        ),
    ] = True
    weights: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        about(
            "Weights from which all arms start: a .safetensors, .pth or .pt file, `timm:TAG`, or `run:DIR@ARM@EPOCH`."
        ),
    ] = None
    weights_digest: Annotated[
        Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None,
        about("sha256 of the file of `weights`. Filled in by the program; if you set it, the file must match."),
    ] = None
    freeze: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        about("Patterns of names of encoder parameters that are not trained, such as `layer1.*`."),
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        """Refuse further keys for encoders of the package; for user code, drop keys of other encoders that are null."""
        if not isinstance(given, dict):
            return given
        if is_reference(str(given.get("name", ""))):
            return {key: value for key, value in given.items() if key not in OF_OTHERS or value is not None}
        known = sorted(cls.model_fields)
        for key in given:
            if key not in known:
                raise ValueError(f"{key}: unknown key{did_you_mean(str(key), known)} (known: {', '.join(known)})")
        return given

    @model_validator(mode="after")
    def _only_its_own(self) -> "EncoderSettings":
        """Refuse the keys of timm's models for `linear`, and the keys of `linear` for timm's models."""
        if is_reference(self.name):
            return self
        for key in OF_TIMM if self.name == LINEAR else OF_LINEAR:
            value = getattr(self, key)
            if key in self.model_fields_set and value is not None:
                raise ValueError(f"{key}: got {value} with {self.name}, which has no {key}; remove it")
        if self.name == LINEAR and self.embedding_dim is None:
            raise ValueError("embedding_dim: missing; linear needs it: the width of the embedding")
        return self

    @model_validator(mode="after")
    def _digest_of_weights(self) -> "EncoderSettings":
        if self.weights_digest and not self.weights:
            raise ValueError(f"weights_digest: got {self.weights_digest} without encoder.weights; set both or none")
        return self

    @model_serializer(mode="wrap")
    def _only_what_applies(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {*OF_LINEAR} if of_timm(self.name) else {*OF_TIMM}
        unused = {*OF_OTHERS} - self.model_fields_set if is_reference(self.name) else unused
        kept = ((key, value) for key, value in whole(self).items() if key not in unused)
        kept = ((key, value) for key, value in kept if key not in OF_NETWORK or not value)
        return {key: value for key, value in kept if key not in (*OF_WEIGHTS, "timm_options") or value}
