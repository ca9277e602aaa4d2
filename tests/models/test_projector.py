"""The projectors of the papers can be expressed, imported, aligned and trained; the default is today's."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from coupled.analysis.weights.channel_matching import channel_axes, permuted
from coupled.config.load import resolve
from coupled.config.projector_settings import ProjectorSettings
from coupled.config.registry import find_objective
from coupled.config.schema import from_resolved
from coupled.models.foreign import match_projector
from coupled.models.network import build_network, copy_with_heads
from coupled.models.projector import build_projector, projector_settings, projector_width
from coupled.objectives import Kept, Needs
from tests.support import tiny

WIDTH = 32  # of the embedding
Form = dict[str, Any]


def linear(inputs: int, out: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, out, bias=bias)


def scale_only(width: int) -> nn.BatchNorm1d:
    """A batch norm without bias, as SimCLR's (`center=False`) and the papers'."""
    norm = nn.BatchNorm1d(width)
    norm.register_parameter("bias", None)
    return norm


def hidden(inputs: int, out: int, bias: bool = False) -> list[nn.Module]:
    return [linear(inputs, out, bias), nn.BatchNorm1d(out), nn.ReLU()]


# The name, its settings, and the layers as the published code has them, with other widths
PUBLISHED: list[tuple[str, Form, list[nn.Module]]] = [
    ("default", {}, [linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), linear(32, 128), scale_only(128)]),
    (
        "vicreg",  # main_vicreg.py, Projector: biases, but for the last layer
        {"num_layers": 3, "hidden_dim": 48, "output_dim": 8, "last_norm": False, "bias": "hidden"},
        [*hidden(32, 48, bias=True), *hidden(48, 48, bias=True), linear(48, 8)],
    ),
    (
        "barlow_twins",  # main.py, class BarlowTwins: no biases; its last norm is part of the loss
        {"hidden_dims": [48, 24], "output_dim": 8, "last_norm": False},
        [*hidden(32, 48), *hidden(48, 24), linear(24, 8)],
    ),
    (
        "supcontrast",  # networks/resnet_big.py, SupConResNet with head="mlp"
        {"output_dim": 8, "last_norm": False, "bias": "all", "norm": "none"},
        [linear(32, 32, True), nn.ReLU(), linear(32, 8, True)],
    ),
    (
        "supcontrast_linear",  # the same with head="linear"
        {"num_layers": 1, "output_dim": 8, "last_norm": False, "bias": "all"},
        [linear(32, 8, True)],
    ),
    (
        "simsiam",  # simsiam/builder.py: three layers; the last norm has affine=False
        {"num_layers": 3, "output_dim": 8, "last_norm_scale": False},
        [*hidden(32, 32), *hidden(32, 32), linear(32, 8), nn.BatchNorm1d(8, affine=False)],
    ),
    (
        "simclr_v2",  # model_util.py, projection_head with three layers
        {"num_layers": 3, "output_dim": 8},
        [*hidden(32, 32), *hidden(32, 32), linear(32, 8), scale_only(8)],
    ),
    (
        "directpred",  # luckmatters, mlp_head.py: no last norm; the hidden norm has affine=False
        {"hidden_dim": 48, "output_dim": 8, "bias": "all", "last_norm": False, "norm": "batch_no_affine"},
        [linear(32, 48, True), nn.BatchNorm1d(48, affine=False), nn.ReLU(), linear(48, 8, True)],
    ),
]
named = pytest.mark.parametrize(
    ("form", "layers"), [each[1:] for each in PUBLISHED], ids=[each[0] for each in PUBLISHED]
)


def built(form: Form) -> nn.Sequential:
    """The projector of these settings, by way of the resolved settings of a run."""
    options = tiny.tiny_settings(projector=form).network_options()
    return build_network(**options, seed=0).projector


@named
def test_a_published_head_has_the_layers_of_its_paper(form: Form, layers: list[nn.Module]) -> None:
    """The same kinds of layers, names and shapes of tensors, and with equal tensors the same numbers in training."""
    ours, theirs = built(form), nn.Sequential(*copy.deepcopy(layers))
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    theirs.load_state_dict(ours.state_dict())  # refuses other names and other shapes
    assert projector_width(ours, WIDTH) == (form.get("output_dim", 128))
    images = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.train()(images), theirs.train()(images))
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


@named
def test_a_published_head_is_imported(form: Form, layers: list[nn.Module]) -> None:
    """A file with the plain layers of the paper gives the same tensors, and settings that build the same projector."""
    plain = nn.Sequential(*copy.deepcopy(layers))
    file = {f"module.projector.{name}": tensor for name, tensor in plain.state_dict().items()}
    found = match_projector({**file, "module.encoder.conv1.weight": torch.ones(8, 3, 3, 3)}, WIDTH)
    if form.get("num_layers") == 1:
        assert found is None  # it may be a classifier
        return
    assert found is not None
    settings = ProjectorSettings.model_validate(projector_settings(found.tensors)).model_dump()
    sizes = {"hidden": settings.pop("hidden_dim"), "out": settings.pop("output_dim")}
    again = build_projector(WIDTH, **sizes, **settings)
    again.load_state_dict(found.tensors)
    images = torch.randn(6, WIDTH)
    assert torch.equal(again(images), plain(images))


def test_a_file_with_another_order_of_layers_is_no_projector() -> None:
    """ReLU before batch norm, or a last norm with a bias that is not zero, is another function."""
    other = nn.Sequential(linear(32, 16), nn.ReLU(), nn.BatchNorm1d(16), linear(16, 8))
    assert match_projector(dict(other.state_dict()), WIDTH) is None
    shifted = nn.Sequential(linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), linear(16, 8), nn.BatchNorm1d(8))
    assert match_projector(dict(shifted.state_dict()), WIDTH) is not None
    nn.init.ones_(shifted[4].bias)
    assert match_projector(dict(shifted.state_dict()), WIDTH) is None


@named
def test_permuted_hidden_channels_are_the_same_network(form: Form, layers: list[nn.Module]) -> None:
    """Every hidden layer of the projector is aligned, its norm and its biases included; z keeps its order."""
    network = build_network(**tiny.tiny_settings(projector=form).network_options(), seed=0).double().eval()
    tensors = {name: each + torch.rand_like(each) for name, each in network.state_dict().items() if each.dim()}
    axes = channel_axes({name: tuple(each.shape) for name, each in tensors.items()})
    sizes = {group: tensors[n].shape[i] for n, groups in axes.items() for i, group in enumerate(groups) if group}
    inside = [group for group in sizes if group.startswith("projector.")]
    assert len(inside) == sum(isinstance(layer, nn.Linear) for layer in layers) - 1
    orders = {group: torch.randperm(size) for group, size in sizes.items()}
    views = torch.rand(1, 4, 3, 8, 8, dtype=torch.float64)
    outputs = []
    for values in (tensors, {n: permuted(each, axes.get(n, ()), orders) for n, each in tensors.items()}):
        network.load_state_dict(values, strict=False)  # without the counts of batches
        outputs.append(network(views)["projection"])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    kept = copy_with_heads(network, Needs(("projection",), kept={"c": Kept(("projection",))}), classes=10, seed=0)
    assert kept.get_buffer("kept.c").shape == (form.get("output_dim", 128),)


def test_the_default_has_the_bits_names_and_digest_of_the_two_layer_projector() -> None:
    """New keys are neither in the resolved settings nor in the arguments of a network unless they are set."""
    torch.manual_seed(5)
    plain = nn.Sequential(linear(32, 48), nn.BatchNorm1d(48), nn.ReLU(), linear(48, 8), scale_only(8))
    torch.manual_seed(5)
    ours = build_projector(32, 48, 8)
    assert list(ours.state_dict()) == list(plain.state_dict())
    equal: list[bool] = [
        torch.equal(a, b) for a, b in zip(*(x.state_dict().values() for x in (ours, plain)), strict=True)
    ]
    assert all(equal)
    sizes = {"hidden_dim": 32, "output_dim": 16}
    spelled = {"num_layers": None, "hidden_dims": None, "last_norm": True, "last_norm_scale": True}
    spelled |= {"bias": "none", "norm": "batch"}
    default, same = tiny.tiny_settings(projector=sizes), tiny.tiny_settings(projector={**sizes, **spelled})
    assert default.resolved()["projector"] == same.resolved()["projector"] == sizes
    digests = {default.sha256(), same.sha256()}
    assert len(digests) == 1
    for key, value in {
        "num_layers": 3,
        "last_norm": False,
        "last_norm_scale": False,
        "bias": "all",
        "norm": "none",
    }.items():
        digests.add(tiny.tiny_settings(projector={**sizes, key: value}).sha256())
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"hidden_dims": [8], "hidden_dim": 8}, r"hidden_dims: got \[8\] with hidden_dim: 8; set one"),
        (
            {"hidden_dims": [8, 8], "num_layers": 2},
            r"hidden_dims: got \[8, 8\] with num_layers: 2; .* has 3 linear layers",
        ),
        ({"hidden_dim": 8, "num_layers": 1}, r"hidden_dim: got 8 with num_layers: 1"),
        ({"last_norm": False, "last_norm_scale": False}, r"last_norm_scale: got false with last_norm: false"),
        ({"num_layers": 1, "norm": "none"}, r"norm: got none for a projector of one linear layer"),
        ({"num_layers": 1, "norm": "batch_no_affine"}, r"norm: got batch_no_affine for a projector of one linear"),
        ({"hidden_dims": [], "bias": "hidden"}, r"bias: got hidden for a projector of one linear layer"),
    ],
)
def test_contradicting_keys_are_refused(form: Form, said: str) -> None:
    """In one line that names key and value."""
    with pytest.raises(ValidationError, match=said):
        ProjectorSettings.model_validate(form)
    with pytest.raises(ValueError, match=r"^.*projector\.?.*: ") as refused:
        tiny.tiny_settings(projector=form)
    assert "\n" not in str(refused.value)


def test_the_linear_encoder_without_a_projector_is_one_matrix_on_the_pixels():
    """Its projection is the embedding at unit norm; a target network has the projection before normalisation, too."""
    options = {"encoder": "linear", "embedding_dim": 5, "image_size": 8, "projector_num_layers": 0}
    network = build_network(**options, projector_output_dim=5, projector_last_norm=False)
    assert [*network.state_dict()] == ["encoder.linear.weight"]
    views = torch.randn(2, 3, 3, 8, 8)
    outputs = network(views)
    expected = views.flatten(2) @ network.encoder.linear.weight.T
    torch.testing.assert_close(outputs["embedding"], expected)
    torch.testing.assert_close(outputs["projection"], torch.nn.functional.normalize(expected, dim=-1))
    needs = find_objective("a", "prediction_mse", {"ema_decay": 0.5}, 0.5).needs
    torch.testing.assert_close(copy_with_heads(network, needs, 0, 0)(views)["target_unnormalised"], expected)
    with pytest.raises(ValueError, match=r"output_dim: got 4 with num_layers: 0; .* set it to 5"):
        build_network(**options, projector_output_dim=4)


@pytest.mark.parametrize(
    ("encoder", "part"),
    [
        ({"name": "linear"}, "embedding_dim: missing; linear needs it"),
        ({"name": "linear", "embedding_dim": 4, "stem": "cifar"}, "stem: got cifar with linear, which has no stem"),
        ({"name": "resnet18", "embedding_dim": 4}, "embedding_dim: got 4 with resnet18, which has no embedding_dim"),
    ],
)
def test_a_key_of_another_encoder_is_refused(encoder, part):
    """It would be accepted and ignored."""
    with pytest.raises(ValueError, match=part):
        resolve({**tiny.TINY, "encoder": encoder})


def test_settings_of_other_encoders_have_no_new_key_and_those_of_linear_no_stem():
    """Runs of earlier versions keep their digest; resolved settings can be read again."""
    assert "embedding_dim" not in tiny.tiny_settings().resolved()["encoder"]
    projector = {"num_layers": 0, "output_dim": 4, "last_norm": False}
    settings = tiny.tiny_settings(encoder={"name": "linear", "embedding_dim": 4}, projector=projector)
    assert settings.resolved()["encoder"] == {"name": "linear", "embedding_dim": 4}
    assert from_resolved(settings.resolved()).sha256() == settings.sha256()
