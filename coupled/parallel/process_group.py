"""The process group: start, stop, gather with exact gradient, reductions. The only user of torch.distributed.

The W ranks form a mesh of arms x data. Ranks with the same place on the axis of arms train the same arms and share
each batch: gradients, batch norm and gathered projections stay on their axis of data. Only what is written down or
compared crosses between arms.

W world size, D ranks on the axis of data, V views, B images of this rank, G = D*B images of the global batch.
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

from coupled.parallel.rendezvous import NOBODY, Launch, Rendezvous, gather_over_store

_data_axis: dist.ProcessGroup | None = None  # None: all ranks; set by `process_group`, as torch keeps its own group


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place in the group; rank r is at r // D on the axis of arms and r % D on that of data."""

    rank: int
    world_size: int
    device: torch.device
    arms_size: int = 1
    launch: Launch = NOBODY

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that prints and keeps the logs."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """D, the number of ranks that share each batch of this rank's arms."""
        return self.world_size // self.arms_size

    @property
    def data_rank(self) -> int:
        """The place on the axis of data: which part of the global batch this rank gets."""
        return self.rank % self.data_size

    @property
    def arms_rank(self) -> int:
        """The place on the axis of arms: which arms this rank trains."""
        return self.rank // self.data_size

    @property
    def owns_arms(self) -> bool:
        """Whether this is the rank that writes the snapshots of its arms."""
        return self.data_rank == 0


def join_rendezvous(timeout_seconds: float = 600) -> Rendezvous:
    """Meet the ranks that torchrun (or whoever set RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) started, or nobody.

    Raises TimeoutError naming the ranks that did not come, ValueError if only a part of these variables is set.
    """
    launcher = "TORCHELASTIC_RUN_ID" in os.environ
    agent = f"{socket.gethostname()}:{os.getppid() if launcher else os.getpid()}"
    name = os.environ.get("TORCHELASTIC_RUN_ID", "no launcher")
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    absent = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        if os.environ.get("RANK", "0") != "0" or os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                f"{', '.join(absent)}: not set, but RANK or WORLD_SIZE says that there are several processes; start"
                " them with torchrun, or set all of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            )
        return Rendezvous(0, 1, dist.HashStore(), Launch(name, (agent,), restarts))
    store, rank, world_size = next(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=timeout_seconds)))
    own = [uuid.uuid4().hex, agent, restarts]
    leader, of_ranks = gather_over_store(store, rank, world_size, own, time.monotonic() + timeout_seconds)
    agents = tuple(dict.fromkeys(each[1] for each in of_ranks))
    # what ranks said before a restart must not reach these, and a launcher may keep one store for both
    mine = dist.PrefixStore(leader, store)
    return Rendezvous(rank, world_size, mine, Launch(name, agents, max(each[2] for each in of_ranks)))


@contextmanager
def process_group(
    device: str = "auto", timeout_seconds: float = 600, arms: int = 1, rendezvous: Rendezvous | None = None
) -> Iterator[ProcessGroup]:
    """Join the group of all ranks, as a mesh of `arms` x data; leave it at the end.

    `device` is "cpu", "cuda" or "auto" (a GPU per process if there is one). NCCL carries CUDA tensors, gloo CPU
    tensors. A collective that takes longer than `timeout_seconds` fails. Raises ValueError if CUDA is asked for and
    absent, or the ranks cannot be laid out.
    """
    global _data_axis
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch sees no CUDA device; set device=cpu")
    if dist.is_initialized():
        raise ValueError(
            "torch.distributed: this process is in a process group already, and a run makes its own: call"
            " torch.distributed.destroy_process_group() before"
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
    """D, the number of ranks that share each batch; 1 outside a process group."""
    return dist.get_world_size(_data_axis) if dist.is_initialized() else 1


def data_group() -> dist.ProcessGroup | None:
    """The ranks on the axis of data, for a library that asks for them; None means all ranks."""
    return _data_axis


def distribute(network: nn.Module) -> nn.Module:
    """`network` behind DDP: gradients are averaged on the axis of data. Call the result, never the module inside it.

    DDP's own copying at the start and of buffers is off: it would hide a difference that the coordinator must see. On a
    rank that shares its arms with no other there is nothing to average: it gets the network itself, without the copies
    of gradients that DDP makes.
    """
    if data_size() == 1:
        return network
    device = next(network.parameters()).device
    with warnings.catch_warnings():
        # torch 2.15 proposes forward_sync_buffers, which copies buffers at the start all the same
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
    """[V, B, ...] of every rank -> [V, G, ...] in the order of ranks; the backward sums over ranks and cuts the own
    part.
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
    """[V, B, ...] of every rank on the axis of data -> [V, G, ...]; differentiable with respect to every rank's part.

    The gradient of a rank's part is the sum over ranks of what their losses say of it.
    """
    if data_size() == 1:
        return own_VB
    gathered: Tensor = _GatherImages.apply(own_VB)
    return gathered


def sum_over_ranks(own: Tensor) -> Tensor:
    """Sum of a tensor over the axis of data, known to every rank of it; not differentiable."""
    total = own.detach().clone(memory_format=torch.contiguous_format)
    if data_size() > 1:
        dist.all_reduce(total, group=_data_axis)
    return total


def gather_json(value: Any) -> list[Any]:
    """The JSON value of every rank of the world, in the order of ranks; floats come back as they were."""
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
    """The named CPU tensors of every rank of the world, on rank 0; nothing elsewhere. Names differ between ranks."""
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
    """Wait until every rank of the world is here."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # a CPU tensor, so gloo's; NCCL's barrier would only order the device
