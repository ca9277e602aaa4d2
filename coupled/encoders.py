"""Encoders: timm models without classifier, with the stem and width the image size needs.

A snapshot's `encoder.*` tensors load into the same timm model: a ResNet keeps timm's names at any width, and the small
stem only replaces `conv1` and drops `maxpool`. A ViT with the small stem is timm's with `patch_size=4`.
"""

import functools
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from timm.models.resnet import ResNet
from torch import Tensor, nn

STEM_CHANNELS, STAGE_CHANNELS = 64, (64, 128, 256, 512)  # timm's ResNets
SMALL_PATCH = 4  # pixels


def build_encoder(
    name: str, width: float = 1.0, stem: str = "small", image_size: int = 32, zero_init_last: bool = False
) -> nn.Module:
    """A timm model `name` that maps images [M, 3, S, S] to embeddings [M, D]; D is `encoder_width` of it.

    `stem="small"` gives a ResNet a 3x3 stride-1 first convolution and no max-pool, as is usual for 32-pixel images
    (Chen et al. 2020, arXiv 2002.05709, appendix B.9), and a plain vision transformer patches of 4 x 4 pixels. `width`
    multiplies a ResNet's channels. All norm scales start at 1, as in torchvision; with `zero_init_last` those that timm
    starts at 0, the last of every residual block, do so here (Goyal et al. 2017, arXiv 1706.02677, section 5.1).

    The parameters are drawn from torch's global generator: wrap the call in
    `stream.seeds.torch_rng`. Raises ValueError for a name unknown to timm, or a stem, width or image size that
    the model cannot have.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5]
        hint = f"; near: {', '.join(near)}" if near else ""
        command = "python -c 'import timm; print(timm.list_models())'"
        raise ValueError(f"encoder.name: timm has no model '{name}'{hint} (all: {command})")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    plain_resnet = config is not None and config.first_conv == "conv1"
    plain_vit = model_entrypoint(name).__module__ == "timm.models.vision_transformer"
    options: dict[str, Any] = {}
    if stem == "small" and plain_vit:
        if image_size % SMALL_PATCH:
            raise ValueError(f"encoder.image_size: got {image_size}; patches of {SMALL_PATCH} px need a multiple of it")
        options["patch_size"] = SMALL_PATCH
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if width != 1:
        if not plain_resnet:
            raise ValueError(f"encoder.width: got {width:g}; '{name}' is no plain ResNet, only width 1 is possible")
        options["channels"] = tuple(max(1, round(width * channels)) for channels in STAGE_CHANNELS)
        # timm scales the stem of its deep variant alone; `_replace_stem` then puts the single convolution back
        options |= {"stem_type": "deep", "stem_width": max(1, round(width * STEM_CHANNELS / 2))}
    encoder: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if stem == "small" and not (plain_vit or (plain_resnet and isinstance(encoder, ResNet))):
        raise ValueError(
            f"encoder.stem: got 'small' for '{name}', which is no plain ResNet or ViT; set encoder.stem=standard"
        )
    if plain_resnet and (stem == "small" or width != 1):
        _replace_stem(encoder, small=stem == "small")
    _start_norm_scales(encoder, name, zero_init_last)
    return encoder


def _start_norm_scales(encoder: nn.Module, name: str, zero_init_last: bool) -> None:
    """timm has built the encoder with its own start: keep its zero scales, or set them to 1."""
    scales = (getattr(module, "weight", None) for module in encoder.modules() if not isinstance(module, nn.Embedding))
    zeros = [each for each in scales if isinstance(each, nn.Parameter) and each.dim() == 1 and not each.any()]
    if zero_init_last and not zeros:
        raise ValueError(f"encoder.zero_init_last: got true; '{name}' has no norm scale that timm starts at 0")
    if not zero_init_last:
        for scale in zeros:
            nn.init.ones_(scale)


def _replace_stem(encoder: nn.Module, small: bool) -> None:
    channels = encoder.get_submodule("bn1").num_features
    assert isinstance(channels, int)
    kernel, stride = (3, 1) if small else (7, 2)
    first = nn.Conv2d(3, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as timm draws it
    encoder.add_module("conv1", first)
    if small:
        encoder.add_module("maxpool", nn.Identity())


def encoder_width(encoder: nn.Module) -> int:
    """D, the width of the embedding of a timm model."""
    return int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)  # type: ignore[arg-type]


def check_bfloat16_on_cpu(encoder: nn.Module, image_size: int) -> None:
    """Raise ValueError if a convolution of `encoder` has a gradient that oneDNN, on a CPU, gets wrong in bfloat16.

    Seen with torch 2.15: with stride 2 over a map smaller than the stride, the taps that touch no pixel keep whatever
    was in memory. torch's own convolution does not, but is a hundred times slower.
    """
    wrong: list[str] = []

    def look(name: str, layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        sides = zip(inputs[0].shape[2:], layer.stride, layer.kernel_size, strict=True)
        if any(side < step and kernel > 1 for side, step, kernel in sides):
            wrong.append(name)

    layers = [(name, layer) for name, layer in encoder.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(functools.partial(look, name)) for name, layer in layers]
    training = encoder.training
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, image_size, image_size))
    encoder.train(training)
    for hook in hooks:
        hook.remove()
    if wrong:
        raise ValueError(
            f"precision: got bfloat16; on a CPU '{wrong[0]}' strides over a map smaller than its stride, which oneDNN"
            " computes wrongly in bfloat16: set precision=float32 or a larger encoder.image_size"
        )
