"""State dicts of other programs are matched by names and shapes, under any key of a file."""

import pytest
import torch
import torchvision
from torch import Tensor

from coupled.models.foreign import match_encoder, match_projector, named_tensors
from coupled.models.network import build_network
from coupled.models.projector import build_projector

PREFIXES = ("", "module.", "encoder.net.", "encoder.", "backbone.", "encoder_q.", "student.", "module.encoder_q.")


@pytest.fixture(scope="module")
def encoder() -> dict[str, Tensor]:
    return build_network(encoder="resnet18", width_multiplier=0.0625, image_size=8).encoder.state_dict()


@pytest.mark.parametrize("wrapper", [None, "MODEL_STATE", "state_dict", "model"])
def test_an_encoder_is_found_under_every_usual_key_and_prefix(wrapper: str | None, encoder: dict[str, Tensor]) -> None:
    """A momentum encoder in the same file is ignored, and heads are listed as unused."""
    for prefix in PREFIXES:
        tensors = {prefix + name: tensor for name, tensor in encoder.items()}
        tensors |= {f"momentum.{name}": tensor + 1 for name, tensor in encoder.items()}
        tensors |= {f"{prefix}fc.weight": torch.ones(10, 32)}
        found = match_encoder(named_tensors({wrapper: tensors, "epoch": 3} if wrapper else tensors), encoder)
        assert found.prefix == (f"{wrapper}." if wrapper else "") + prefix
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in encoder.items())
        assert f"{found.prefix}fc.weight" in found.unused


def test_torchvisions_resnet_has_timms_names() -> None:
    """Of width 1, with torchvision's classifier left over."""
    with torch.device("meta"):
        ours = build_network(encoder="resnet50", stem="imagenet").encoder.state_dict()
        theirs = torchvision.models.resnet50(weights=None).state_dict()
    found = match_encoder(named_tensors(theirs), ours)
    assert found.unused == ["fc.weight", "fc.bias"]
    assert found.tensors.keys() == ours.keys()


def test_shortcut_keys_are_renamed_and_missing_batch_counts_are_accepted(encoder: dict[str, Tensor]) -> None:
    """As in SupContrast's ResNet, and in files of torch before 0.4.1."""
    counted = {name: each for name, each in encoder.items() if "num_batches" not in name}
    renamed = {name.replace("downsample", "shortcut"): each for name, each in counted.items()}
    found = match_encoder(named_tensors(renamed), encoder)
    assert found.tensors.keys() == encoder.keys()
    assert found.unused == []


def test_a_projector_is_loaded_only_if_it_is_the_same_function() -> None:
    """The papers' has a bias of zeros in its last batch norm; one with other values is another function."""
    ours = build_projector(32, 16, 8).state_dict()
    file = {f"MODEL_STATE.projector.projector.{name}": tensor for name, tensor in ours.items()}
    bias = "MODEL_STATE.projector.projector.4.bias"
    found = match_projector({**file, bias: torch.zeros(8)}, 32)
    assert found is not None
    assert found.tensors.keys() == ours.keys()
    assert found.unused == [bias]
    assert match_projector({**file, bias: torch.ones(8)}, 32) is None
    assert match_projector({**file, "MODEL_STATE.projector.projector.6.weight": torch.ones(8, 8)}, 32) is None
    assert match_projector(file, 64) is None
    twice = {name.replace("projector.projector", place): each for name, each in file.items() for place in ("a", "b")}
    assert match_projector(twice, 32) is None
