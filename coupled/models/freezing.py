"""Freeze parameters of the encoder."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from coupled.models.batch_norm import GlobalBatchNorm


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the names that a pattern (fnmatch) matches. Raise ValueError for a pattern that matches none."""
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            some = f"{known[0]}, ..., {known[-1]}"
            raise ValueError(f"encoder.freeze: '{pattern}' matches no parameter of the encoder ({some})")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def freeze(encoder: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match a pattern, and put fully frozen batch norms into evaluation mode.

    A batch norm whose parameters are all frozen then normalises with its running averages, which do not change. In
    training mode its outputs would depend on the batch, so a frozen stage would not be a fixed function. Call this
    after `train()` and before DDP. Raises ValueError for a pattern that matches nothing.
    """
    frozen = {*frozen_names([name for name, _ in encoder.named_parameters()], patterns)}
    for name, parameter in encoder.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    for _, module in _frozen_batch_norms(encoder, frozen):
        module.eval()


def constant_tensors(encoder: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the names of the parameters and buffers that do not change after `freeze`."""
    frozen = frozen_names([name for name, _ in encoder.named_parameters()], patterns)
    norms = _frozen_batch_norms(encoder, {*frozen})
    return [*frozen, *(f"{path}.{name}" for path, module in norms for name, _ in module.named_buffers())]


def _frozen_batch_norms(encoder: nn.Module, frozen: set[str]) -> Iterator[tuple[str, nn.Module]]:
    for path, module in encoder.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _NormBase | GlobalBatchNorm) and own and frozen.issuperset(own):
            yield path, module
