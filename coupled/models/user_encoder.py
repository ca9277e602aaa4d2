"""An encoder of the user: a function that returns a module with `num_features`, for images of one size."""

import inspect

import torch
from torch import Tensor, nn

from coupled.config.user_code import errors_named, find, refused

KEY = "encoder.name"
EXPECTED = (
    "expected is f(*, image_size) that returns an nn.Module with the attribute num_features, which maps images"
    " [M, 3, S, S] to [M, num_features] (docs/your_own.md)"
)


def build_user_encoder(name: str, image_size: int, *, width_multiplier: float, zero_init_last: bool) -> nn.Module:
    """The encoder that the code `name` builds, drawn from torch's global generator as timm's are.

    Its stages, for `--layers stages`, are those of its `feature_info`, a list of {"module": name} as timm's models have
    it, or else its children with parameters, by name. Raises ValueError in one line for a module that is no encoder.
    """
    for key, given, usual in (("width_multiplier", width_multiplier, 1), ("zero_init_last", zero_init_last, False)):
        if given != usual:
            raise ValueError(f"encoder.{key}: got {given}; it is for the encoders of timm, '{name}' needs {usual}")
    code = find(name, KEY)
    if not callable(code.value) or [*inspect.signature(code.value).parameters] not in ([], ["image_size"]):
        raise refused(code, KEY, "takes other arguments, or is no function", EXPECTED)
    options = {"image_size": image_size} if inspect.signature(code.value).parameters else {}
    with errors_named(code, KEY, EXPECTED):
        encoder = code.value(**options)
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        what = type(encoder).__name__ if not isinstance(encoder, nn.Module) else "a module without num_features"
        raise refused(code, KEY, f"returns {what}", EXPECTED)
    training = encoder.training
    with errors_named(code, KEY, EXPECTED), torch.no_grad():
        rows = encoder.eval()(torch.zeros(2, 3, image_size, image_size))
    encoder.train(training)
    if not isinstance(rows, Tensor) or rows.shape != (2, encoder.num_features):
        shape = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise refused(code, KEY, f"maps [2, 3, {image_size}, {image_size}] to {shape}", EXPECTED)
    if not hasattr(encoder, "feature_info"):
        trained = [name for name, child in encoder.named_children() if next(child.parameters(), None) is not None]
        encoder.feature_info = [{"module": name} for name in trained]  # type: ignore[assignment]
    return encoder
