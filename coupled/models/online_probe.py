"""A linear classifier of an arm's embeddings that is trained beside the arm, without effect on it.

V views, B images of this rank, D width of the embedding, E = D + 1 with the bias, C classes, M = V*B rows, N images.
"""

import torch
from torch import Tensor

from coupled.parallel.process_group import sum_over_ranks


class OnlineProbe:
    """Softmax regression on embeddings by SGD with momentum; no gradient passes into the embeddings.

    In each step velocity <- momentum * velocity + gradient and weights <- weights - rate * velocity, as torch's SGD.
    The gradient is that of the mean cross-entropy over all views of the global batch, plus `weight_decay` times the
    weights without the bias. The rate is `base_lr` times the share of its peak that the rate of the arm has. It starts
    at zero weights, so nothing is drawn. All ranks of an arm have the same weights.

    Args:
        width: width D of the embedding.
        classes: number of classes C.
        peak_lr: largest learning rate of the arm.
        base_lr: largest learning rate of the probe.
        momentum: momentum, from 0 to below 1.
        weight_decay: weight decay.
        device: device of the arm.
        dtype: type of the weights.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        peak_lr: float,
        *,
        base_lr: float,
        momentum: float,
        weight_decay: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.weights_CE, self.velocity_CE, self.gradient_CE = torch.zeros(
            3, classes, width + 1, device=device, dtype=dtype
        )
        self.factor, self.momentum, self.weight_decay = base_lr / peak_lr, momentum, weight_decay

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that an exact resume needs, by name."""
        return {"online_probe.weights": self.weights_CE, "online_probe.velocity": self.velocity_CE}

    @torch.no_grad()
    def gradients(self, embedding_VBD: Tensor, labels_B: Tensor) -> Tensor:
        """Compute the gradient for `update`, and return the share of correct views of the global batch, on the device.

        Called by all ranks of the arm together.
        """
        rows_ME, labels_M = self._rows(embedding_VBD.detach().flatten(0, 1)), labels_B.repeat(len(embedding_VBD))
        logits_MC = rows_ME @ self.weights_CE.T
        correct = (logits_MC.argmax(1) == labels_M).sum()
        slope_MC = logits_MC.softmax(1)
        slope_MC[torch.arange(len(labels_M), device=labels_M.device), labels_M] -= 1
        own = [(slope_MC.T @ rows_ME).flatten(), correct[None], torch.full_like(correct[None], len(labels_M))]
        sums = sum_over_ranks(torch.cat([each.to(self.weights_CE.dtype) for each in own]))
        self.gradient_CE = (sums[:-2] / sums[-1]).view_as(self.weights_CE)
        self.gradient_CE[:, :-1] += self.weight_decay * self.weights_CE[:, :-1]
        return sums[-2] / sums[-1]

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """Take a step with the gradient of `gradients`; `lr` is the rate of the arm."""
        self.velocity_CE.mul_(self.momentum).add_(self.gradient_CE)
        self.weights_CE.sub_(self.velocity_CE * (self.factor * lr))

    @torch.no_grad()
    def accuracy(self, rows_ND: Tensor, labels_N: Tensor) -> Tensor:
        """Return the share of correct rows, a scalar on the CPU, for rows and labels on the CPU."""
        logits_NC = self._rows(rows_ND.to(self.weights_CE.device)) @ self.weights_CE.T
        return (logits_NC.argmax(1).cpu() == labels_N).double().mean()

    def _rows(self, rows_MD: Tensor) -> Tensor:
        """Return the rows in the type of the weights, with a last column of ones for the bias."""
        rows_MD = rows_MD.to(self.weights_CE.dtype)
        return torch.cat([rows_MD, torch.ones_like(rows_MD[:, :1])], 1)
