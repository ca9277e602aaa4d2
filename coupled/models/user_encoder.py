"""User-defined encoders: a function that returns a module with `num_features`, for images of one size."""

import json

import torch
from torch import Tensor, nn

from coupled.config.user_code import UserCode, errors_named, refused
from coupled.config.user_encoder_options import EXPECTED, KEY, encoder_arguments, find_encoder
from coupled.stream.seeds import generator_states


def build_user_encoder(name: str, image_size: int, options: str = "{}") -> nn.Module:
    """Build the encoder of the user's code `name`, drawn from torch's global generator like timm's models.

    `options` are the options of its function as JSON. Its stages, for `--layers stages`, are those of its
    `feature_info`, a list of {"module": name} as in timm's models, or else its children with parameters. Raises
    ValueError in one line for a module that is not an encoder, or that is not pure.
    """
    code = find_encoder(name)
    arguments = encoder_arguments(code, json.loads(options), image_size)
    seed, others = torch.initial_seed(), _other_generators()
    with errors_named(code, KEY, EXPECTED):
        encoder = code.value(**arguments)
    if torch.initial_seed() != seed or _other_generators() != others:
        what = "seeds torch, or draws from the generator of NumPy or Python"
        raise refused(code, KEY, what, "draw the weights with torch alone, so that they follow the seed of the run")
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        what = type(encoder).__name__ if not isinstance(encoder, nn.Module) else "a module without num_features"
        raise refused(code, KEY, f"returns {what}", EXPECTED)
    if any(each.is_meta for each in encoder.parameters()) and not torch.empty(0).is_meta:
        raise refused(code, KEY, "returns the same module at every call", EXPECTED)
    _check_output(code, encoder, encoder.num_features, image_size)
    if not hasattr(encoder, "feature_info"):
        trained = [name for name, child in encoder.named_children() if next(child.parameters(), None) is not None]
        encoder.feature_info = [{"module": name} for name in trained]  # type: ignore[assignment]
    return encoder


def _check_output(code: UserCode, encoder: nn.Module, width: object, size: int) -> None:
    """Raise ValueError unless the encoder maps images to rows, keeps them unchanged, and draws nothing in eval mode."""
    training, images_M3SS = encoder.training, torch.full((2, 3, size, size), 0.5)
    before, drawn = images_M3SS.clone(), generator_states(torch.device("cpu"))
    with errors_named(code, KEY, EXPECTED), torch.no_grad():
        rows = encoder.eval()(images_M3SS)
    encoder.train(training)
    if not isinstance(rows, Tensor) or rows.shape != (2, width):
        shape = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise refused(code, KEY, f"maps [2, 3, {size}, {size}] to {shape}", EXPECTED)
    if generator_states(torch.device("cpu")) != drawn:
        raise refused(code, KEY, "draws from a global random generator in evaluation mode", EXPECTED)
    if not images_M3SS.is_meta and not torch.equal(images_M3SS, before):
        raise refused(code, KEY, "changes its input in place", EXPECTED)


def _other_generators() -> tuple[object, ...]:
    """Return the states of the generators of NumPy and Python."""
    return generator_states(torch.device("cpu"))[1:]
