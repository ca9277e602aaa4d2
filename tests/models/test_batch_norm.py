"""Batch norm over ranks equals batch norm of one process: outputs, gradients, running statistics."""

from typing import Any

import pytest
import torch
from support import ranks
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from coupled.models.batch_norm import GlobalBatchNorm, use_global_batch
from coupled.parallel.process_group import process_group

LAYERS = {
    "images": lambda: nn.BatchNorm2d(5),
    "vectors": lambda: nn.BatchNorm1d(5),
    "scale only": lambda: _without_bias(nn.BatchNorm1d(5)),
    "neither": lambda: nn.BatchNorm2d(5, affine=False),
    "timm's with activation": lambda: BatchNormAct2d(5),
}


def _without_bias(layer: nn.Module) -> nn.Module:
    layer.register_parameter("bias", None)
    return layer


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 100  # a mean far from 0


def two_steps(layer: nn.Module, x_2M: Tensor, wanted_2M: Tensor) -> dict[str, Tensor]:
    """Two batches through `layer`, then one in evaluation mode: outputs, gradients, buffers."""
    x_2M.requires_grad_()
    outputs = torch.stack([layer(x) for x in x_2M])
    (outputs * wanted_2M).sum().backward()
    layer.eval()
    found = {"outputs": outputs, "gradient": x_2M.grad, "evaluated": layer(x_2M[0])}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in layer.named_parameters()}
    return {name: tensor.detach() for name, tensor in (found | dict(layer.named_buffers())).items()}


def inputs(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    layer = nn.Sequential(LAYERS[kind]()).double()
    for number, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(random(5, seed=number) - 99)
    shape = (2, 12, 5) if kind in ("vectors", "scale only") else (2, 12, 5, 3, 2)
    return layer, random(*shape, seed=7), random(*shape, seed=8) - 100


def on_a_rank(kind: str) -> dict[str, Any]:
    with process_group("cpu") as group:
        layer, x_2M, wanted_2M = inputs(kind)
        layer = use_global_batch(layer, group.device)
        assert isinstance(layer[0], GlobalBatchNorm)
        x_2M, wanted_2M = (whole.chunk(group.world_size, dim=1)[group.rank].clone() for whole in (x_2M, wanted_2M))
        return {name: tensor.numpy() for name, tensor in two_steps(layer, x_2M, wanted_2M).items()}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_ranks_together_normalise_like_one_process(world_size: int, kind: str) -> None:
    """Statistics of the own slice alone would make the network depend on the number of processes."""
    expected = two_steps(*inputs(kind))
    found = ranks.run(world_size, on_a_rank, kind)
    for name, tensor in expected.items():
        parts = [torch.from_numpy(each[name]) if each[name].ndim else torch.tensor(each[name]) for each in found]
        if name in ("outputs", "gradient", "evaluated"):
            whole = torch.cat(parts, dim=0 if name == "evaluated" else 1)
        elif name.startswith("gradient of"):
            whole = torch.stack(parts).sum(0)  # each rank's share; DDP averages what the arm has scaled
        else:
            assert all(torch.equal(part, parts[0]) for part in parts)
            whole = parts[0]
        torch.testing.assert_close(whole, tensor, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def in_bfloat16() -> bool:
    with process_group("cpu") as group:
        layer = use_global_batch(nn.Sequential(nn.BatchNorm2d(5)), group.device)
        x = random(8, 5, 3, 3, seed=group.rank).bfloat16()
        y = layer(x)
        assert y.dtype == torch.bfloat16
        variance = layer[0].running_var
        return bool((variance > 1).all())  # 0.9 * 1 + 0.1 * about 9


@pytest.mark.distributed
def test_statistics_of_bfloat16_are_taken_in_float32() -> None:
    """A mean of 100 summed in bfloat16 has an error as large as the spread."""
    assert ranks.run(2, in_bfloat16) == [True, True]


def test_layers_that_cannot_span_ranks_are_refused() -> None:
    """Silent local statistics would be a different experiment on every number of processes."""
    with pytest.raises(ValueError, match="without running averages"):
        GlobalBatchNorm(nn.BatchNorm2d(3, momentum=None))
    with pytest.raises(ValueError, match="batch norm SyncBatchNorm"):
        GlobalBatchNorm(nn.SyncBatchNorm(3))
