"""The network of an arm: encoder, projector, and the heads and target network that its objective needs.

V views, B images, D embedding width, P projection width, S image size.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from coupled.config.user_code import is_reference
from coupled.models.encoders import LinearEncoder, build_encoder, encoder_width
from coupled.models.feature_maps import embedding_and_map
from coupled.models.heads import build_head, kept_at_start
from coupled.models.projector import build_projector, projector_width
from coupled.models.user_encoder import build_user_encoder
from coupled.objectives import FEATURE_MAP, LOCAL, LOCATIONS, Head, Needs
from coupled.stream.seeds import torch_rng


class Network(nn.Module):
    """Computes the outputs named in `needs`.

    * "embedding" [V, B, D]: the output of the encoder
    * "unnormalised" [V, B, P]: the output of the projector
    * "projection" [V, B, P]: the same at unit norm
    * "target_projection" [V, B, P]: the projection of the target network, without gradient
    * "target_unnormalised" [V, B, P]: the same before normalisation
    * "feature_map" [V, B, Q, D]: the cells of the encoder's last feature map, computed only if it is read
    * the outputs of `heads`, and "target_<output>" of those that the target network has, without gradient

    Each output except the target's also exists as "local_<name>" for the local views. Projections are at least float32.
    "projection" is always returned if the projector is used, because the run monitors it for collapse.

    The V*B images pass through the network together, so batch norm sees all views of the batch; the target network does
    the same with separate running averages. In training without `views_in_one_pass`, each view passes through both
    networks separately: batch norm has separate statistics per view and updates its running averages once per view.
    Parameters that no needed output depends on require no gradient: DDP then has no unused parameters, and they keep
    their initial values.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Sequential,
        heads: Mapping[str, nn.Module],
        specs: Mapping[str, Head],
        needs: Sequence[str],
        target: nn.Module | None = None,
        kept: Mapping[str, tuple[Tensor, bool]] | None = None,
        *,
        views_in_one_pass: bool = True,
    ) -> None:
        super().__init__()
        self.views_in_one_pass = views_in_one_pass
        self.encoder = encoder
        self.projector = projector
        for name, head in heads.items():
            self.add_module(name, head.requires_grad_(specs[name].trained))
        self.heads, self.needs = dict(specs), tuple(needs)
        self.also_returned: tuple[str, ...] = ()  # outputs that are not for the objective
        read = {*(name.removeprefix(LOCAL) for name in needs), *(head.input for head in specs.values())}
        self.maps = FEATURE_MAP in read
        self.project = not read.isdisjoint(("unnormalised", "projection"))
        projector.requires_grad_(self.project)
        self.target = None if target is None else target.requires_grad_(False)
        if kept:
            self.kept = nn.Module()
            for name, (tensor, in_snapshots) in kept.items():
                self.kept.register_buffer(name, tensor, persistent=in_snapshots)

    def forward(self, views_VBchw: Tensor, local_VBchw: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by name for views [V, B, 3, S, S] and, in a second pass, local views."""
        computed = self._outputs(views_VBchw, self._own_outputs)
        if self.target is not None:
            with torch.no_grad():
                computed |= self._outputs(views_VBchw, self._target_outputs)
        if local_VBchw is not None:
            local = self._outputs(local_VBchw, self._own_outputs)
            computed |= {f"{LOCAL}{name}": output for name, output in local.items()}
        names = dict.fromkeys([*self.needs, *(["projection"] if self.project else []), *self.also_returned])
        return {name: computed[name] for name in names}

    def _outputs(self, views_VBchw: Tensor, compute: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what `compute` returns for images [M, 3, S, S], as [V, B, ...], from one pass or from one per view."""
        if self.views_in_one_pass or not self.training:
            computed = compute(views_VBchw.flatten(0, 1))
            return {name: output.unflatten(0, views_VBchw.shape[:2]) for name, output in computed.items()}
        passes = [compute(view_Bchw) for view_Bchw in views_VBchw]
        return {name: torch.stack([each[name] for each in passes]) for name in passes[0]}

    def _own_outputs(self, images_Mchw: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, [M, ...], without those of the target network."""
        computed: dict[str, Tensor] = {}
        if self.maps:
            computed["embedding"], computed[FEATURE_MAP] = embedding_and_map(self.encoder, images_Mchw)
        else:
            computed["embedding"] = self.encoder(images_Mchw)
        if self.project:
            computed["unnormalised"] = _exact(self.projector(computed["embedding"]))
            computed["projection"] = functional.normalize(computed["unnormalised"], dim=-1)
        for name, head in self.heads.items():
            computed[head.output] = self.get_submodule(name)(computed[head.input])
        return computed

    def _target_outputs(self, images_Mchw: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the target network by name, [M, ...]."""
        assert self.target is not None
        projection = self.target.get_submodule("projector")(self.target.get_submodule("encoder")(images_Mchw))
        exact = _exact(projection)
        computed = {"target_projection": functional.normalize(exact, dim=-1), "target_unnormalised": exact}
        for name, head in self.heads.items():
            if name in dict(self.target.named_children()):
                computed[f"target_{head.output}"] = self.target.get_submodule(name)(computed[f"target_{head.input}"])
        return computed


def _exact(projection: Tensor) -> Tensor:
    """Return `projection` in at least float32: in bfloat16 a unit norm has an error of 0.4 %."""
    return projection.to(torch.promote_types(projection.dtype, torch.float32))


def build_network(
    *,
    encoder: str,
    width_multiplier: float = 1.0,
    stem: str = "cifar",
    image_size: int = 32,
    zero_init_last: bool = False,
    embedding_dim: int | None = None,
    encoder_options: str = "{}",
    projector_hidden_dim: int | None = None,
    projector_output_dim: int = 128,
    views_in_one_pass: bool = True,
    seed: int = 0,
    **projector_options: Any,
) -> Network:
    """Build the network from which arms start, on the CPU, initialised from the seed stream "init".

    Its outputs are "embedding" and "projection". `projector_hidden_dim=None` uses the width of the embedding. Other
    options of `build_projector` also have the prefix `projector_`.
    With `embedding_dim` the encoder is one matrix.
    `encoder_options` are further options as JSON: of timm's model, or of a user-defined encoder, which takes no options
    of timm. Equal arguments give equal bytes on every device. Raises ValueError for an encoder, stem, width or option
    that is not supported.
    """
    with torch_rng(seed, "init"):
        trunk = (
            build_user_encoder(encoder, image_size, encoder_options)
            if is_reference(encoder)
            else LinearEncoder(image_size, embedding_dim)
            if embedding_dim is not None
            else build_encoder(encoder, width_multiplier, stem, image_size, zero_init_last, json.loads(encoder_options))
        )
        inputs = encoder_width(trunk)
        further = {key.removeprefix("projector_"): value for key, value in projector_options.items()}
        projector = build_projector(inputs, projector_hidden_dim, projector_output_dim, **further)
    return Network(trunk, projector, {}, {}, needs=("embedding", "projection"), views_in_one_pass=views_in_one_pass)


def copy_with_heads(shared: Network, needs: Needs, classes: int, seed: int) -> Network:
    """Copy the `shared` network and add the outputs, heads, target network and kept tensors that an objective needs.

    Each head is drawn from a separate seed stream "init/<head>", so a head changes neither the other heads nor the
    shared parts. The target network starts as another copy of the shared parts.
    """
    embedding_width = encoder_width(shared.encoder)
    projection_width = projector_width(shared.projector, embedding_width)
    widths = {
        "embedding": embedding_width,
        "unnormalised": projection_width,
        "projection": projection_width,
        FEATURE_MAP: embedding_width,
    }
    heads: dict[str, nn.Module] = {}
    for name, head in needs.heads.items():
        with torch_rng(seed, f"init/{name}"):
            heads[name] = build_head(head, widths[head.input], classes)
    encoder, projector = copy.deepcopy(shared.encoder), copy.deepcopy(shared.projector)
    target = None
    if needs.target_decay is not None:
        parts = {**dict(shared.named_children()), **{name: heads[name] for name in needs.target_heads}}
        target = nn.ModuleDict({name: copy.deepcopy(part) for name, part in parts.items()})
    kept = {name: (each, needs.kept[name].snapshot) for name, each in kept_at_start(needs, widths, seed).items()}
    outputs = [name for name in needs.outputs if name != LOCATIONS]  # which the arm computes from the crops
    return Network(
        encoder, projector, heads, needs.heads, outputs, target, kept, views_in_one_pass=shared.views_in_one_pass
    )


def move_target(network: nn.Module, decay: float) -> None:
    """Update each parameter of the target network: target <- decay * target + (1 - decay) * parameter.

    The running averages of the target network are not copied. Source: Grill et al. 2020, arXiv 2006.07733, eq. 1.
    """
    target = network.get_submodule("target")
    own = [p for part, _ in target.named_children() for p in network.get_submodule(part).parameters()]
    get_ema_multi_avg_fn(decay)([*target.parameters()], own, 0)


def shared_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that every arm has: those of the encoder and the projector."""
    return {name: t for name, t in network.state_dict().items() if name.split(".")[0] in ("encoder", "projector")}


def network_size(network: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, frozen ones included, and the bytes of a snapshot."""
    tensors = network.state_dict().values()
    bytes_ = sum(tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in tensors)
    return sum(parameter.numel() for parameter in network.parameters()), bytes_


def trained_bytes(network: nn.Module) -> int:
    """Return the bytes of the parameters that have a gradient."""
    return sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
