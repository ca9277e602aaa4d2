"""The process group: start, stop, gather with exact gradient, reductions. The only user of torch.distributed.

W world size, V views, B images of this rank, N = W*B images of the global batch.
"""

import datetime
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place in the group."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that prints and writes."""
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", timeout_seconds: float = 600) -> Iterator[ProcessGroup]:
    """Join the group that torchrun announces in the environment, or a group of one; leave it at the end.

    `device` is "cpu", "cuda" or "auto" (a GPU per process if there is one). NCCL carries CUDA tensors, gloo CPU
    tensors. Raises ValueError if CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch sees no CUDA device; set device=cpu")
    place = torch.device("cpu")
    if device != "cpu" and torch.cuda.is_available():
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=timeout_seconds)
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """W; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def distribute(network: nn.Module) -> nn.Module:
    """`network` behind DDP: gradients are averaged over ranks. Call the result, never the module inside it.

    DDP's own copying at the start and of buffers is off: it would hide a difference that the coordinator must see.
    """
    device = next(network.parameters()).device
    with warnings.catch_warnings():
        # torch 2.15 proposes forward_sync_buffers, which copies buffers at the start all the same
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            init_sync=False,
        )


class _GatherImages(torch.autograd.Function):
    """[V, B, ...] of every rank -> [V, N, ...] in the order of ranks; the backward sums over ranks and cuts the own
    part.
    """

    @staticmethod
    def forward(ctx: Any, own_VB: Tensor) -> Tensor:
        ctx.images = own_VB.shape[1]
        parts = [torch.empty_like(own_VB, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own_VB.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed_VN = gradients[0].contiguous().clone()
        dist.all_reduce(summed_VN)
        first = dist.get_rank() * ctx.images
        return summed_VN[:, first : first + ctx.images]


def gather_images(own_VB: Tensor) -> Tensor:
    """[V, B, ...] of every rank -> [V, N, ...]; differentiable with respect to every rank's part."""
    if world_size() == 1:
        return own_VB
    gathered: Tensor = _GatherImages.apply(own_VB)
    return gathered


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(own: Tensor) -> Tensor:
    """Sum of a tensor over ranks, known to every rank; differentiable: each rank's loss depends on each rank's part."""
    if world_size() == 1:
        return own
    total: Tensor = _SumOverRanks.apply(own)
    return total


def gather_digests(digest: str) -> list[str]:
    """The hexadecimal `digest` (equally long everywhere) of every rank, in the order of ranks."""
    if world_size() == 1:
        return [digest]
    own = torch.frombuffer(bytearray(bytes.fromhex(digest)), dtype=torch.uint8)
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return [bytes(part.tolist()).hex() for part in parts]


def first_rank_says(value: int) -> int:
    """An integer decided on rank 0, told to every rank."""
    if world_size() == 1:
        return value
    told = torch.tensor([value])
    dist.broadcast(told, src=0)
    return int(told.item())


def highest_over_ranks(value: int) -> int:
    """The highest of an integer over ranks, known to every rank. It travels between CPUs: no GPU is waited for."""
    if world_size() == 1:
        return value
    told = torch.tensor([value])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return int(told.item())


def barrier() -> None:
    """Wait until every rank is here."""
    first_rank_says(0)
