"""The section `projector` of the settings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coupled.config.fields import LeanSection, Width, about

Layers = Annotated[int, Field(strict=True, ge=0, le=16)]
Flag = Annotated[bool, Field(strict=True)]


class ProjectorSettings(LeanSection):
    """The projector on top of the encoder: linear layers with norm and ReLU between them. An arm may change keys:
    `arms.<name>.projector`.
    """

    LEAN = ("num_layers", "hidden_dims", "last_norm", "last_norm_scale", "bias", "norm")

    hidden_dim: Annotated[
        Width | None, about("Width of all hidden layers. `null`: the width of the embedding.", "features")
    ] = None
    output_dim: Annotated[Width, about("Width of the projection.", "features")] = 128
    num_layers: Annotated[
        Layers | None,
        about(
            "Number of linear layers. `0`: the projection is the embedding, of width `output_dim`, or its batch norm"
            " (`last_norm`).",
            "layers",
            "2, or one more than `hidden_dims` has",
        ),
    ] = None
    hidden_dims: Annotated[
        tuple[Width, ...] | None,
        about("Width of each hidden layer, instead of `hidden_dim` and `num_layers`.", "features"),
    ] = None
    last_norm: Annotated[Flag, about("Add a batch norm without bias after the last linear layer.")] = True
    last_norm_scale: Annotated[Flag, about("Train a scale in the batch norm of `last_norm`.")] = True
    bias: Annotated[
        Literal["none", "hidden", "all"],
        about("Which linear layers have a bias; `hidden`: all except the last."),
    ] = "none"
    norm: Annotated[
        Literal["batch", "batch_no_affine", "none"],
        about("Norm after each hidden linear layer; `batch_no_affine`: batch norm without scale and bias."),
    ] = "batch"

    @model_validator(mode="after")
    def _one_form(self) -> "ProjectorSettings":
        """Refuse keys that contradict each other or have no effect."""
        layers = self.num_layers
        if self.hidden_dims is not None:
            widths = [*self.hidden_dims]
            if self.hidden_dim is not None:
                raise ValueError(f"hidden_dims: got {widths} with hidden_dim: {self.hidden_dim}; set one of them")
            if layers not in (None, len(widths) + 1):
                raise ValueError(
                    f"hidden_dims: got {widths} with num_layers: {layers}; a projector with these hidden layers has"
                    f" {len(widths) + 1} linear layers: leave num_layers out"
                )
            layers = len(widths) + 1
        if layers in (0, 1) and self.hidden_dim is not None:
            raise ValueError(f"hidden_dim: got {self.hidden_dim} with num_layers: {layers}, which has no hidden layer")
        if not self.last_norm and not self.last_norm_scale:
            raise ValueError("last_norm_scale: got false with last_norm: false; leave last_norm_scale out")
        if layers == 0 and self.bias != "none":
            raise ValueError(f"bias: got {self.bias} with num_layers: 0, which has no linear layer")
        if layers in (0, 1) and (self.norm != "batch" or self.bias == "hidden"):
            count = "one" if layers else "no"
            key, value = ("norm", self.norm) if self.norm != "batch" else ("bias", "hidden")
            raise ValueError(f"{key}: got {value} for a projector of {count} linear layer, which has no hidden layer")
        return self


PROJECTOR = ProjectorSettings().model_dump()  # the resolved section with all defaults
