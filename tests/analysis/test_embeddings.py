"""Embeddings: the choice of images, the loaded weights, and outputs in evaluation mode."""

from pathlib import Path

import pytest
import torch

from coupled.analysis.representations.embeddings import Embedder, choose_images, load_images, load_weights
from coupled.analysis.run import open_run, read_description
from coupled.storage.snapshots import SnapshotStore


def embedder(run: Path) -> Embedder:
    return Embedder(open_run(run), torch.device("cpu"))


def all_outputs(
    run: Path, arms: list[str], chosen_N: torch.Tensor, epoch: int = 1
) -> dict[tuple[str, str], torch.Tensor]:
    """The outputs of the chosen test images by (arm, layer), batches put together."""
    images = open_run(run).images("test")
    batches = list(embedder(run).outputs(images, chosen_N, arms, epoch))
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_subsets_of_images_are_fixed_and_nested() -> None:
    """A fresh subset for every call would move the curves by sampling noise."""
    some = choose_images(1000, 100, seed=3, split="train")
    assert torch.equal(some, choose_images(1000, 100, seed=3, split="train"))
    assert some.tolist() == sorted(set(some.tolist()))
    assert set(some.tolist()) < set(choose_images(1000, 300, seed=3, split="train").tolist())
    assert not torch.equal(some, choose_images(1000, 100, seed=4, split="train"))
    assert choose_images(50, 100, seed=3, split="test").tolist() == list(range(50))
    assert choose_images(50, None, seed=3, split="test").tolist() == list(range(50))


def test_an_image_has_the_same_outputs_in_any_batch(drifting_run: Path) -> None:
    """In training mode batch norm would mix the images of a batch."""
    whole = all_outputs(drifting_run, ["cl"], torch.arange(300))
    alone = all_outputs(drifting_run, ["cl"], torch.tensor([7, 280]))
    for key, outputs in alone.items():
        torch.testing.assert_close(outputs, whole[key][[7, 280]], rtol=1e-5, atol=1e-6)


def test_arms_with_equal_weights_have_equal_outputs_bit_for_bit(drifting_run: Path) -> None:
    """Epoch 0 must score exactly 1."""
    start = all_outputs(drifting_run, ["cl", "ce"], torch.arange(257), epoch=0)
    later = all_outputs(drifting_run, ["cl", "ce"], torch.arange(257), epoch=2)
    for layer in ("h", "z"):
        assert torch.equal(start["cl", layer], start["ce", layer])
        assert not torch.equal(later["cl", layer], later["ce", layer])
        assert not torch.equal(start["cl", layer], later["cl", layer])


def test_projections_have_unit_norm(drifting_run: Path) -> None:
    """z is what the contrastive objectives see."""
    z_NP = all_outputs(drifting_run, ["cl"], torch.arange(20))["cl", "z"]
    torch.testing.assert_close(z_NP.norm(dim=1), torch.ones(20))


def test_weights_that_do_not_fit_are_named(drifting_run: Path) -> None:
    """A tensor that keeps its initial values would be an unnoticed error."""
    network = embedder(drifting_run).network("cl", 0)
    tensors = SnapshotStore(drifting_run / "snapshots").read("ce", 0)
    load_weights(network, tensors, "file")  # the classifier is not asked for
    name = "encoder.conv1.weight"
    with pytest.raises(ValueError, match=rf"file: tensor '{name}' is missing"):
        load_weights(network, {n: t for n, t in tensors.items() if n != name}, "file")
    with pytest.raises(ValueError, match=r"file: tensor 'encoder\.more' is not in the network"):
        load_weights(network, {**tensors, "encoder.more": torch.ones(1)}, "file")
    with pytest.raises(ValueError, match=rf"file: tensor '{name}': expected \(.*\) float32, found \(2,\) float32"):
        load_weights(network, {**tensors, name: torch.ones(2)}, "file")


def test_images_that_differ_from_those_of_the_run_are_refused(drifting_run: Path) -> None:
    """If the image folder has changed, the numbers would describe another experiment."""
    digests = {**read_description(drifting_run)["dataset"], "test_digest": "0"}
    with pytest.raises(ValueError, match=r"dataset: the test split of 'digits' is not the one of the run"):
        load_images(embedder(drifting_run).settings, "test", digests)
