"""One arm: a network behind DDP, an objective, an optimizer; `step(batch)`.

V views, B images of this rank, N images of the global batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from coupled.batch_norm import use_global_batch
from coupled.choices import Objective
from coupled.network import Network, copy_with_heads
from coupled.objectives import Inputs, Loss
from coupled.optimizer import build_optimizer
from coupled.process_group import data_size, distribute, gather_images, sum_over_ranks
from coupled.resume_state import load_optimizer_tensors, optimizer_tensors
from coupled.settings import Settings
from coupled.stream.batches import Batch


class StepResult(NamedTuple):
    """Loss over the global batch, gradient norm before clipping, and anchors left out of the mean."""

    loss: float
    grad_norm: float
    left_out: int


class Arm:
    """One model trained on the shared stream."""

    def __init__(
        self, name: str, settings: Settings, objective: Objective, shared: Network, classes: int, device: torch.device
    ) -> None:
        self.name = name
        self.objective = objective
        self.precision = settings.precision
        self.clip_norm = settings.optimizer.clip_norm or float("inf")
        self.dtype = torch.float64 if self.precision == "float64" else torch.float32
        network = copy_with_heads(shared, objective.needs, classes, settings.seed).to(device, self.dtype)
        self.network = use_global_batch(network, device).train()
        self.replica: nn.Module = distribute(self.network)
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(
            self.trained,
            settings.optimizer.name,
            momentum=settings.optimizer.momentum,
            weight_decay=settings.optimizer.weight_decay,
        )

    def step(self, batch: Batch, lr: float) -> StepResult:
        """One update on `batch` with learning rate `lr`.

        Raises FloatingPointError if loss or gradient is not finite, ValueError if every anchor is left out; the
        weights are then as before the step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss, counted, left_out = self._loss(batch)
        counts = sum_over_ranks(torch.stack([loss.detach() * counted, counted, left_out]).double())
        total, all_counted, all_left_out = counts.tolist()
        if all_counted == 0:
            raise ValueError(
                f"arms.{self.name}: all {int(all_left_out)} anchors of the batch lack a positive or a negative for"
                f" '{self.objective.name}'; use a larger batch.size or more classes"
            )
        # DDP averages over ranks: with this factor the average is the gradient of the mean over all counted anchors
        (loss * (counted * data_size() / all_counted)).backward()
        norm = float(nn.utils.clip_grad_norm_(self.trained, self.clip_norm))
        mean = total / all_counted
        for what, value in (("loss", mean), ("gradient norm", norm)):
            if not abs(value) < float("inf"):
                raise FloatingPointError(f"arm '{self.name}': {what} is {value}")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return StepResult(mean, norm, int(all_left_out))

    def _loss(self, batch: Batch) -> Loss:
        device = batch.views_VB3SS.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs = self.replica(batch.views_VB3SS.to(self.dtype))  # through DDP, never the module inside it
        gathered = {name: gather_images(outputs[name]) for name in self.objective.needs.gathered}
        inputs = Inputs(outputs, gathered, batch.labels_B, batch.labels_N, batch.first)
        return self.objective.function(inputs, **self.objective.options)

    def state(self) -> dict[str, Tensor]:
        """All tensors that exact continuation needs."""
        network = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        return network | {f"optimizer/{name}": t for name, t in optimizer_tensors(self.optimizer).items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.network.load_state_dict(parts["network"])
        load_optimizer_tensors(self.optimizer, parts["optimizer"])
