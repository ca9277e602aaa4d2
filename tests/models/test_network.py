"""Encoders, projector and heads: the architecture of the protocol, and an initialisation that is a function of the
seed.
"""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from coupled.models.network import build_network, copy_with_heads, shared_tensors
from coupled.objectives import Head, Needs
from coupled.storage.snapshots import tensors_digest

SMALL = {"encoder": "resnet18", "width_multiplier": 0.0625, "image_size": 8, "projector_output_dim": 16}
CLASSIFIER = Needs(("logits",), heads={"classifier": Head("linear", "projection", "logits")})


def digest(network: nn.Module) -> str:
    return tensors_digest(shared_tensors(network))


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_generator() -> None:
    """A constructor that reads the global generator makes the model depend on what ran before it."""
    first = digest(build_network(**SMALL, seed=1))
    torch.rand(7)
    state = torch.get_rng_state()
    assert digest(build_network(**SMALL, seed=1)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert digest(build_network(**SMALL, seed=2)) != first


def test_heads_do_not_change_the_shared_initialisation() -> None:
    """CE's classifier must not shift the random numbers of the encoder."""
    shared = build_network(**SMALL, seed=1)
    with_head = copy_with_heads(shared, CLASSIFIER, classes=10, seed=1)
    assert digest(with_head) == digest(shared)
    again = copy_with_heads(shared, CLASSIFIER, classes=10, seed=1)
    assert torch.equal(with_head.get_parameter("classifier.weight"), again.get_parameter("classifier.weight"))
    other = copy_with_heads(shared, CLASSIFIER, classes=10, seed=2)
    assert not torch.equal(with_head.get_parameter("classifier.weight"), other.get_parameter("classifier.weight"))


def test_a_copy_shares_no_memory() -> None:
    """Arms that share a tensor would train each other."""
    shared = build_network(**SMALL)
    copies = [copy_with_heads(shared, Needs(("projection",)), 0, 0) for _ in range(2)]
    pointers = [t.data_ptr() for network in [shared, *copies] for t in network.state_dict().values()]
    assert len(set(pointers)) == len(pointers)


def test_outputs_have_the_documented_shapes_and_norms() -> None:
    """embedding [V,B,D], unnormalised [V,B,P], projection [V,B,P] of unit norm, logits [V,B,C]."""
    needs = Needs(("embedding", "unnormalised", "projection", "logits"), heads=CLASSIFIER.heads)
    network = copy_with_heads(build_network(**SMALL), needs, classes=10, seed=0)
    outputs = network(torch.rand(2, 6, 3, 8, 8))
    assert {name: tuple(t.shape) for name, t in outputs.items()} == {
        "embedding": (2, 6, 32),
        "unnormalised": (2, 6, 16),
        "projection": (2, 6, 16),
        "logits": (2, 6, 10),
    }
    torch.testing.assert_close(outputs["projection"].norm(dim=-1), torch.ones(2, 6))
    assert torch.equal(torch.nn.functional.normalize(outputs["unnormalised"], dim=-1), outputs["projection"])
    assert outputs["unnormalised"].norm(dim=-1).std() > 0.01


def test_both_projections_are_float32_under_autocast() -> None:
    """Three digits of bfloat16 are too few for a unit norm, and for a covariance."""
    network = copy_with_heads(build_network(**SMALL), Needs(("unnormalised", "projection")), classes=10, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(torch.rand(2, 6, 3, 8, 8))
    assert {tensor.dtype for tensor in outputs.values()} == {torch.float32}


def test_batch_norm_sees_both_views_together() -> None:
    """One forward over the 2B concatenated views: statistics of one view alone would be another experiment."""
    network, views = build_network(**SMALL).train(), torch.rand(2, 6, 3, 8, 8)
    together = network(views)["projection"]
    flat = network(views.flatten(0, 1).unsqueeze(0))["projection"]
    apart = torch.stack([network(view.unsqueeze(0))["projection"][0] for view in views])
    assert torch.equal(together.flatten(0, 1), flat[0])
    assert not torch.allclose(together, apart, atol=1e-3)


def test_every_trained_parameter_gets_a_gradient_and_the_others_are_frozen() -> None:
    """DDP runs with find_unused_parameters off: a trained parameter without gradient would hang or raise."""
    for source in ("projection", "unnormalised", "embedding"):
        needs = Needs(("logits",), heads={"classifier": Head("linear", source, "logits")})
        network = copy_with_heads(build_network(**SMALL), needs, classes=10, seed=0)
        network(torch.rand(2, 6, 3, 8, 8))["logits"].sum().backward()
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.requires_grad == (source != "embedding" or not name.startswith("projector")), name


def test_the_projector_is_the_protocols() -> None:
    """Linear without bias, batch norm, ReLU, linear without bias, batch norm with scale only."""
    projector = build_network(**SMALL).projector
    assert [type(layer) for layer in projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert sorted(name for name, _ in projector.named_parameters()) == [
        "0.weight",
        "1.bias",
        "1.weight",
        "3.weight",
        "4.weight",
    ]
    assert tuple(projector[0].weight.shape) == (32, 32)


def test_an_encoder_loads_into_the_plain_timm_model() -> None:
    """A snapshot is of use outside this project: with the standard stem the keys and shapes are timm's own."""
    network = build_network(encoder="resnet18", stem="imagenet")
    plain = timm.create_model("resnet18", num_classes=0)
    plain.load_state_dict(
        {name.removeprefix("encoder."): t for name, t in network.state_dict().items() if name.startswith("encoder.")}
    )
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected: Tensor = plain.eval()(images)
        assert torch.equal(network.eval()(images.unsqueeze(0))["embedding"][0], expected)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_narrow_resnet_has_timms_tensors_with_fewer_channels(name: str, stem: str) -> None:
    """`width` scales every channel, the stem's too, and neither adds nor drops a layer."""
    narrow = build_network(encoder=name, width_multiplier=0.25, stem=stem).encoder.state_dict()
    plain = timm.create_model(name, num_classes=0).state_dict()
    assert narrow.keys() == plain.keys()
    for key, tensor in plain.items():
        if key != "conv1.weight" and tensor.dim():
            assert narrow[key].shape[0] * 4 == tensor.shape[0], key


def test_the_cifar_stem_keeps_the_resolution() -> None:
    """At 32 px the standard stem would leave a single pixel at the last stage."""
    encoder = build_network(encoder="resnet18", width_multiplier=0.25).encoder
    assert tuple(encoder.conv1(torch.zeros(1, 3, 32, 32)).shape[2:]) == (32, 32)
    assert encoder.conv1.kernel_size == (3, 3)
    assert isinstance(encoder.maxpool, nn.Identity)


def test_all_norm_scales_start_at_one_unless_the_last_of_each_block_should_start_at_zero() -> None:
    """A scale of 0 has a weight gap near 1 after one step, whatever the objective; it changes the order of the arms."""

    def scales(zero_init_last: bool) -> dict[str, set[float]]:
        encoder = build_network(encoder="resnet18", width_multiplier=0.25, zero_init_last=zero_init_last).encoder
        norms = {name: each for name, each in encoder.named_modules() if isinstance(each, nn.BatchNorm2d)}
        return {name: {*each.weight.tolist()} for name, each in norms.items()}

    assert {value for values in scales(False).values() for value in values} == {1.0}
    zeros = {name for name, values in scales(True).items() if values == {0.0}}
    assert zeros == {f"layer{stage}.{block}.bn2" for stage in (1, 2, 3, 4) for block in (0, 1)}


def test_the_start_of_the_scales_changes_nothing_else() -> None:
    """Weights drawn with either start are equal, so that two runs differ in the scales alone."""
    one, zero = (
        build_network(encoder="resnet18", width_multiplier=0.25, zero_init_last=each).state_dict() for each in (0, 1)
    )
    assert {name.rpartition(".")[0][-3:] for name, each in one.items() if not torch.equal(each, zero[name])} == {"bn2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vit_tiny_patch16_224", "zero_init_last": True}, r"encoder\.zero_init_last: got true; 'vit_tiny"),
        (
            {"encoder": "resnet19"},
            r"encoder\.name: timm has no model 'resnet19'; did you mean 'resnet1.*'\?; `coupled list encoders` lists",
        ),
        ({"encoder": "regnety_002"}, r"encoder\.stem: got 'cifar' .* set encoder\.stem=imagenet"),
        ({"encoder": "vit_tiny_patch16_224", "image_size": 30}, r"dataset\.image_size: got 30"),
        (
            {"encoder": "vit_tiny_patch16_224", "stem": "imagenet", "width_multiplier": 0.5},
            r"encoder\.width_multiplier: got 0\.5",
        ),
    ],
)
def test_impossible_encoders_are_refused(options: dict[str, object], message: str) -> None:
    """One line that names the key, the value and the fix."""
    with pytest.raises(ValueError, match=message):
        build_network(**options)


def test_a_vision_transformer_takes_the_image_size() -> None:
    """timm's transformers are built for one size; the settings' image_size must reach them."""
    for stem, patches in (("imagenet", 4), ("cifar", 64)):  # of 16 and of 4 pixels a side
        network = build_network(encoder="vit_tiny_patch16_224", stem=stem, image_size=32).eval()
        assert tuple(network(torch.rand(1, 2, 3, 32, 32))["embedding"].shape) == (1, 2, 192)
        assert network.encoder.patch_embed.num_patches == patches


def test_a_small_vit_loads_into_timms() -> None:
    """The documentation says how a snapshot is used elsewhere; timm's own arguments must be enough."""
    said = (Path(__file__).parents[2] / "docs/how-to/read_snapshots.md").read_text(encoding="utf-8")
    assert "`patch_size=4`" in said
    assert "`img_size`" in said
    for stem, given in (("cifar", {"patch_size": 4}), ("imagenet", {})):
        network = build_network(encoder="vit_tiny_patch16_224", stem=stem, image_size=32)
        plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **given)
        plain.load_state_dict(network.encoder.state_dict())
