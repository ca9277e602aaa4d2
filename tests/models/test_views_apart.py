"""`encoder.views_in_one_pass: false`: each view passes through the network by itself, with batch norm per view."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ranks, tiny
from torch import Tensor, nn
from torch.nn import functional

from coupled.models.network import Network, build_network, copy_with_heads
from coupled.objectives import Head, Needs

APART = {"name": "test_resnet", "stem": "imagenet", "views_in_one_pass": False}
NEEDS = Needs(
    ("projection", "prediction", "target_projection", "local_projection"),
    heads={"predictor": Head("mlp_predictor", "projection", "prediction", hidden_dim=8)},
    target_decay=0.9,
)
RUN: dict[str, Any] = {
    "dataset": {"name": "digits", "image_size": 8, "classes": [0, 1]},  # 289 images
    "batch": {"size": 144},  # 2 steps
    "epochs": 1,
    "precision": "float64",
    "arms": {"byol": {"objective": "byol", "hidden_dim": 32, "ema_decay": 0.9}},
}


def network(views_in_one_pass: bool) -> Network:
    shared = build_network(
        encoder="resnet18",
        width_multiplier=0.0625,
        image_size=8,
        projector_output_dim=16,
        views_in_one_pass=views_in_one_pass,
    )
    return copy_with_heads(shared, NEEDS, classes=10, seed=0).double()


def plain_pass(copied: Network, view_B3SS: Tensor) -> dict[str, Tensor]:
    """One view through plain modules."""
    embedding = copied.encoder(view_B3SS)
    projection = functional.normalize(copied.projector(embedding), dim=-1)
    return {"projection": projection, "prediction": copied.get_submodule("predictor")(projection)}


def test_outputs_gradients_and_running_averages_equal_a_loop_over_views() -> None:
    """With target network, predictor and local views; the running averages have counted every view."""
    ours = network(views_in_one_pass=False).train()
    plain = copy.deepcopy(ours)
    views, local = torch.rand(3, 6, 3, 8, 8).double(), torch.rand(2, 6, 3, 8, 8).double()
    outputs = ours(views, local)
    expected = [plain_pass(plain, view) for view in views]
    target = nn.Sequential(plain.target.get_submodule("encoder"), plain.target.get_submodule("projector"))
    with torch.no_grad():
        slow = [{"target_projection": functional.normalize(target(view), dim=-1)} for view in views]
    near = [{"local_projection": plain_pass(plain, view)["projection"]} for view in local]
    wanted = {
        name: torch.stack([each[name] for each in found]) for found in (expected, slow, near) for name in found[0]
    }
    assert wanted.keys() == outputs.keys()
    for name, output in outputs.items():
        torch.testing.assert_close(output, wanted[name], rtol=1e-12, atol=1e-12, msg=name)
    for found in (outputs, wanted):
        sum((each**3).sum() for each in found.values()).backward()
    for (name, parameter), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)
    for name, buffer in ours.named_buffers():
        if "predictor" not in name:  # in the loop, local views pass through the predictor, too
            torch.testing.assert_close(buffer, plain.get_buffer(name), rtol=1e-12, atol=1e-12, msg=name)
    counts = {name: int(buffer) for name, buffer in ours.named_buffers() if name.endswith("tracked")}
    assert {count for name, count in counts.items() if name.startswith("target.")} == {3}
    assert {count for name, count in counts.items() if not name.startswith("target.")} == {5}


def test_batch_norm_per_view_differs_in_training_only() -> None:
    """Views of different brightness have different statistics; the running averages do not depend on the view."""
    apart, together = network(views_in_one_pass=False), network(views_in_one_pass=True)
    views = torch.rand(2, 6, 3, 8, 8).double() * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1, 1)
    local = torch.rand(2, 6, 3, 8, 8).double()
    assert all(torch.equal(a, b) for a, b in zip(apart.parameters(), together.parameters(), strict=True))
    found = [each.train()(views, local)["projection"] for each in (apart, together)]
    assert float((found[0] - found[1]).abs().max().detach()) > 1e-2
    together.load_state_dict(apart.state_dict())
    found = [each.eval()(views, local)["projection"] for each in (apart, together)]
    assert torch.equal(*found)


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> None:
    tiny.train(run, **{**RUN, "encoder": APART, **changed})


@pytest.mark.distributed
def test_two_ranks_and_activation_checkpointing_give_the_same_run(tmp_path: Path) -> None:
    """The statistics of a view are those of the global batch; a block that is computed again counts no view twice."""
    train_on_a_rank(tmp_path / "one", {})
    train_on_a_rank(tmp_path / "again", {"activation_checkpointing": True})
    ranks.run(2, train_on_a_rank, tmp_path / "two", {"activation_checkpointing": True})
    assert tiny.snapshot_bytes(tmp_path / "again") == tiny.snapshot_bytes(tmp_path / "one")
    one, two = (tiny.tensors(tmp_path / run, "byol", epoch) for run, epoch in (("one", 1), ("two", 1)))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    steps, passes = 2, 2
    assert int(one["encoder.bn1.num_batches_tracked"]) == steps * passes


def test_the_default_is_in_no_digest() -> None:
    """True is the setting of all earlier runs."""
    plain = tiny.TINY["encoder"]
    runs = [tiny.tiny_settings(encoder=each) for each in (plain, {**plain, "views_in_one_pass": True})]
    assert len({each.sha256() for each in runs}) == 1
    assert "views_in_one_pass" not in runs[1].resolved()["encoder"]
    apart = tiny.tiny_settings(encoder={**plain, "views_in_one_pass": False})
    assert apart.sha256() != runs[0].sha256()
    assert apart.resolved()["encoder"]["views_in_one_pass"] is False
