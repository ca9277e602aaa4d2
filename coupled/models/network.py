"""The network of an arm: encoder, projector, and the heads and target network that its objective needs.

V views, B images, D embedding width, P projection width, S image size.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from coupled.config.user_code import is_reference
from coupled.models.encoders import build_encoder, encoder_width
from coupled.models.user_encoder import build_user_encoder
from coupled.objectives import LOCAL, Head, Needs
from coupled.stream.seeds import torch_rng

LINEAR_PREDICTORS = ("linear_predictor", "linear_bias_predictor", "symmetric_predictor", "symmetric_bias_predictor")


class Network(nn.Module):
    """Computes the outputs named in `needs`.

    * "embedding" [V, B, D]: the output of the encoder
    * "unnormalised" [V, B, P]: the output of the projector
    * "projection" [V, B, P]: the same at unit norm
    * "target_projection" [V, B, P]: the projection of the target network, without gradient
    * the outputs of `heads`

    Each output except the target's also exists as "local_<name>" for the local views. Projections are at least float32.
    "projection" is always returned if the projector is used, because the run monitors it for collapse.

    The V*B images pass through the encoder together, so batch norm sees all views of the batch; the target network does
    the same with separate running averages. Parameters that no needed output depends on require no gradient: DDP then
    has no unused parameters, and they keep their initial values.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Sequential,
        heads: Mapping[str, nn.Module],
        specs: Mapping[str, Head],
        needs: Sequence[str],
        target: nn.Module | None = None,
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        for name, head in heads.items():
            self.add_module(name, head.requires_grad_(specs[name].trained))
        self.heads, self.needs = dict(specs), tuple(needs)
        read = {*(name.removeprefix(LOCAL) for name in needs), *(head.input for head in specs.values())}
        self.project = not read.isdisjoint(("unnormalised", "projection"))
        projector.requires_grad_(self.project)
        self.target = None if target is None else target.requires_grad_(False)
        if kept:
            self.kept = nn.Module()
            for name, tensor in kept.items():
                self.kept.register_buffer(name, tensor)

    def forward(self, views_VBchw: Tensor, local_VBchw: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by name for views [V, B, 3, S, S] and, in a second pass, local views."""
        computed = self._outputs(views_VBchw)
        if self.target is not None:
            with torch.no_grad():
                pixels = views_VBchw.flatten(0, 1)
                projection = self.target.get_submodule("projector")(self.target.get_submodule("encoder")(pixels))
                projection = functional.normalize(_exact(projection), dim=-1)
                computed["target_projection"] = projection.unflatten(0, views_VBchw.shape[:2])
        if local_VBchw is not None:
            computed |= {f"{LOCAL}{name}": output for name, output in self._outputs(local_VBchw).items()}
        names = dict.fromkeys([*self.needs, "projection"] if self.project else self.needs)
        return {name: computed[name] for name in names}

    def _outputs(self, views_VBchw: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, [V, B, ...], without those of the target network."""
        computed = {"embedding": self.encoder(views_VBchw.flatten(0, 1))}
        if self.project:
            computed["unnormalised"] = _exact(self.projector(computed["embedding"]))
            computed["projection"] = functional.normalize(computed["unnormalised"], dim=-1)
        for name, head in self.heads.items():
            computed[head.output] = self.get_submodule(name)(computed[head.input])
        return {name: output.unflatten(0, views_VBchw.shape[:2]) for name, output in computed.items()}


def _exact(projection: Tensor) -> Tensor:
    """Return `projection` in at least float32: in bfloat16 a unit norm has an error of 0.4 %."""
    return projection.to(torch.promote_types(projection.dtype, torch.float32))


def build_projector(inputs: int, hidden: int, out: int) -> nn.Sequential:
    """Build Linear-BN-ReLU-Linear-BN, [M, inputs] -> [M, out].

    The linear layers have no biases, and the last batch norm has a scale but no bias.

    Source: the protocol of arXiv 2510.08852 and 2506.04411.
    """
    last = nn.BatchNorm1d(out)
    last.register_parameter("bias", None)
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
        last,
    )


def build_network(
    *,
    encoder: str,
    width_multiplier: float = 1.0,
    stem: str = "cifar",
    image_size: int = 32,
    zero_init_last: bool = False,
    encoder_options: str = "{}",
    projector_hidden_dim: int | None = None,
    projector_output_dim: int = 128,
    seed: int = 0,
) -> Network:
    """Build the network that all arms share, on the CPU, initialised from the seed stream "init".

    Its outputs are "embedding" and "projection". `projector_hidden_dim=None` uses the width of the embedding.
    `encoder_options` are the options of a user-defined encoder as JSON; such an encoder takes no options of timm. Equal
    arguments give equal bytes on every device. Raises ValueError for an encoder, stem or width that is not supported.
    """
    with torch_rng(seed, "init"):
        trunk = (
            build_user_encoder(encoder, image_size, encoder_options)
            if is_reference(encoder)
            else build_encoder(encoder, width_multiplier, stem, image_size, zero_init_last)
        )
        inputs = encoder_width(trunk)
        projector = build_projector(inputs, projector_hidden_dim or inputs, projector_output_dim)
    return Network(trunk, projector, {}, {}, needs=("embedding", "projection"))


def copy_with_heads(shared: Network, needs: Needs, classes: int, seed: int) -> Network:
    """Copy the `shared` network and add the outputs, heads, target network and kept tensors that an objective needs.

    Each head is drawn from a separate seed stream "init/<head>", so a head changes neither the other heads nor the
    shared parts. The target network starts as another copy of the shared parts.
    """
    projection_width = shared.projector[-1].num_features
    assert isinstance(projection_width, int)
    widths = {
        "embedding": encoder_width(shared.encoder),
        "unnormalised": projection_width,
        "projection": projection_width,
    }
    heads: dict[str, nn.Module] = {}
    for name, head in needs.heads.items():
        with torch_rng(seed, f"init/{name}"):
            heads[name] = build_head(head, widths[head.input], classes)
    encoder, projector = copy.deepcopy(shared.encoder), copy.deepcopy(shared.projector)
    target = None
    if needs.target_decay is not None:
        target = nn.ModuleDict({name: copy.deepcopy(part) for name, part in shared.named_children()})
    kept = {name: torch.zeros([widths[output] for output in shape]) for name, shape in needs.kept.items()}
    return Network(encoder, projector, heads, needs.heads, needs.outputs, target, kept)


def build_head(head: Head, inputs: int, classes: int) -> nn.Module:
    """Build a head on an input with `inputs` features, drawn from torch's global generator."""
    if head.kind == "linear":
        return nn.Linear(inputs, classes)
    if head.kind in LINEAR_PREDICTORS:
        layer = nn.Linear(inputs, inputs, bias=head.kind.endswith("_bias_predictor"))
        if head.kind.startswith("symmetric"):
            with torch.no_grad():
                layer.weight.copy_((layer.weight + layer.weight.T) / 2)
        return layer
    if head.kind == "mlp_predictor":
        hidden = nn.Linear(inputs, head.hidden_dim, bias=False)  # no bias here: the batch norm has one
        return nn.Sequential(
            hidden, nn.BatchNorm1d(head.hidden_dim), nn.ReLU(inplace=True), nn.Linear(head.hidden_dim, inputs)
        )
    raise ValueError(f"head: got kind '{head.kind}'; allowed are linear, mlp_predictor, {', '.join(LINEAR_PREDICTORS)}")


def move_target(network: nn.Module, decay: float) -> None:
    """Update each parameter of the target network: target <- decay * target + (1 - decay) * parameter.

    The running averages of the target network are not copied. Source: Grill et al. 2020, arXiv 2006.07733, eq. 1.
    """
    own = [p for part in ("encoder", "projector") for p in network.get_submodule(part).parameters()]
    get_ema_multi_avg_fn(decay)([*network.get_submodule("target").parameters()], own, 0)


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
