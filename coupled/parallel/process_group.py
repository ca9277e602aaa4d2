"""The process group: start, stop, differentiable gather, reductions. The only user of torch.distributed.

The W ranks form a mesh of arms x data. Ranks with the same index on the arms axis train the same arms and share each
batch. Gradients, batch-norm statistics and gathered projections are exchanged along the data axis only. Along the arms
axis only logged and compared values are exchanged.

W world size, D ranks on the data axis, V views, B images of this rank, G = D*B images of the global batch.
"""

import datetime
import json
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from coupled.parallel.rendezvous import NOBODY, Launch, Rendezvous, gather_over_store, store_error

_data_axis: dist.ProcessGroup | None = None  # None: all ranks; set by `process_group`


@dataclass(frozen=True)
class ProcessGroup:
    """The position of this process in the mesh: rank r has index r // D on the arms axis and r % D on the data axis."""

    rank: int
    world_size: int
    device: torch.device
    arms_size: int = 1
    launch: Launch = NOBODY

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes the logs."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """D, the number of ranks that share each batch of this rank's arms."""
        return self.world_size // self.arms_size

    @property
    def data_rank(self) -> int:
        """The index on the data axis: which part of the global batch this rank gets."""
        return self.rank % self.data_size

    @property
    def arms_rank(self) -> int:
        """The index on the arms axis: which arms this rank trains."""
        return self.rank // self.data_size

    @property
    def owns_arms(self) -> bool:
        """Whether this is the rank that writes the snapshots of its arms."""
        return self.data_rank == 0


def join_rendezvous(timeout_seconds: float = 600) -> Rendezvous:
    """Meet the other ranks of this launch; without a launcher, return the rendezvous of a single process.

    A launcher such as torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Raises TimeoutError that names the
    missing ranks or the address, ValueError if only some of these variables are set for several processes.
    """
    launcher = "TORCHELASTIC_RUN_ID" in os.environ
    agent = f"{socket.gethostname()}:{os.getppid() if launcher else os.getpid()}"
    name = os.environ.get("TORCHELASTIC_RUN_ID", "no launcher")
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    absent = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        if os.environ.get("RANK", "0") != "0" or os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                f"{', '.join(absent)}: not set, but RANK or WORLD_SIZE is set for several processes; start the run"
                " with torchrun, or set all of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            )
        return Rendezvous(0, 1, dist.HashStore(), Launch(name, (agent,), restarts))
    try:
        store, rank, world_size = next(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=timeout_seconds)))
    except dist.DistError as error:
        raise TimeoutError(store_error(error)) from error
    own = [uuid.uuid4().hex, agent, restarts]
    leader, of_ranks = gather_over_store(store, rank, world_size, own, time.monotonic() + timeout_seconds)
    agents = tuple(dict.fromkeys(each[1] for each in of_ranks))
    # a launcher may keep one store across restarts; the prefix hides the keys of earlier attempts
    mine = dist.PrefixStore(leader, store)
    return Rendezvous(rank, world_size, mine, Launch(name, agents, max(each[2] for each in of_ranks)))


@contextmanager
def process_group(
    device: str = "auto", timeout_seconds: float = 600, arms: int = 1, rendezvous: Rendezvous | None = None
) -> Iterator[ProcessGroup]:
    """Join the group of all ranks, as a mesh of `arms` x data; leave it at the end of the block.

    `device` is "cpu", "cuda" or "auto" (one GPU per process if there are GPUs). CUDA tensors use NCCL, CPU tensors use
    gloo. A collective that takes longer than `timeout_seconds` fails. Raises ValueError if `device` is "cuda" without a
    CUDA device, or if `arms` does not divide the number of ranks.
    """
    global _data_axis
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch sees no CUDA device; set device=cpu")
    if dist.is_initialized():
        raise ValueError(
            "torch.distributed: this process already has a process group, but a run creates one: call"
            " torch.distributed.destroy_process_group() first"
        )
    rendezvous = rendezvous or join_rendezvous(timeout_seconds)
    if rendezvous.world_size % arms:
        fitting = ", ".join(str(k) for k in range(1, rendezvous.world_size + 1) if rendezvous.world_size % k == 0)
        raise ValueError(
            f"parallel.arm_groups: got {arms} for {rendezvous.world_size} processes; it must divide them: {fitting}"
        )
    place = torch.device("cpu")
    if device != "cpu" and torch.cuda.is_available():
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(place)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
        store=rendezvous.store,
        rank=rendezvous.rank,
        world_size=rendezvous.world_size,
        timeout=datetime.timedelta(seconds=timeout_seconds),
    )
    try:
        if arms > 1:
            mesh = init_device_mesh(place.type, (arms, rendezvous.world_size // arms), mesh_dim_names=("arms", "data"))
            _data_axis = mesh.get_group("data")
        yield ProcessGroup(rendezvous.rank, rendezvous.world_size, place, arms, rendezvous.launch)
    finally:
        _data_axis = None
        dist.destroy_process_group()


def data_size() -> int:
    """Return D, the number of ranks that share each batch; 1 outside a process group."""
    return dist.get_world_size(_data_axis) if dist.is_initialized() else 1


def data_group() -> dist.ProcessGroup | None:
    """Return the process group of the data axis, for libraries that need it; None means all ranks."""
    return _data_axis


def distribute(network: nn.Module) -> nn.Module:
    """Wrap `network` in DDP, which averages gradients along the data axis. Call the result, not the wrapped module.

    DDP's copying of parameters at the start and of buffers is off, because it would hide a difference that the
    coordinator must detect. On a rank that shares its arms with no other rank, `network` itself is returned: there is
    nothing to average, and DDP would copy the gradients.
    """
    if data_size() == 1:
        return network
    device = next(network.parameters()).device
    with warnings.catch_warnings():
        # torch 2.15 recommends forward_sync_buffers, but that still copies the buffers at the start
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network,
            device_ids=[device.index] if device.type == "cuda" else None,
            process_group=_data_axis,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            init_sync=False,
        )


class _GatherImages(torch.autograd.Function):
    """[V, B, ...] of every rank -> [V, G, ...] in the order of ranks.

    The backward pass sums the gradients over ranks and returns the part of this rank.
    """

    @staticmethod
    def forward(ctx: Any, own_VB: Tensor) -> Tensor:
        ctx.images = own_VB.shape[1]
        parts = [torch.empty_like(own_VB, memory_format=torch.contiguous_format) for _ in range(data_size())]
        dist.all_gather(parts, own_VB.contiguous(), group=_data_axis)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed_VG = gradients[0].contiguous().clone()
        dist.all_reduce(summed_VG, group=_data_axis)
        first = dist.get_rank(_data_axis) * ctx.images
        return summed_VG[:, first : first + ctx.images]


def gather_images(own_VB: Tensor) -> Tensor:
    """Gather [V, B, ...] of every rank on the data axis to [V, G, ...]; differentiable.

    The gradient of a rank's part is the sum of its gradients in the losses of all ranks.
    """
    if data_size() == 1:
        return own_VB
    gathered: Tensor = _GatherImages.apply(own_VB)
    return gathered


def sum_over_ranks(own: Tensor) -> Tensor:
    """Return the sum of a tensor over the data axis, on every rank; not differentiable."""
    total = own.detach().clone(memory_format=torch.contiguous_format)
    if data_size() > 1:
        dist.all_reduce(total, group=_data_axis)
    return total


def gather_json(value: Any) -> list[Any]:
    """Return the JSON value of every rank of the world, in the order of ranks; floats are exact."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(own)]))
    longest = max(int(length) for length in lengths)
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
    dist.all_gather(parts, nn.functional.pad(own, (0, longest - len(own))))
    return [json.loads(bytes(part[: int(n)].tolist())) for part, n in zip(parts, lengths, strict=True)]


def tensors_of_all_ranks(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather the named CPU tensors of all ranks on rank 0; {} on other ranks. Names must differ between ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(own)
    about = gather_json([[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in own.items()])
    if dist.get_rank() > 0:
        for tensor in own.values():
            dist.send(tensor.contiguous(), dst=0)
        return {}
    found = dict(own)
    for rank, described in enumerate(about[1:], 1):
        for name, shape, dtype in described:
            found[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            dist.recv(found[name], src=rank)
    return found


def barrier() -> None:
    """Wait until every rank of the world has called this function."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # a CPU tensor, so gloo's; NCCL's barrier would only order the device
