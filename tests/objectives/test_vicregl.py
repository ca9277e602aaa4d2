"""`vicregl` against a slow version in NumPy written from the paper, the places of its cells, and refusals."""

import itertools
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from support import tiny

from coupled.config.registry import find_objective, load_dataset
from coupled.models.feature_maps import cell_locations, embedding_and_map, feature_map_side
from coupled.models.network import build_network, copy_with_heads
from coupled.objectives import Inputs, Needs, vicregl
from coupled.stream import batches, crops
from coupled.stream.augment import augment
from coupled.stream.recipe import Augmentation
from coupled.stream.view_plan import view_plan

LABELS = [0, 1, 0, 2, 1, 0]
SMALL = {"num_matches": 4, "num_feature_matches": None, "hidden_dim": 16, "map_dim": 5}


def vicreg_terms(x: np.ndarray, y: np.ndarray, weights: tuple[float, float, float]) -> float:
    """l of two matrices of the batch [G, P], with half of both c."""
    low = [fmean(max(0.0, 1 - np.sqrt(np.var(column, ddof=1) + 1e-4)) for column in each.T) for each in (x, y)]
    covariances = [np.cov(each, rowvar=False) for each in (x, y)]
    squares = [(c**2).sum() - (np.diag(c) ** 2).sum() for c in covariances]
    parts = ((x - y) ** 2).mean(), fmean(low), fmean(squares) / x.shape[1]
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def matches(source: np.ndarray, target: np.ndarray, count: int) -> list[tuple[int, int]]:
    """For one image: the closest pairs (cell, its nearest cell), found by sorting all pairs, in the order of cells."""
    distance = [[float(((a - b) ** 2).sum()) ** 0.5 for b in target] for a in source]
    nearest = [min(range(len(row)), key=row.__getitem__) for row in distance]
    closest = sorted(range(len(source)), key=lambda cell: (distance[cell][nearest[cell]], cell))[:count]
    return [(cell, nearest[cell]) for cell in sorted(closest)]


def local_terms(x: np.ndarray, y: np.ndarray, found: list[list[tuple[int, int]]], weights) -> float:
    """The mean over k of l of the k-th pair of every image."""
    return fmean(
        vicreg_terms(
            np.stack([x[image, pairs[k][0]] for image, pairs in enumerate(found)]),
            np.stack([y[image, pairs[k][1]] for image, pairs in enumerate(found)]),
            weights,
        )
        for k in range(len(found[0]))
    )


def slow(outputs, alpha=0.75, num_matches=3, num_feature_matches=None, weights=(25.0, 25.0, 1.0)) -> float:
    z, maps, places = (outputs[name].numpy() for name in ("unnormalised", "map_projection", "locations"))
    whole = fmean(vicreg_terms(z[a], z[b], weights) for a, b in itertools.combinations(range(len(z)), 2))
    cells = []
    for a, b in itertools.permutations(range(len(z)), 2):
        for rows, count in ((places, num_matches), (maps, num_feature_matches or maps.shape[2])):
            found = [matches(rows[a, image], rows[b, image], count) for image in range(z.shape[1])]
            cells.append(local_terms(maps[a], maps[b], found, weights))
    return alpha * whole + (1 - alpha) * 2 * fmean(cells)  # the sum of both matchings


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_matches": 4, "num_feature_matches": 2}, {"alpha": 0.0, "num_matches": 1}, {"alpha": 1.0}],
    ids=str,
)
def test_vicregl_equals_the_slow_version(random_outputs, whole_batch, views, options):
    """Other cells, one direction only, statistics over cells instead of images, or the whole c are other losses."""
    outputs = random_outputs(views=views)
    loss = vicregl.vicregl(whole_batch(outputs, LABELS), **{"num_matches": 3, **options})
    assert loss.mean.item() == pytest.approx(slow(outputs, **options), rel=1e-11)
    assert (loss.counted, loss.skipped) == (6 * views, 0)


def test_every_weight_has_its_own_term(random_outputs, whole_batch):
    """Exchanged weights of invariance, variance and covariance."""
    outputs = random_outputs()
    given = {"invariance": 3.0, "variance": 0.5, "covariance": 7.0}
    loss = vicregl.vicregl(whole_batch(outputs, LABELS), num_matches=3, **given)
    assert loss.mean.item() == pytest.approx(slow(outputs, weights=tuple(given.values())), rel=1e-11)


def test_the_choice_of_the_pairs_has_no_gradient(random_outputs, whole_batch):
    """Places and matches are constants; the projections and the cells of both views are trained."""
    outputs = {name: each.requires_grad_() for name, each in random_outputs().items()}
    loss = vicregl.vicregl(whole_batch(outputs, LABELS), num_matches=3).mean
    names = ("unnormalised", "map_projection", "locations")
    *trained, of_places = torch.autograd.grad(loss, [outputs[name] for name in names], allow_unused=True)
    assert of_places is None
    assert all(bool(gradient[view].any()) for gradient in trained for view in (0, 1))


def test_collapsed_cells_have_the_largest_penalty_of_variance(whole_batch):
    """A constant feature map: l_location + l_feature = 2 * 25 * 0.99, the hinge at its top."""
    same = torch.ones(2, 6, 9, 5, dtype=torch.float64)
    outputs = {"unnormalised": same[:, :, 0], "map_projection": same, "locations": same[..., :2]}
    loss = vicregl.vicregl(whole_batch(outputs, LABELS), alpha=0.0, num_matches=4)
    assert loss.mean.item() == pytest.approx(2 * 25 * 0.99, abs=1e-12)


def test_the_places_are_those_of_the_pixels_that_a_cell_shows():
    """An image whose values are its rows or columns, cropped and mirrored by the augmentation: the mean of a cell is
    its place. A box of the wrong view, exchanged axes or a forgotten flip would be pixels away.
    """
    side, size, images = 64, 16, 12
    recipe = Augmentation((0.2, 0.9), (3 / 4, 4 / 3), 0.5, 0, 0, 0, 0, 0, 0, 0, (0.1, 2.0))
    plan = view_plan(5, 1, images, recipe)[np.arange(images)]
    row_HW = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    pixels = torch.stack([row_HW, row_HW.T, row_HW])[None].expand(images, -1, -1, -1).contiguous()
    views = augment(pixels, plan, size)[:, :, :2] * 255 + 0.5  # a pixel's centre is half a pixel from its edge
    cells = torch.nn.functional.avg_pool2d(views.flatten(0, 1), size // 4).flatten(2).unflatten(0, (2, images))
    boxes = crops.boxes_and_flips(plan, side, side)
    places = cell_locations(boxes, 16)
    assert 0 < int(boxes[..., 4].sum()) < 2 * images
    assert not torch.equal(boxes[0], boxes[1])
    torch.testing.assert_close(places, cells.transpose(2, 3), rtol=0, atol=0.7)


def network(**options):
    return build_network(encoder="resnet18", width_multiplier=0.0625, image_size=16, projector_output_dim=8, **options)


def test_the_embedding_has_the_same_bits_with_and_without_the_map():
    """Reading the map must not change the arm; its mean over cells is the embedding."""
    encoder = network().encoder.eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding, cells = embedding_and_map(encoder, images)
        assert torch.equal(embedding, encoder(images))
    assert cells.shape == (3, 4, embedding.shape[1])
    torch.testing.assert_close(cells.mean(1), embedding)


def test_the_cells_of_a_vision_transformer_are_its_patches():
    """The class token has no place in the image; patches in another order would have wrong places."""
    encoder = build_network(encoder="test_vit", stem="cifar", image_size=16).encoder.eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding, cells = embedding_and_map(encoder, images)
        assert torch.equal(embedding, encoder(images))
        assert torch.equal(cells, encoder.forward_features(images)[:, 1:])
    assert cells.shape[1] == 16
    assert feature_map_side(encoder, 16) == 4


@pytest.mark.parametrize("views_in_one_pass", [True, False])
def test_the_network_projects_the_cells_of_each_view(views_in_one_pass):
    """Cells of different views or images exchanged."""
    needs = vicregl.needs(**SMALL | {"num_matches": 1})
    arm = copy_with_heads(network(views_in_one_pass=views_in_one_pass), needs, 0, 0).eval()
    views = torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = arm(views)
        assert outputs["map_projection"].shape == (2, 3, 4, 5)
        alone = arm(views[1:, 2:])["map_projection"]
        by_hand = arm.map_projector(embedding_and_map(arm.encoder, views[1, 2:])[1])
    torch.testing.assert_close(outputs["map_projection"][1, 2], alone[0, 0])
    torch.testing.assert_close(alone[0], by_hand)
    assert "locations" not in outputs


def test_no_arm_without_need_computes_maps_or_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other runs pay nothing: neither boxes nor feature maps are computed."""

    def refuse(*_: object) -> None:
        pytest.fail("computed without need")

    monkeypatch.setattr(batches, "boxes_and_flips", refuse)
    monkeypatch.setattr("coupled.models.network.embedding_and_map", refuse)
    tiny.train(tmp_path / "run", arms={"cl": "dcl", "v": "vicreg"}, batch={"size": 32}, epochs=1, max_steps=1)


def test_the_other_arms_of_a_run_keep_their_bits(tmp_path: Path) -> None:
    """The head is drawn from its own stream; the run of the other arms is the same, and vicregl learns."""
    dataset, small = {"name": "digits", "image_size": 16}, {"objective": "vicregl", **SMALL}
    options = {"dataset": dataset, "epochs": 1, "batch": {"size": 64}, "max_steps": 3}
    tiny.train(tmp_path / "alone", arms={"cl": "dcl"}, **options)
    arms = tiny.train(tmp_path / "both", arms={"cl": "dcl", "v": small}, **options).arms
    starts = [tiny.tensors(tmp_path / name, "cl", 0) for name in ("alone", "both")]
    assert all(torch.equal(starts[0][name], each) for name, each in starts[1].items())
    steps = [(tmp_path / name / "steps.csv").read_text().splitlines() for name in ("alone", "both")]
    names = steps[1][0].split(",")
    kept = [place for place, name in enumerate(names) if not name.startswith("v_")]
    assert steps[0] == [",".join(np.array(line.split(","))[kept]) for line in steps[1]]
    arm = next(each for each in arms if each.name == "v")
    moved = {name: each for name, each in arm.network.named_parameters() if name.startswith("map_projector")}
    assert moved
    assert all(each.grad is not None and bool(each.grad.any()) for each in moved.values())


def test_an_arm_computes_the_loss_of_its_views_and_their_places(tmp_path: Path) -> None:
    """The first loss of a run, computed from the snapshot of the start and from the plan of the views."""
    import coupled

    dataset, small = {"name": "digits", "image_size": 16}, {"objective": "vicregl", **SMALL}
    tiny.train(tmp_path / "run", arms={"v": small}, dataset=dataset, epochs=1, batch={"size": 32}, max_steps=1)
    run = coupled.open_run(tmp_path / "run")
    settings, images = run.settings, run.images("train")
    recipes = {"": settings.augmentation.plain()}
    options = {"batch_size": 32, "sampler": "uniform", "size": 16, "augmentations": recipes}
    batch = next(batches.step_batches(1, dataset=images, seeds={"": (settings.seed,) * 2}, **options))[""]
    with torch.no_grad():
        arm = copy_with_heads(run.network("v", epoch=0), vicregl.needs(**SMALL), 0, settings.seed)
        outputs = arm.train()(batch.views_VB3SS)
    plan = view_plan(settings.seed, 1, len(images), settings.augmentation.plain())[batch.indices_B.numpy()]
    boxes = crops.boxes_and_flips(plan, *images.images_N3HW.shape[2:])
    outputs["locations"] = cell_locations(boxes, 4)
    loss = vicregl.vicregl(Inputs(outputs, outputs, batch.labels_B, batch.labels_B), num_matches=4).mean
    first = (tmp_path / "run/steps.csv").read_text().splitlines()
    recorded = dict(zip(first[0].split(","), first[1].split(","), strict=True))["v_loss"]
    assert loss.item() == pytest.approx(float(recorded), rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"dataset": {"name": "digits", "image_size": 8}},
            r"arms\.v\.num_matches: got 4, but the feature map has 1 x 1 cells at 8 px; allowed is 1 to 1, or use",
        ),
        (
            {"arms": {"v": {"objective": "vicregl", **SMALL, "num_feature_matches": 5}}},
            r"arms\.v\.num_feature_matches: got 5, but the feature map has 2 x 2 cells",
        ),
        (
            {"augmentation": {"rotation_prob": 0.5}},
            r"augmentation\.rotation_prob: got 0\.5, but 'vicregl' of arm v match",
        ),
        (
            {"augmentation": {"policy": "rand_augment"}},
            r"augmentation\.policy: got rand_augment, but .* allowed is none$",
        ),
        ({"augmentation": {"preset": "sim_augment"}}, r"augmentation\.warp_prob: got 0\.5, but 'vicregl' of arm v"),
        ({"encoder": {"name": "linear", "embedding_dim": 8}}, r"arms\.v\.objective: .* has no square feature map"),
        (
            {"encoder": {"name": "test_vit", "stem": "cifar"}, "batch": {"size": 64, "micro_batch": 8}},
            r"batch\.micro_batch: got 8, but 'vicregl' of arm v reads feature maps; set it to null$",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line_before_the_first_step(tmp_path, changed, message):
    """Without a place in the image the pairs would be wrong; with fewer cells than matches the option has no effect."""
    given = {"dataset": {"name": "digits", "image_size": 16}, "arms": {"v": {"objective": "vicregl", **SMALL}}}
    with pytest.raises(ValueError, match=f"^{message}"):
        tiny.train(tmp_path / "run", max_steps=1, **{**given, **changed})


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 1.5), ("num_matches", 0), ("num_feature_matches", 0), ("map_dim", 0)]
)
def test_an_option_out_of_range_is_refused(option, value):
    """No pair, no width."""
    with pytest.raises(ValueError, match=rf"^arms\.x\.{option}: {value} is not allowed; give "):
        find_objective("x", "vicregl", {option: value}, 0.5)


def test_places_without_a_map_are_refused():
    """They would be places of nothing."""
    with pytest.raises(ValueError, match=r"^outputs: got locations alone; "):
        Needs(("projection", "locations"))


def test_the_check_of_the_encoder_keeps_its_mode_and_buffers():
    """A check that updates the running averages would change every run."""
    encoder = network().encoder.train()
    before = {name: each.clone() for name, each in encoder.state_dict().items()}
    assert feature_map_side(encoder, 16) == 2
    assert encoder.training
    assert all(torch.equal(before[name], each) for name, each in encoder.state_dict().items())


def test_each_process_has_the_boxes_of_its_own_images():
    """Boxes of the images of another process would match cells of other places."""
    images, options = load_dataset(tiny.TINY["dataset"], "train", 0), {"size": 8, "batch_size": 24}
    recipe = tiny.tiny_settings().augmentation.plain()
    shared = {"dataset": images, "seeds": {"": (3, 3)}, "augmentations": {"": recipe}, "sampler": "uniform", **options}
    whole, *parts = (
        next(batches.step_batches(1, **shared, rank=rank, world_size=size))[""]
        for rank, size in ((0, 1), (0, 3), (1, 3), (2, 3))
    )
    assert torch.equal(whole.boxes(), torch.cat([part.boxes() for part in parts], dim=1))
    assert len(whole.boxes().flatten(0, 1).unique(dim=0)) > 24
