"""Layers by name: rows of any module, pooled as documented; errors list the existing layers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from coupled.analysis.alignment import main
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.representations.layers import find_layers, layer_outputs
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.run import open_run
from coupled.config.metric_registry import find_pair_metrics
from coupled.models.network import Network, build_network

Read = Callable[[Path], list[dict[str, str]]]
LAYERS = ["stem", "layer1", "layer2", "layer3", "layer4", "h", "z"]


def resnet(stem: str = "small") -> Network:
    return build_network(
        encoder="resnet18", width_multiplier=0.0625, stem=stem, image_size=16, projector_output_dim=4, seed=1
    ).eval()


def views(size: int = 16, images: int = 3) -> Tensor:
    return torch.randn(1, images, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_resnet_layers_are_outputs_averaged_over_space() -> None:
    """Against an explicit forward pass; the activation after bn1 works in place and must not change bn1's rows."""
    network = resnet("standard")
    encoder, views_1B3SS = network.encoder, views()
    bn1 = encoder.bn1(encoder.conv1(views_1B3SS[0])).clone()
    stem = encoder.maxpool(encoder.act1(bn1.clone()))
    layer1 = encoder.layer1(stem)
    expected = {"bn1": bn1, "stem": stem, "layer1": layer1, "layer2.0": encoder.layer2[0](layer1)}
    found = layer_outputs(network, views_1B3SS, [*expected, "layer4", "h", "z"])
    for layer, map_BCHW in expected.items():
        torch.testing.assert_close(found[layer], map_BCHW.mean(dim=(2, 3)))
    assert (found["bn1"] < 0).any()
    torch.testing.assert_close(found["layer4"], found["h"])  # a ResNet's embedding is just that
    assert torch.equal(found["z"], network(views_1B3SS)["projection"][0])


@torch.no_grad()
def test_vit_layers_are_averaged_over_all_tokens() -> None:
    """The class token is included; `stem` is the patch embedding."""
    network = build_network(
        encoder="vit_tiny_patch16_224", stem="imagenet", image_size=32, projector_output_dim=4
    ).eval()
    encoder, views_1B3SS = network.encoder, views(32)
    found = layer_outputs(network, views_1B3SS, ["stem", "blocks.1", "norm"])
    torch.testing.assert_close(found["norm"], encoder.forward_features(views_1B3SS[0]).mean(dim=1))
    torch.testing.assert_close(found["stem"], encoder.patch_embed(views_1B3SS[0]).mean(dim=1))
    assert found["blocks.1"].shape == (3, 192)


def test_stages_are_the_feature_stages_of_timm() -> None:
    """Between the stem and h; a layer that is also named explicitly appears once."""
    assert list(find_layers(resnet(), ["stages", "layer2"], 16)) == LAYERS
    vit = build_network(encoder="vit_tiny_patch16_224", stem="imagenet", image_size=32, projector_output_dim=4).eval()
    assert list(find_layers(vit, ["h", "stages"], 32)) == ["h", "stem", *(f"blocks.{i}" for i in range(12)), "z"]
    with pytest.raises(ValueError, match="timm names no stages of this encoder; allowed are"):
        find_layers(odd(), ["stages"], 5)


class Odd(nn.Module):
    """An encoder with a channels-last layer, a module used twice, one that returns a pair, one never used."""

    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.last, self.twice, self.never, self.flat = nn.Identity(), nn.ReLU(), nn.Identity(), nn.Identity()
        self.pair = nn.LSTM(3, 3)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        rows_B3 = self.last(images_B3HW.permute(0, 2, 3, 1)).mean(dim=(1, 2))
        self.flat(rows_B3.repeat(2, 1))
        return self.pair(self.twice(self.twice(rows_B3)))[0]


def odd() -> Network:
    return Network(Odd(), nn.Sequential(nn.Linear(3, 2)), {}, {}, needs=("embedding", "projection"))


def test_maps_with_channels_last_are_averaged_over_space() -> None:
    """As in Swin; the mean over the other two axes would give wrong widths without an error."""
    views_1B3SS = views(5, images=2)
    torch.testing.assert_close(layer_outputs(odd(), views_1B3SS, ["last"])["last"], views_1B3SS[0].mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        ("twice", "'twice' is used several times in one forward"),
        ("never", "'never' has no output with one row per image; allowed are stages, h, z, stem, pair"),
        ("flat", "'flat' has no output with one row per image"),
        ("pair", "the output of 'pair' is tuple; allowed are"),
        ("stem", "the encoder has no module 'stem'"),
        ("lasst", "the encoder has no module 'lasst'"),
    ],
)
def test_an_unknown_layer_is_an_error(layer: str, part: str) -> None:
    """Detected before any snapshot is read."""
    with pytest.raises(ValueError, match=rf"^layers: .*{part}"):
        find_layers(odd(), ["h", layer], 5)


def test_hooks_are_removed_after_use() -> None:
    """Also after an error; otherwise each epoch would be slower than the one before."""
    network = odd()
    with pytest.raises(ValueError, match="twice"):
        find_layers(network, ["twice", "last"], 5)
    layer_outputs(network, views(5), ["last"])
    assert not any(module._forward_hooks for module in network.modules())


def test_the_program_scores_every_layer_and_every_pair_of_layers(
    drifting_run: Path, tmp_path: Path, table: Read
) -> None:
    """One table has layer by epoch, the other layer by layer; values equal those computed from the rows."""
    options = ["--split", "test", "--num-images", "80", "--epochs", "0,2", "--compare", "scl", "ce", "--metrics", "rsa"]
    command = ["--run-dir", str(drifting_run), "--output", str(tmp_path), *options, "--layers", *LAYERS]
    command += ["--cross-layer"]
    assert main(command) == 0
    plain, cross = (table(tmp_path / f"test_{name}.csv") for name in ("alignment", "cross_layer"))
    assert {(r["epoch"], r["arm"], r["module"]) for r in plain} == {
        (e, a, x) for e in "02" for a in ("scl", "ce") for x in LAYERS
    }
    keys = [(r["epoch"], r["arm"], r["reference_module"], r["module"]) for r in cross]
    assert len(keys) == len(set(keys)) == 2 * 2 * len(LAYERS) ** 2
    assert {r["metric"] for r in plain} == {"rsa"}
    assert {r["metric"] for r in cross} == {"cka"}

    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("test")
    from coupled.analysis.representations.embeddings import choose_images

    chosen_N = choose_images(len(images), 80, embedder.settings.seed, "test")
    (batch,) = embedder.outputs(images, chosen_N, ["cl", "ce"], 2, LAYERS)
    metrics = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])}
    for row in [*plain, *cross]:
        if (row["epoch"], row["arm"]) == ("2", "ce"):
            score = Score("cl", "ce", row["module"], row["metric"])
            renamed = {("cl", score.layer): batch["cl", row.get("reference_module", score.layer)]}
            renamed["ce", score.layer] = batch["ce", score.layer]
            assert float(row["value"]) == pytest.approx(scores([renamed], [score], metrics)[score], abs=1e-9)
    start = {(r["reference_module"], r["module"]): float(r["value"]) for r in cross if r["epoch"] == "0"}
    for one in LAYERS:
        assert start[one, one] == 1
        assert all(start[one, other] == pytest.approx(start[other, one], abs=1e-12) for other in LAYERS)
    before = (tmp_path / "test_cross_layer.csv").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "test_cross_layer.csv").read_bytes() == before
