"""Further arguments of timm's models: `encoder.timm_options`."""

import json
import re
from typing import Any

import pytest
import timm
import torch
from support import tiny

from coupled.config.schema import from_resolved
from coupled.models.network import build_network
from coupled.stream.seeds import torch_rng

VIT: dict[str, Any] = {"encoder": "vit_small_patch16_224", "image_size": 8, "projector_output_dim": 4}


def test_a_vit_has_the_heads_of_its_options() -> None:
    """The papers' ViT has 12 heads, timm's of the same width has 6: same tensors, other functions."""
    network = build_network(**VIT, encoder_options=json.dumps({"num_heads": 12, "depth": 1}))
    with torch_rng(0, "init"):
        expected = timm.create_model(
            "vit_small_patch16_224", num_classes=0, patch_size=4, img_size=8, num_heads=12, depth=1
        )
    assert network.encoder.blocks[0].attn.num_heads == 12
    tensors = network.encoder.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.state_dict().items())
    views = torch.rand(2, 3, 8, 8)
    assert torch.equal(network.encoder.eval()(views), expected.eval()(views))
    six = build_network(**VIT, encoder_options=json.dumps({"depth": 1})).encoder
    six.load_state_dict(tensors)
    assert not torch.allclose(six.eval()(views), network.encoder(views))


def test_options_are_in_run_json_only_if_there_are_any() -> None:
    """Runs without options keep the digest that they had before the key existed."""
    plain = tiny.tiny_settings(encoder={"name": "resnet18"})
    assert "timm_options" not in plain.resolved()["encoder"]
    encoder = {"name": "resnet18", "timm_options": {}}
    assert tiny.tiny_settings(encoder=encoder).sha256() == tiny.tiny_settings(encoder={"name": "resnet18"}).sha256()
    further = {"layers": [1, 1, 1, 1], "drop_rate": 0.5}
    changed = tiny.tiny_settings(encoder={"name": "resnet18", "width_multiplier": 0.0625, "timm_options": further})
    assert changed.resolved()["encoder"]["timm_options"] == further
    again = from_resolved(changed.resolved())
    assert again.sha256() == changed.sha256()
    assert len(build_network(**again.network_options()).encoder.layer4) == 1


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("resnet18", {"num_head": 3}, "got an unexpected keyword argument 'num_head'"),
        ("resnet18", {"num_classes": 3}, "encoder.timm_options.num_classes: not allowed"),
        ("resnet18", {"checkpoint_path": "x.pth"}, "encoder.timm_options.checkpoint_path: not allowed"),
        ("vit_tiny_patch16_224", {"patch_size": 8}, "encoder.timm_options.patch_size: not allowed"),
        ("resnet18", {"zero_init_last": True}, "encoder.timm_options.zero_init_last: not allowed; other keys"),
        ("resnet18", {"stem_type": "deep"}, "encoder.timm_options.stem_type: not allowed; other keys"),
        ("resnet18", {"stem_width": 128}, "encoder.timm_options.stem_width: not allowed; other keys"),
        ("resnet18", {"replace_stem_pool": True}, "encoder.timm_options.replace_stem_pool: not allowed; other keys"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "encoder.timm_options {'num_heads': 5}: AssertionError"),
        ("vit_tiny_patch16_224", {"pretrained_strict": True}, "'vit_tiny_patch16_224' does not take it"),
    ],
)
def test_options_that_the_model_does_not_take_are_refused(encoder: str, options: dict[str, Any], message: str) -> None:
    """timm ignores some of them, and others would replace what coupled's own keys set."""
    with pytest.raises(ValueError, match=re.escape(message)):
        build_network(encoder=encoder, image_size=8, encoder_options=json.dumps(options))
