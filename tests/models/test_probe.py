"""The probe, a forward pass of zeros before a run: which models work, and how much memory they need."""

from typing import Any

import pytest
import torch

from coupled.models.encoders import build_encoder
from coupled.models.network import build_network
from coupled.models.probe import outline, probe

CPU = torch.device("cpu")


def network(**changed: Any) -> dict[str, Any]:
    """Arguments of `build_network`."""
    small = {"encoder": "resnet18", "width_multiplier": 0.0625, "stem": "cifar", "image_size": 8}
    return {**small, "projector_hidden_dim": None, "projector_output_dim": 16, **changed}


def test_a_probe_changes_neither_generators_nor_the_arms() -> None:
    """Weights and running averages of the arms come from the seed alone, not from a probe before."""
    probe.cache_clear()
    before = torch.get_rng_state()
    probe(CPU, "float32", **network())
    outline("float32", **network())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changed", [{}, {"encoder": "convnext_atto", "stem": "imagenet", "width_multiplier": 1.0, "image_size": 32}]
)
def test_probe_and_outline_report_the_same_memory(changed: dict[str, Any]) -> None:
    """A forecast that counted weights, or a tensor twice, would refuse runs that fit."""
    real, sketched = probe(CPU, "float32", **network(**changed)), outline("float32", **network(**changed))
    assert sketched is not None
    assert (real.saved_an_image, real.weights) == (sketched.saved_an_image, sketched.weights)
    assert real.weights == sum(tensor.nbytes for tensor in build_network(**network(**changed)).state_dict().values())


def test_saved_activations_grow_with_area_and_precision() -> None:
    """In bfloat16 the copies of the weights, which are kept once, must not be counted with every image."""
    seen = probe(CPU, "float32", **network())
    half = probe(CPU, "bfloat16", **network(image_size=16))
    whole, double = (probe(CPU, each, **network(image_size=16)) for each in ("float32", "float64"))
    assert double.saved_an_image == pytest.approx(2 * whole.saved_an_image, rel=0.02)
    assert whole.saved_an_image == pytest.approx(4 * seen.saved_an_image, rel=0.1)
    assert 0.3 < half.saved_an_image / whole.saved_an_image < 0.8


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_deit_is_a_vit(stem: str) -> None:
    """DeiT has its own file in timm, and is built by the same class."""
    encoder = build_encoder("deit_tiny_patch16_224", stem=stem, image_size=32)
    assert encoder.patch_embed.num_patches == {"cifar": 64, "imagenet": 4}[stem]
    probe(CPU, "float32", **network(encoder="deit_tiny_patch16_224", stem=stem, image_size=32, width_multiplier=1.0))


def test_a_resnet_with_group_norm_has_the_cifar_stem() -> None:
    """The channels are those of the convolution that is replaced, whatever norm comes after it."""
    encoder = build_encoder("resnet50_gn")
    assert encoder.conv1.weight.shape == (64, 3, 3, 3)


def test_the_probe_reports_parameters_that_no_output_uses() -> None:
    """DDP would wait for its gradient for ever."""
    options = network(encoder="efficientvim_m1", stem="imagenet", width_multiplier=1.0, image_size=32)
    assert probe(CPU, "float32", **options).unused == {"encoder.weights"}
    assert probe(CPU, "float32", **network()).unused == frozenset()
