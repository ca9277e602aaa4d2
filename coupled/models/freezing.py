"""Parameters of the encoder that are not trained."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from coupled.models.batch_norm import GlobalBatchNorm


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern (fnmatch) matches. Raises ValueError for a pattern that matches none."""
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            some = f"{known[0]}, ..., {known[-1]}"
            raise ValueError(f"encoder.freeze: '{pattern}' matches no parameter of the encoder ({some})")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def freeze(encoder: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters whose names match ask for no gradient; a batch norm whose parameters are all frozen is a constant.

    It is put into evaluation mode: it normalises with the running averages that it has, and these stay as they are. In
    training mode its outputs would depend on the batch, and a frozen stage would not compute what its weights did.
    Called after `train()`, before DDP. Raises ValueError for a pattern that matches nothing.
    """
    frozen = {*frozen_names([name for name, _ in encoder.named_parameters()], patterns)}
    for name, parameter in encoder.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    for _, module in _frozen_batch_norms(encoder, frozen):
        module.eval()


def constant_tensors(encoder: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the parameters and running averages that `freeze` keeps as they are."""
    frozen = frozen_names([name for name, _ in encoder.named_parameters()], patterns)
    norms = _frozen_batch_norms(encoder, {*frozen})
    return [*frozen, *(f"{path}.{name}" for path, module in norms for name, _ in module.named_buffers())]


def _frozen_batch_norms(encoder: nn.Module, frozen: set[str]) -> Iterator[tuple[str, nn.Module]]:
    for path, module in encoder.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _NormBase | GlobalBatchNorm) and own and frozen.issuperset(own):
            yield path, module
