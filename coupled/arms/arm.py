"""One arm: a network behind DDP, an objective, an optimizer; a step is `gradients(batch)`, then `update(lr, step)`.

V views, B images of this rank, G images of the global batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from coupled.arms.step_result import StepResult
from coupled.config.controls import perturb
from coupled.config.registry import Objective
from coupled.models.feature_maps import cell_locations
from coupled.models.heads import kept_tensors
from coupled.models.network import move_target
from coupled.models.online_probe import OnlineProbe
from coupled.models.optimizer import set_learning_rate
from coupled.objectives import LOCATIONS, Inputs, Loss
from coupled.parallel.process_group import data_size, distribute, gather_images, sum_over_ranks
from coupled.storage.checkpoints import load_optimizer_tensors, optimizer_tensors
from coupled.stream.augment import send
from coupled.stream.batches import Batch
from coupled.stream.seeds import torch_rng


class Arm:
    """A network, an objective and an optimizer, trained on one stream.

    Args:
        name: name of the arm.
        objective: the objective that is minimised.
        network: the network, already on the device and in the memory layout of training.
        build_optimizer: builds the optimizer from the trainable parameters.
        precision: "float32", "bfloat16" (autocast) or "float64".
        clip_grad_norm: maximum gradient norm; None disables clipping.
        seed: seed of the run, for random numbers that the network draws, such as dropout.
        perturb: (ulps, step): move one weight by `ulps` units in the last place after step `step`; None: never.
        target_decay: decay of the target network by step; None: no target network.
        labels_N: the labels of the dataset as the objective sees them, on the device; None: those of the batches.
        probe: a classifier that is trained on the "embedding" of the network's outputs; None: none.
    """

    def __init__(
        self,
        name: str,
        objective: Objective,
        network: nn.Module,
        build_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        precision: str,
        clip_grad_norm: float | None,
        seed: int,
        perturb: tuple[int, int] | None,
        target_decay: Callable[[int], float] | None = None,
        labels_N: Tensor | None = None,
        probe: OnlineProbe | None = None,
    ) -> None:
        self.name, self.objective, self.network = name, objective, network
        self.precision, self.seed, self.perturb = precision, seed, perturb
        self.target_decay, self.labels_N, self.probe = target_decay, labels_N, probe
        self.embedding_VBD: Tensor | None = None  # of the last batch, for the probe
        self.clip_grad_norm = clip_grad_norm or float("inf")
        self.dtype = next(network.parameters()).dtype
        self.replica: nn.Module = distribute(network)
        self.buffers = list(network.buffers())
        self.buffers_before = [buffer.clone() for buffer in self.buffers]
        self.projection_VBP: Tensor | None = None
        self.views = 0  # views of an image in the last batch
        self.of_batch: dict[str, Tensor] = {}  # sums and outputs of the last global batch, for `objective.after_step`
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.trained)

    def settle_buckets(self, image_size: int, local_size: int = 0) -> None:
        """Run one backward pass that changes nothing, so that DDP has its final buckets before the first step.

        DDP rebuilds its buckets after its first backward pass, which changes the order of its sums. Without this pass a
        resumed run would sum in another order than an uninterrupted one.
        """
        if data_size() == 1:
            return
        device = next(self.network.parameters()).device
        before = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        with torch_rng(self.seed, "settle", device=device):
            outputs = self._outputs(*(torch.zeros(2, 2, 3, s, s, device=device) for s in (image_size, local_size)))
        torch.stack([output.sum() for output in outputs.values()]).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)
        self.network.load_state_dict(before)

    def gradients(self, batch: Batch) -> Tensor:
        """Compute the clipped gradient of the loss on `batch`, for `update` to use; the weights do not change.

        Returns the numbers for `read`, float64 on the device. The CPU does not wait for the GPU here, except in
        torch's SyncBatchNorm where several GPUs share a batch.
        """
        if self.buffers:
            torch._foreach_copy_(self.buffers_before, self.buffers)
        self.optimizer.zero_grad(set_to_none=True)
        loss, counted, skipped = self._loss(batch)
        counts = sum_over_ranks(torch.stack([loss.detach() * counted, counted, skipped]).double())
        # DDP averages over ranks; with this factor the average is the gradient of the mean over all counted anchors
        (loss * (counted * data_size() / counts[1].clamp(min=1)).to(loss.dtype)).backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip_grad_norm)
        numbers = [counts, norm.double()[None]]
        if self.probe and self.embedding_VBD is not None:
            numbers.append(self.probe.gradients(self.embedding_VBD, batch.labels_B).double()[None])
        return torch.cat(numbers)

    def read(self, numbers: Sequence[float]) -> StepResult:
        """Turn the numbers of `gradients` into a result; loss and norm may be non-finite (`StepResult.non_finite`).

        Raises ValueError if every anchor was left out.
        """
        total, all_counted, all_skipped, norm, *of_probe = numbers
        if all_counted == 0:
            raise ValueError(
                f"arms.{self.name}: all {int(all_skipped)} anchors of the batch lack a positive or a negative for"
                f" '{self.objective.name}'; use a larger batch.size or more classes"
            )
        return StepResult(total / all_counted, norm, int(all_skipped), *of_probe)

    @torch.no_grad()
    def update(self, lr: float, step: int) -> None:
        """Take step `step` with the gradients of `gradients` and the learning rate `lr`.

        Then apply the objective's `after_step` rule, if it has one, and update the target network, if there is one.
        """
        set_learning_rate(self.optimizer, lr)
        for name, head in self.objective.needs.heads.items():
            if step <= head.frozen_steps:
                for parameter in self.network.get_submodule(name).parameters():
                    parameter.grad = None
        self.optimizer.step()
        if self.objective.after_step:
            tensors = self._tensors()
            changed = self.objective.after_step(tensors, self.of_batch, step, **self.objective.options)
            for name, tensor in changed.items():
                tensors[name].copy_(tensor)
        if self.target_decay:
            move_target(self.network, self.target_decay(step))
        if self.probe:
            self.probe.update(lr)

    def perturb_after(self, step: int) -> None:
        """Move one weight by a few units in the last place, if `perturb` names this step."""
        if self.perturb and self.perturb[1] == step:
            perturb(self.network, self.perturb[0], getattr(torch, self.precision))

    def undo(self) -> None:
        """Restore the buffers that the forward pass of `gradients` changed: the arm is in the state before the step."""
        for buffer, before in zip(self.buffers, self.buffers_before, strict=True):
            buffer.copy_(before)

    def _loss(self, batch: Batch) -> Loss:
        device, self.views = batch.views_VB3SS.device, len(batch.views_VB3SS)
        # What a network draws (dropout, drop-path) depends on the step and the position of its images alone. So it is
        # the same for a twin, after a resume, and whichever other arms are trained.
        drawn = torch_rng(self.seed, "network", batch.epoch, batch.number, batch.first, device=device)
        with drawn, torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = self._outputs(batch.views_VB3SS, batch.local_VB3SS)
        if LOCATIONS in self.objective.needs.outputs:
            outputs = outputs | {LOCATIONS: self._locations(batch, outputs)}
        gathered = {name: gather_images(outputs[name]) for name in self.objective.needs.gathered}
        labels_B, labels_G = self._seen(batch.labels_B, batch.indices_B), self._seen(batch.labels_G, batch.indices_G)
        mixed = {"partner_labels_B": batch.partner_labels_B, "own_weight_VB": batch.own_weight_VB}
        inputs = Inputs(outputs, gathered, labels_B, labels_G, batch.first, **mixed, kept=kept_tensors(self.network))
        self.projection_VBP = outputs["projection"].detach() if "projection" in outputs else None
        if self.objective.after_step:
            self.of_batch = {"labels": labels_G, **{name: output.detach() for name, output in gathered.items()}}
        if self.objective.batch_sums:
            own_sums = self.objective.batch_sums(outputs, **self.objective.options)
            self.of_batch |= {name: sum_over_ranks(own) for name, own in own_sums.items()}
        return self.objective.function(inputs, **self.objective.options)

    def _seen(self, labels: Tensor, indices: Tensor) -> Tensor:
        """Return the labels of these images of the dataset as the objective sees them."""
        return labels if self.labels_N is None else self.labels_N[indices]

    def _locations(self, batch: Batch, outputs: dict[str, Tensor]) -> Tensor:
        """Return the places of the cells of the views' feature maps in the images."""
        assert batch.boxes is not None  # `check_maps` refuses images on the disk
        of_maps = next(outputs[name] for name in self.objective.needs.maps if name != LOCATIONS)
        return send(cell_locations(batch.boxes(), of_maps.shape[2]), of_maps.device)

    def _outputs(self, views_VB3SS: Tensor, local_VB3SS: Tensor | None) -> dict[str, Tensor]:
        """Return the outputs, computed through DDP; local views are passed only if the objective takes them."""
        inputs = [views_VB3SS, local_VB3SS] if self.objective.needs.local else [views_VB3SS]
        outputs: dict[str, Tensor] = self.replica(*(each.to(self.dtype) for each in inputs if each is not None))
        if self.probe:
            self.embedding_VBD = outputs["embedding"].detach()
            if "embedding" not in self.objective.needs.outputs:
                del outputs["embedding"]
        return outputs

    def projection_spread(self) -> float | None:
        """Return the spread of the last batch's projections: 1 if uniform on the sphere, 0 if all are equal.

        The standard deviation of a coordinate over this rank's views, root mean square over coordinates, times sqrt(P).
        Source: Chen & He 2021, arXiv 2011.10566, section 4.1. None for an arm without projections.
        """
        if self.projection_VBP is None:
            return None
        return float(self.projection_VBP.float().flatten(0, 1).var(0, correction=0).sum().sqrt())

    def state(self) -> dict[str, Tensor]:
        """Return all tensors that an exact resume needs: "network/..." (a snapshot), "kept/..." and "optimizer/..."."""
        network, optimizer = self.network.state_dict(), optimizer_tensors(self.optimizer)
        named = {
            "network": network,
            "kept": {name: tensor for name, tensor in self.tensors().items() if name not in network},
            "optimizer": optimizer,
        }
        return {f"{part}/{name}": tensor for part, tensors in named.items() for name, tensor in tensors.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a snapshot, and the kept tensors that are not in snapshots."""
        kept = {f"kept.{name}": tensor for name, tensor in kept_tensors(self.network).items()}
        return {**self.network.state_dict(), **kept}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors but those of the optimizer: of a snapshot, kept ones, and those of the online probe."""
        return {**self._tensors(), **(self.probe.tensors() if self.probe else {})}

    def kept_state(self) -> dict[str, Tensor]:
        """Return a copy of `state` on the same device, which later steps do not change."""
        return {name: tensor.clone() for name, tensor in self.state().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load the tensors that `state` returned."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "kept": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        own = self.tensors()
        for name, tensor in parts["kept"].items():
            own[name].copy_(tensor)
        self.network.load_state_dict(parts["network"])
        load_optimizer_tensors(self.optimizer, parts["optimizer"])
