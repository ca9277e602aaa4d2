"""Batch norm over the global batch on any device: torch's SyncBatchNorm on CUDA, the same sums by hand elsewhere.

torch's refuses the CPU. One process keeps the layers as they are.
"""

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coupled.process_group import sum_over_ranks, world_size


def use_global_batch(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` whose batch-norm layers take mean and variance over all ranks while training; same state dict.

    Raises ValueError for a kind of batch norm that cannot be converted.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        converted: nn.Module = convert_sync_batchnorm(network)
        return converted
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, GlobalBatchNorm(child))
    return network


class GlobalBatchNorm(nn.Module):
    """The batch-norm layer `local` with statistics over all ranks in training mode; its parameters and buffers,
    unchanged.

    y = (x - mean) / sqrt(var + eps) * weight + bias with mean and biased variance over images, places and ranks; the
    running variance is the unbiased one. Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1.
    """

    def __init__(self, local: _BatchNorm) -> None:
        super().__init__()
        if not isinstance(local, BatchNormAct2d) and type(local) not in (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
        ):
            raise ValueError(f"batch norm of kind {type(local).__name__} cannot span several processes on a CPU")
        if local.momentum is None or not local.track_running_stats:
            raise ValueError("batch norm without running averages of fixed momentum cannot span several processes")
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

    def forward(self, x: Tensor) -> Tensor:
        """[M, C] or [M, C, ...] -> the same shape."""
        shape = (1, -1) + (1,) * (x.dim() - 2)
        axes = [0, *range(2, x.dim())]
        if self.training:
            count = world_size() * x.numel() // x.shape[1]  # ranks hold equally many images
            mean_C = sum_over_ranks(x.sum(axes)) / count
            centred = x - mean_C.view(shape)
            var_C = sum_over_ranks(centred.square().sum(axes)) / count
            with torch.no_grad():
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
                unbiased_C = var_C * (count / max(count - 1, 1))
                self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked += 1
        else:
            centred, var_C = x - self.running_mean.view(shape), self.running_var
        y = centred * (var_C + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        after: Tensor = self.after(y)
        return after
