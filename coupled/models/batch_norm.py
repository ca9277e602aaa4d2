"""Batch norm over the global batch: torch's SyncBatchNorm on CUDA, `GlobalBatchNorm` elsewhere.

torch's SyncBatchNorm does not work on a CPU. Arms that are trained by one rank alone keep their own layers.

M images of this rank, C channels, D ranks that share the batch.
"""

from typing import Any

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from coupled.parallel.process_group import data_group, data_size, gather_images, sum_over_ranks


def use_global_batch(network: nn.Module, device: torch.device) -> nn.Module:
    """Convert the batch-norm layers of `network` to use mean and variance over all ranks in training mode.

    The state dict does not change. Raises ValueError for a kind of batch norm that cannot be converted.
    """
    if data_size() == 1:
        return network
    if device.type == "cuda":
        converted: nn.Module = convert_sync_batchnorm(network, process_group=data_group())
        return converted
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, GlobalBatchNorm(child))
    return network


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, with the mean and the biased variance over all ranks.

    Returns the mean and the variance, too. The backward pass is that of Ioffe & Szegedy 2015 (arXiv 1502.03167, section
    3), with both of its means over all ranks. Each direction exchanges 2 C numbers. The gradients of weight and bias
    are those of this rank; DDP averages them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 would lose the statistics
        own_var_C, own_mean_C = torch.var_mean(exact, _all_but_channels(x), correction=0)
        # all ranks have the same number of images, so that the mean of their means is the global mean
        mean_DC, var_DC = gather_images(torch.stack([own_mean_C, own_var_C])[:, None])
        mean_C = mean_DC.mean(0)
        var_C = (var_DC + (mean_DC - mean_C).square()).mean(0)
        y = functional.batch_norm(exact, mean_C, var_C, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean_C, (var_C + eps).rsqrt())
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean_C, var_C)
        return y.to(x.dtype), mean_C, var_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean_C, scale_C = ctx.saved_tensors
        axes, shape = _all_but_channels(x), (1, -1) + (1,) * (x.dim() - 2)
        gradient = gradients[0].to(mean_C.dtype)
        normalised = (x - mean_C.view(shape)) * scale_C.view(shape)
        own_2C = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        shift_C, slope_C = sum_over_ranks(own_2C) / (data_size() * x.numel() // x.shape[1])
        factor_C = scale_C if weight is None else scale_C * weight
        own = (gradient - shift_C.view(shape) - normalised * slope_C.view(shape)) * factor_C.view(shape)
        return own.to(x.dtype), None if weight is None else own_2C[1], own_2C[0] if ctx.has_bias else None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


class GlobalBatchNorm(nn.Module):
    """The batch-norm layer `local` with statistics over all ranks in training mode; parameters and buffers are shared.

    y = (x - mean) / sqrt(var + eps) * weight + bias with mean and biased variance over images, positions and ranks; the
    running variance is unbiased. Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1.
    """

    def __init__(self, local: _BatchNorm) -> None:
        super().__init__()
        known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if not isinstance(local, BatchNormAct2d) and type(local) not in known:
            raise ValueError(
                f"encoder: batch norm {type(local).__name__} cannot be computed over several processes on a CPU"
            )
        if local.momentum is None or not local.track_running_stats:
            raise ValueError(
                "encoder: batch norm without running averages, or with momentum=None, cannot be computed over several"
                " processes"
            )
        self.eps, self.momentum = local.eps, local.momentum
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", local.weight)
        self.register_parameter("bias", local.bias)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(local, name))
        self.after = nn.Sequential()
        if isinstance(local, BatchNormAct2d):  # timm's layer that ends with an activation
            for name in ("drop", "act"):
                self.after.append(local.get_submodule(name))
        self.train(local.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [M, C] or [M, C, ...]; the output has the same shape and dtype."""
        if self.training:
            y, mean_C, var_C = _Normalise.apply(x, self.weight, self.bias, self.eps)
            count = data_size() * x.numel() // x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
                unbiased_C = var_C * (count / max(count - 1, 1))
                self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked += 1
        else:
            y = functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        after: Tensor = self.after(y)
        return after
