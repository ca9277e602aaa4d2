"""Layers of a network by name, as in `--layers`, and their outputs as one row per image.

`h` is the embedding and `z` the projection. Any other name is a module of the encoder as in `named_modules()`: layer1,
layer4.1.conv2, blocks.3. `stem` is the input of the first stage: the encoder's module `stem` if it has one, else a
ResNet's `maxpool` (the identity for small images), else a ViT's `patch_embed`. `stages` means the stem, the stages in
the `feature_info` of timm's encoder, and `h` and `z`.

A forward hook captures a module's output before it is changed in place. The output is averaged over space
([B, C, H, W], or [B, H, W, C] for an encoder that declares this format, such as timm's Swin) or over tokens including
the class token ([B, T, C]).

Shape letters: B images of a batch, C channels, T tokens.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from coupled.config.by_name import did_you_mean
from coupled.models.stages import stages
from coupled.monitoring.terminal import say

if TYPE_CHECKING:  # timm takes seconds to import, and the report needs the names of layers alone
    from coupled.models.network import Network

OUTPUTS = {"h": "embedding", "z": "projection"}  # layer on the command line and in CSVs -> output of a network
STEMS = ("stem", "maxpool", "patch_embed")
STAGES = "stages"
PROBE = 2  # number of images in the forward that measures the widths


def find_layers(network: "Network", names: Iterable[str], image_size: int) -> dict[str, int]:
    """Return the layers of `names` without duplicates, and their widths, measured with an input of zeros.

    Raises ValueError, which lists the layers of the network, for an unknown name.
    """
    meant = list(dict.fromkeys(layer for name in names for layer in _meant(network.encoder, name)))
    layers = present(meant, ["h"] if not network.project else list(OUTPUTS))
    device = next(network.parameters()).device
    with torch.no_grad():
        rows = layer_outputs(network, torch.zeros(1, PROBE, 3, image_size, image_size, device=device), layers)
    return {layer: rows[layer].shape[1] for layer in layers}


def present(layers: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Return `layers` without those of `OUTPUTS` that the network does not have, and print a line about them.

    Raises ValueError if no layer is left.
    """
    kept = [layer for layer in layers if layer not in OUTPUTS or layer in outputs]
    if kept != [*layers]:
        why = "z: left out, because the run was imported without a projector"
        if not kept:
            raise ValueError(f"--layers: {why}; use h")
        say(f"layer {why}", sys.stderr)
    return kept


def _meant(encoder: nn.Module, name: str) -> list[str]:
    if name != STAGES:
        return [name]
    if not getattr(encoder, "feature_info", ()):
        raise ValueError(f"layers: timm names no {STAGES} of this encoder; {_known(encoder)}")
    modules = dict(encoder.named_modules())
    stem = ["stem"] if any(each in modules for each in STEMS) else []
    return [*stem, *stages(encoder), *OUTPUTS]


def layer_outputs(network: "Network", views_1B3SS: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Return rows [B, C] by layer from one forward. Raises ValueError for a layer without one row per image."""
    inner = {layer: _module(network.encoder, layer) for layer in layers if layer not in OUTPUTS}
    with _captured(network.encoder, inner) as rows:
        outputs = network(views_1B3SS)
    for layer in inner:
        if layer not in rows or len(rows[layer]) != views_1B3SS.shape[1]:
            raise ValueError(f"layers: '{layer}' has no output with one row per image; {_known(network.encoder)}")
    return {layer: rows[layer] if layer in inner else outputs[OUTPUTS[layer]][0] for layer in layers}


@contextmanager
def _captured(encoder: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """A context in which a forward of the encoder fills the yielded dictionary with the modules' rows."""
    rows: dict[str, Tensor] = {}
    channels_last = getattr(encoder, "output_fmt", "") == "NHWC"
    hooks = [m.register_forward_hook(partial(_keep, rows, layer, channels_last)) for layer, m in modules.items()]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _keep(
    rows: dict[str, Tensor], layer: str, channels_last: bool, module: nn.Module, inputs: object, output: Any
) -> None:
    if layer in rows:
        raise ValueError(f"layers: '{layer}' is used several times in one forward; name a module that is used once")
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"layers: the output of '{layer}' is {shape}; allowed are [B, C], [B, T, C] and [B, C, H, W]")
    space = {2: (), 3: (1,), 4: (1, 2) if channels_last else (2, 3)}[output.dim()]
    rows[layer] = output.mean(dim=space) if space else output.clone()


def _module(encoder: nn.Module, layer: str) -> nn.Module:
    modules = dict(encoder.named_modules())
    name = next((each for each in STEMS if each in modules), layer) if layer == "stem" else layer
    if not name or name not in modules:
        near = did_you_mean(layer, [STAGES, *OUTPUTS, "stem", *modules])
        raise ValueError(f"layers: the encoder has no module '{layer}'; {_known(encoder)}{near}")
    return modules[name]


def _known(encoder: nn.Module) -> str:
    children = {name: child for name, child in encoder.named_children() if next(child.parameters(), None) is not None}
    names = list(dict.fromkeys([STAGES, "h", "z", "stem", *children]))
    within = next((f"{name}.0" for name, child in children.items() if isinstance(child, nn.Sequential)), "")
    return f"allowed are {', '.join(names)}" + (f" and modules within, such as {within}" if within else "")
