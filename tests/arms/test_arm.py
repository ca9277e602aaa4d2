"""An arm's gradient on several ranks equals that of the global loss in one process, for every objective."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ranks, tiny
from support.objectives import small_arms

from coupled.arms.arm import Arm
from coupled.config.registry import find_objective
from coupled.coordinator import Coordinator
from coupled.models.feature_maps import cell_locations
from coupled.models.heads import kept_tensors
from coupled.models.network import build_network, copy_with_heads
from coupled.objectives import Inputs
from coupled.parallel.process_group import process_group

ARMS: dict[str, Any] = small_arms() | {
    "positive": {"objective": "nscl", "positive_in_denominator": True},
    "inside": {"objective": "supcon", "variant": "in"},
    "few": {"objective": "supcon", "num_positives": 3},
    "on_embedding": {"objective": "cross_entropy", "input": "embedding"},
    "moco_v3": {"objective": "moco", "version": "v3"},
}
CHANGED: dict[str, Any] = {
    "arms": ARMS,
    "precision": "float64",
    "batch": {"size": 24},
    # the fastest over ranks: of all batch norms, each of which waits for all ranks, it leaves the projector's two
    "encoder": {"name": "test_vit", "stem": "imagenet"},
    "dataset": {"name": "digits", "image_size": 16},
    "optimizer": {**tiny.TINY["optimizer"], "clip_grad_norm": None},
}


def gradients_on_a_rank(folder: Path, changed: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The gradient of every arm after one step."""
    with process_group("cpu") as group:
        coordinator = Coordinator(tiny.tiny_settings(**{**CHANGED, **changed}), group, folder / "run")
        batch = next(coordinator.step_batches(1))[""]
        found = {}
        for arm in coordinator.arms:
            arm.gradients(batch)
            if group.data_size > 1:
                assert arm.replica.find_unused_parameters is False
            found[arm.name] = {
                name: None if parameter.grad is None else parameter.grad.numpy().copy()
                for name, parameter in arm.network.named_parameters()
            }
            asked = {name for name, parameter in arm.network.named_parameters() if parameter.requires_grad}
            assert asked == {name for name, gradient in found[arm.name].items() if gradient is not None}
        return found


@pytest.fixture(scope="module")
def of_the_global_loss() -> dict[str, dict[str, torch.Tensor | None]]:
    """The same gradient in one process, written out without Arm, DDP or a process group."""
    settings = tiny.tiny_settings(**CHANGED)
    with process_group("cpu") as group:
        coordinator = Coordinator(settings, group, Path("unused"))
        batch = next(coordinator.step_batches(1))[""]
    shared = build_network(
        encoder="test_vit",
        stem="imagenet",
        image_size=16,
        projector_hidden_dim=32,
        projector_output_dim=16,
        seed=settings.seed,
    )
    found = {}
    for name, arm in settings.arms.items():
        objective = find_objective(name, arm.objective, arm.options, settings.temperature)
        network = copy_with_heads(shared, objective.needs, 10, settings.seed).double().train()
        outputs = network(batch.views_VB3SS.double())
        if "locations" in objective.needs.outputs:
            outputs["locations"] = cell_locations(batch.boxes(), outputs["map_projection"].shape[2])
        inputs = Inputs(outputs, outputs, batch.labels_G, batch.labels_G, kept=kept_tensors(network))
        objective.function(inputs, **objective.options).mean.backward()
        found[name] = {key: parameter.grad for key, parameter in network.named_parameters()}
    return found


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 4])
def test_the_gradient_equals_that_of_the_global_loss(
    world_size: int, tmp_path: Path, of_the_global_loss: dict[str, dict[str, torch.Tensor | None]]
) -> None:
    """A gather whose backward keeps only this rank's slice gives 1/W of it; a mean of the ranks' means differs, too."""
    here = world_size == 1
    on_ranks = [gradients_on_a_rank(tmp_path, {})] if here else ranks.run(world_size, gradients_on_a_rank, tmp_path, {})
    for of_rank in on_ranks:
        for name in ARMS:
            found, wanted = (
                torch.cat([torch.as_tensor(g).flatten() for g in each[name].values() if g is not None])
                for each in (of_rank, of_the_global_loss)
            )
            ratio = (found.norm() / wanted.norm()).item()
            print(f"W={world_size} {name}: norm ratio {ratio:.4f}")
            assert ratio == pytest.approx(1, abs=1e-12)
            # a sum over ranks is rounded at the size of its terms, so a long gradient has long errors
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * max(1.0, wanted.norm().item()))


@pytest.mark.distributed
def test_the_gradient_of_mixed_views_is_that_of_their_soft_labels_on_two_ranks(tmp_path: Path) -> None:
    """Otherwise views would be mixed and their labels not, or a partner on another rank would have another label."""
    changed = {"arms": {"ce": "cross_entropy"}, "augmentation": {"mixup_alpha": 0.5, "cutmix_alpha": 1.0}}
    with process_group("cpu") as group:
        coordinator = Coordinator(tiny.tiny_settings(**{**CHANGED, **changed}), group, Path("unused"))
        batch, network = next(coordinator.step_batches(1))[""], coordinator.arms[0].network
        logits_VBC, weight_VB1 = network(batch.views_VB3SS.double())["logits"], batch.own_weight_VB[..., None].double()
        own_BC, partner_BC = (torch.nn.functional.one_hot(y, 10) for y in (batch.labels_B, batch.partner_labels_B))
        soft_VBC = weight_VB1 * own_BC + (1 - weight_VB1) * partner_BC
        torch.nn.functional.cross_entropy(logits_VBC.flatten(0, 1), soft_VBC.flatten(0, 1)).backward()
        wanted = {name: parameter.grad for name, parameter in network.named_parameters()}
    for of_rank in ranks.run(2, gradients_on_a_rank, tmp_path, changed):
        for name, gradient in of_rank["ce"].items():
            torch.testing.assert_close(torch.as_tensor(gradient), wanted[name], rtol=1e-10, atol=1e-12)


def loss_peak(world_size: int) -> int:
    """Number of elements of the largest tensor that an arm's objective creates on this rank."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for each in result if isinstance(result, tuple | list) else (result,):
                if isinstance(each, torch.Tensor):
                    self.numbers = max(self.numbers, each.numel())
            return result

    with process_group("cpu") as group:
        settings = tiny.tiny_settings(arms={"cl": "dcl"}, batch={"size": 128})
        arm: Arm = Coordinator(settings, group, Path("unused")).arms[0]
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            own_VBP = torch.randn(2, 128 // world_size, 16, generator=generator)
            labels_N = torch.arange(128)
            first = group.rank * 128 // world_size
            own = slice(first, first + 128 // world_size)
            from coupled.parallel.process_group import gather_images

            gathered = {"projection": gather_images(own_VBP)}
            with Largest() as largest:
                inputs = Inputs({"projection": own_VBP}, gathered, labels_N[own], labels_N, first)
                arm.objective.function(inputs, **arm.objective.options)
        return largest.numbers


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [1, 4])
def test_the_loss_of_a_rank_needs_memory_for_anchors_times_rows(world_size: int) -> None:
    """A similarity matrix of all rows with all rows on every rank would not shrink with the number of ranks."""
    rows, anchors = 2 * 128, 2 * 128 // world_size
    assert ranks.run(world_size, loss_peak, world_size) == [anchors * rows] * world_size


def test_the_gradient_is_clipped_after_its_norm_is_logged(tmp_path: Path) -> None:
    """With plain SGD the update has the length lr * clip_grad_norm; steps.csv has the norm before clipping."""
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0, "clip_grad_norm": 1e-3}
    with process_group("cpu") as group:
        settings = tiny.tiny_settings(optimizer=plain, arms={"cl": "dcl"}, precision="float64")
        coordinator = Coordinator(settings, group, tmp_path / "run")
        arm, batch = coordinator.arms[0], next(coordinator.step_batches(1))[""]
        before = [parameter.detach().clone() for parameter in arm.trained]
        result = arm.read(arm.gradients(batch).tolist())
        arm.update(lr=0.5, step=1)
        moved = sum((p.detach() - b).square().sum().item() for p, b in zip(arm.trained, before, strict=True)) ** 0.5
    assert moved == pytest.approx(0.5 * 1e-3, rel=1e-3)
    assert result.grad_norm > 0.01
