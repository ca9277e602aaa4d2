"""Read checkpoints of other programs without running code, and match their tensors with an encoder and a projector.

A file may be the state dict itself, or have it under a key (MODEL_STATE, state_dict, model, ...), with any prefix
before the names of the encoder (module., encoder.net., backbone., encoder_q., ...). There is no list of formats: all
tensors of the file get dotted names, and the prefix is the one under which all names and shapes of the encoder are
found. If several prefixes fit, as in a file with a student and a teacher, the one made only of words in `USUAL` is
taken.
"""

import argparse
import io
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from coupled.models.encoders import failures_named
from coupled.models.projector import build_projector, linear_layers, projector_settings
from coupled.stream.seeds import torch_rng

USUAL = ("MODEL_STATE", "state_dict", "model", "module", "encoder", "net", "backbone", "encoder_q", "student")
RENAMED = {"shortcut": "downsample"}  # in the ResNet blocks of SupContrast and other code for CIFAR
UNCOUNTED = "num_batches_tracked"  # not saved by torch before 0.4.1
PROJECTORS = (*USUAL, "projector", "projection_head", "head", "fc")
DEEPEST = 6  # levels of mappings in a file
TRIED = 16  # number of encoder names used to search for prefixes
SHOWN = 3  # names that a message shows
NUMBERS = (np.dtype("f8"), np.dtype("f4"), np.dtype("i8"))
# types that are often saved beside the weights and run no code: argparse namespaces and numpy numbers
SCALAR: Any = np.float64(0).__reduce__()[0]  # the function that unpickles a number
HARMLESS = (argparse.Namespace, np.dtype, SCALAR, (SCALAR, "numpy.core.multiarray.scalar"), *map(type, NUMBERS))


class Matched(NamedTuple):
    """Tensors of a file under the names of the encoder or projector.

    `prefix` is their prefix in the file. `unused` names the file's other tensors, those with the prefix first.
    """

    tensors: dict[str, Tensor]
    prefix: str
    unused: list[str]


def read_checkpoint(content: bytes, path: Path) -> Any:
    """Read a .safetensors file or a file of torch.save, onto the CPU, without running code of the file.

    `path` is used for its suffix and in messages. Raises ValueError if the file is not readable in this way.
    """
    if path.suffix == ".safetensors":
        try:
            return load(content)
        except SafetensorError as error:
            raise ValueError(f"'{path}' is not a readable safetensors file: {error}") from None
    try:
        with torch.serialization.safe_globals([*HARMLESS]):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "objects that are not tensors"
        raise ValueError(
            f"'{path}' has {what}, which torch loads only by running code of the file (weights_only=True refuses"
            " it); if you trust the file, save only its state_dict: torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, LookupError, OSError, ValueError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"'{path}' is not a readable file of torch.save: {why}") from None


def named_tensors(tree: Any) -> dict[str, Tensor]:
    """Return all tensors of nested mappings with dotted names; ResNet blocks get the names of torchvision and timm."""
    return dict(_named(tree, (), DEEPEST))


def _named(tree: Any, place: tuple[str, ...], levels: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor) and place:
        parts = ".".join(place).split(".")
        yield ".".join(RENAMED.get(part, part) for part in parts), tree
    elif isinstance(tree, Mapping) and levels:
        for key, value in tree.items():
            if isinstance(key, str):
                yield from _named(value, (*place, key), levels - 1)


def match_encoder(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Matched:
    """Return the tensors of a file under the names of an encoder.

    Args:
        found: all tensors of the file, as `named_tensors` returns them.
        expected: the state dict of the encoder; its tensors may be on the device "meta".

    Raises:
        ValueError: if a name is missing or has another shape, or if several prefixes fit equally well.
    """
    needed = [name for name in expected if not name.endswith(UNCOUNTED)]
    some = needed[:: max(1, len(needed) // TRIED)]
    counts = {
        prefix: sum(name in found for _, name in _under(prefix, needed))
        for prefix in sorted({name[: -len(own)] for own in some for name in found if _ends_with(name, own)})
    }
    best = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    if not best:
        raise ValueError(
            f"the file has no tensor of the encoder under any prefix; its tensors are {_listed(list(found))}"
        )
    usual = [prefix for prefix in best if {*prefix.split(".")[:-1]} <= {*USUAL}]
    if len(best) > 1 and len(usual) != 1:
        raise ValueError(
            f"the encoder fits under several prefixes: {', '.join(map(repr, best))}; keep only one in the file"
        )
    prefix = usual[0] if len(best) > 1 else best[0]
    missing = [name for _, name in _under(prefix, needed) if name not in found]
    if missing:
        raise ValueError(f"{len(missing)} of {len(needed)} tensors of the encoder are missing: {_listed(missing)}")
    shapes = [(own, name) for own, name in _under(prefix, needed) if found[name].shape != expected[own].shape]
    for own, name in shapes[:1]:
        other_stem = own.startswith("conv1.") and len(shapes) == 1
        hint = "; the file has another stem: set encoder.stem (import-checkpoints: --stem)" if other_stem else ""
        raise ValueError(
            f"{len(shapes)} of {len(needed)} tensors of the encoder have another shape: '{name}' is"
            f" {tuple(found[name].shape)}, the encoder's {tuple(expected[own].shape)}{hint}"
        )
    tensors = {own: as_snapshot(found[name]) for own, name in _under(prefix, expected) if name in found}
    for name in expected.keys() - tensors.keys():
        tensors[name] = torch.zeros((), dtype=torch.int64)
    return _matched(tensors, prefix, found)


def match_projector(found: Mapping[str, Tensor], width: int) -> Matched | None:
    """Return the tensors of a file under the names of `projector.build_projector` for embeddings of this width.

    None unless the file has exactly one projector, with two linear layers or more, that computes the same as one of
    `build_projector`. A bias of zeros that our projector does not have is ignored, such as that of the last batch norm
    in the papers' projector (arXiv 2510.08852). A single linear layer is not taken: it may be a classifier.
    """
    matches = []
    for name, first in found.items():
        prefix = name.removesuffix("0.weight")
        if prefix == name or first.dim() != 2 or first.shape[1] != width or not ("." + prefix).endswith("."):
            continue
        under = {each.removeprefix(prefix): tensor for each, tensor in found.items() if each.startswith(prefix)}
        if tensors := _as_projector(under, width):
            matches.append(_matched(tensors, prefix, found))
    usual = [each for each in matches if {*each.prefix.split(".")[:-1]} <= {*PROJECTORS}]
    best = matches if len(matches) == 1 else usual
    return best[0] if len(best) == 1 else None


def _as_projector(found: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return the tensors of the projector of `build_projector` that computes the same; empty without one."""
    needed = {name: each for name, each in found.items() if not name.endswith(".bias") or each.any()}
    linear = linear_layers({name: each.shape for name, each in needed.items()})
    if len(linear) < 2:
        return {}
    settings = projector_settings(needed)
    sizes = [settings.pop(key, None) for key in ("hidden_dim", "output_dim")]
    with torch.device("meta"):
        expected = build_projector(width, *sizes, **settings).state_dict()
    biases = [f"{position}.bias" for position in linear]
    zeros = {
        name: torch.zeros_like(each, device="cpu")
        for name, each in expected.items()
        if name.endswith(UNCOUNTED) or name in biases or name in found
    }
    tensors = {**zeros, **needed}
    if {name: each.shape for name, each in tensors.items()} != {name: each.shape for name, each in expected.items()}:
        return {}
    return {name: as_snapshot(tensors[name]) for name in expected}


def _matched(tensors: dict[str, Tensor], prefix: str, found: Mapping[str, Tensor]) -> Matched:
    taken = {prefix + name for name in tensors}
    unused = [name for name in found if name not in taken]
    return Matched(tensors, prefix, sorted(unused, key=lambda name: not name.startswith(prefix)))


def as_snapshot(tensor: Tensor) -> Tensor:
    """Return `tensor` as snapshots store it: floating-point values as float32."""
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _under(prefix: str, names: Any) -> Iterator[tuple[str, str]]:
    return ((name, prefix + name) for name in names)


def _ends_with(name: str, own: str) -> bool:
    return name == own or name.endswith(f".{own}")


def _listed(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return (", ".join(map(repr, names[:SHOWN])) + more) or "no tensors"


def timm_tensors(tree: Any, name: str, image_size: int) -> dict[str, Tensor]:
    """Return the tensors of timm's weights `name`, such as "resnet18.a1_in1k", as timm loads them.

    timm renames tensors of older files and resamples tensors that depend on `image_size`. Raises ValueError if `tree`,
    the content of the file, does not fit the model.
    """
    config = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    fits = failures_named(name, f"the file of these weights and dataset.image_size {image_size}")
    with torch_rng(0, "weights"), fits:  # timm draws initial weights before it loads the file
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(tree)}, num_classes=0, **size
        )
    return dict(model.state_dict())
