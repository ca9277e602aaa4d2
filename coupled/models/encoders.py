"""Encoders: timm models without classifier, with a stem and width for the image size.

The `encoder.*` tensors of a snapshot load into the same timm model. A ResNet keeps timm's names at any width; the CIFAR
stem only replaces `conv1` and removes `maxpool`. A ViT with the CIFAR stem is timm's ViT with `patch_size=4`.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
from timm.models import get_deprecated_models, model_entrypoint, split_model_name_tag
from torch import Tensor, nn

from coupled.config.by_name import did_you_mean
from coupled.config.errors import is_out_of_memory

STEM_CHANNELS, STAGE_CHANNELS = 64, (64, 128, 256, 512)  # timm's ResNets
SMALL_PATCH = 4  # pixels
# timm's modules of plain ResNets and ViTs; in a ResNet whose stem is one convolution, it is called conv1
RESNETS = ("timm.models.resnet", "timm.models.res2net", "timm.models.sknet")
VITS = ("timm.models.vision_transformer", "timm.models.deit")
# arguments that are no property of the model, or that the program sets
SET_HERE = ("num_classes", "in_chans", "features_only", "device", "dtype")
OF_STEM = ("stem_type", "stem_width", "replace_stem_pool")  # of timm's ResNets; `encoder.stem` and the width set them
NOT_FURTHER = (*inspect.signature(timm.create_model).parameters, *SET_HERE)
# exceptions that timm or torch raises for arguments that do not fit together
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class LinearEncoder(nn.Module):
    """One matrix without bias: the pixels of an image [M, 3, S, S], as one row each, to embeddings [M, D].

    Source: the encoder W of the theory of arXiv 2102.06810.
    """

    def __init__(self, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_features = embedding_dim
        self.feature_info = [{"module": "linear"}]  # as timm's models, for `--layers stages`
        self.linear = nn.Linear(3 * image_size**2, embedding_dim, bias=False)

    def forward(self, images_M3SS: Tensor) -> Tensor:
        """Return the embeddings."""
        rows: Tensor = self.linear(images_M3SS.flatten(1))
        return rows


def build_encoder(
    name: str,
    width_multiplier: float = 1.0,
    stem: str = "cifar",
    image_size: int = 32,
    zero_init_last: bool = False,
    further: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the timm model `name`, which maps images [M, 3, S, S] to embeddings [M, D] with D = `encoder_width`.

    `stem="cifar"` gives a ResNet a 3x3 stride-1 first convolution and no max-pool, as is usual for 32-pixel images
    (Chen et al. 2020, arXiv 2002.05709, appendix B.9), and a plain vision transformer patches of 4 x 4 pixels.
    `width_multiplier` multiplies a ResNet's channels. All norm scales start at 1, as in torchvision; with
    `zero_init_last` the last scale of every residual block starts at 0, as in timm (Goyal et al. 2017, arXiv
    1706.02677, section 5.1). `further` are arguments of the model's class that are not set otherwise, such as the
    `num_heads` of a ViT.

    The parameters are drawn from torch's global generator: wrap the call in `stream.seeds.torch_rng`. Raises ValueError
    for a name that timm does not know or that names weights, and for a stem, width, image size or further argument that
    the model does not support.
    """
    _check_name(name)
    options, replaces_stem = timm_options(name, width_multiplier, stem, image_size, further)
    keys = f"encoder.width_multiplier {width_multiplier:g}, encoder.stem {stem}, dataset.image_size {image_size}"
    with failures_named(name, keys + (f", encoder.timm_options {dict(further)}" if further else "")):
        encoder: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    _check_taken(encoder, name, further or {})
    if replaces_stem:
        _replace_stem(encoder, small=stem == "cifar")
    _start_norm_scales(encoder, name, zero_init_last)
    return encoder


def timm_options(
    name: str,
    width_multiplier: float = 1.0,
    stem: str = "cifar",
    image_size: int = 32,
    further: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Return the options of `timm.create_model` for an encoder, and whether its stem is replaced afterwards.

    Raises ValueError for a stem, width or image size that the model `name` does not support, and for a `further` option
    that is set otherwise or is not one of the model.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    module = model_entrypoint(name).__module__
    plain_resnet = module in RESNETS and config is not None and config.first_conv == "conv1"
    plain_vit = module in VITS
    options: dict[str, Any] = {}
    if stem == "cifar" and plain_vit:
        if image_size % SMALL_PATCH:
            raise ValueError(
                f"dataset.image_size: got {image_size}; patches of {SMALL_PATCH} px need a multiple of {SMALL_PATCH}"
            )
        options["patch_size"] = SMALL_PATCH
    if stem == "cifar" and not (plain_vit or plain_resnet):
        raise ValueError(
            f"encoder.stem: got 'cifar' for '{name}', which is not a plain ResNet or ViT; set encoder.stem=imagenet"
        )
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if width_multiplier != 1:
        if not plain_resnet:
            raise ValueError(
                f"encoder.width_multiplier: got {width_multiplier:g}; '{name}' is not a plain ResNet: set it to 1"
            )
        options["channels"] = tuple(max(1, round(width_multiplier * channels)) for channels in STAGE_CHANNELS)
        # timm scales only the stem of its deep variant; `_replace_stem` then restores the single convolution
        options |= {"stem_type": "deep", "stem_width": max(1, round(width_multiplier * STEM_CHANNELS / 2))}
    for key in further or {}:
        if key in options or key == "zero_init_last" or (plain_resnet and key in OF_STEM):
            raise ValueError(f"encoder.timm_options.{key}: not allowed; other keys of `encoder` set it; remove it")
        if key in NOT_FURTHER:
            raise ValueError(f"encoder.timm_options.{key}: not allowed; it is no property of the model; remove it")
    return {**options, **(further or {})}, plain_resnet and (stem == "cifar" or width_multiplier != 1)


@contextmanager
def failures_named(name: str, keys: str) -> Iterator[None]:
    """Turn an exception of the model `name` into a ValueError in one line, with the values of `keys`."""
    try:
        yield
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        text = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ValueError(f"encoder.name: '{name}' does not work with {keys}: {text[:200]}") from None


def _check_name(name: str) -> None:
    """Raise ValueError unless `name` is a timm model without a tag of weights, which would be ignored."""
    plain, tag = split_model_name_tag(name)
    if tag and timm.is_model(plain):
        raise ValueError(
            f"encoder.name: '{name}' includes timm's weights '{tag}', but this key only names the model, which starts"
            f" from random weights; write {plain}, and encoder.weights=timm:{tag} to start from these weights"
        )
    if (now := get_deprecated_models().get(name)) is not None:
        raise ValueError(
            f"encoder.name: '{name}' is timm's old name of '{now}', but this key only names the model, which starts"
            f" from random weights; write {split_model_name_tag(now)[0]}, and encoder.weights=timm:TAG to use weights"
        )
    if not timm.is_model(name) or tag or name != plain:
        near = timm.list_models(f"*{plain}*")[:5]
        hint = f"; similar names: {', '.join(near)}" if near else did_you_mean(name, timm.list_models())
        raise ValueError(f"encoder.name: timm has no model '{name}'{hint}; `coupled list encoders` lists all")


def _check_taken(encoder: nn.Module, name: str, further: Mapping[str, Any]) -> None:
    """Raise ValueError for a further option that is no argument of the model's class: timm may ignore it."""
    taken = sorted({*inspect.signature(type(encoder)).parameters} - {*NOT_FURTHER})
    for key in further:
        if key not in taken:
            hint = did_you_mean(key, taken)
            raise ValueError(f"encoder.timm_options.{key}: '{name}' does not take it{hint} (takes: {', '.join(taken)})")


def _start_norm_scales(encoder: nn.Module, name: str, zero_init_last: bool) -> None:
    """Set norm scales that timm initialises to 0 to 1, unless `zero_init_last`."""
    scales = (getattr(module, "weight", None) for module in encoder.modules() if not isinstance(module, nn.Embedding))
    vectors = [each for each in scales if isinstance(each, nn.Parameter) and each.dim() == 1 and not each.is_meta]
    zeros = [each for each in vectors if not each.any()]
    if zero_init_last and vectors and not zeros:
        raise ValueError(
            f"encoder.zero_init_last: got true; '{name}' has no norm scale that timm initialises to 0; set it to false"
        )
    if not zero_init_last:
        for scale in zeros:
            nn.init.ones_(scale)


def _replace_stem(encoder: nn.Module, small: bool) -> None:
    stem = encoder.get_submodule("conv1").modules()  # a sequence where `width_multiplier` is not 1
    channels = [layer.out_channels for layer in stem if isinstance(layer, nn.Conv2d)][-1]
    kernel, stride = (3, 1) if small else (7, 2)
    first = nn.Conv2d(3, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as timm draws it
    encoder.add_module("conv1", first)
    if small:
        encoder.add_module("maxpool", nn.Identity())


def encoder_width(encoder: nn.Module) -> int:
    """Return D, the width of the embedding of a timm model."""
    return int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)  # type: ignore[arg-type]
