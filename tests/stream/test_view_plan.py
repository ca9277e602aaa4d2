import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from coupled.stream.seeds import philox, torch_rng
from coupled.stream.view_plan import JITTERS, ViewPlan, crop_box, inputs_digest, portable_exp, view_plan

EVERYONE = np.arange(3000)


def differing(one: ViewPlan, other: ViewPlan) -> set[str]:
    """The names of what is not bit for bit equal in two plans."""
    names = [field.name for field in fields(ViewPlan) if field.name not in ("crop_ratio", "steps_BVKR")]
    return {name for name in names if not torch.equal(getattr(one, name), getattr(other, name))}


@pytest.fixture(scope="module")
def large(augmentation):
    """The plan of 3000 images, two views each."""
    return view_plan(0, 0, 3000, augmentation)[EVERYONE]


def test_a_plan_has_these_bits_on_every_machine(augmentation):
    """Otherwise equal digests would prove nothing between machines or versions of NumPy, torch and Python."""
    plan = view_plan(0, 0, 3000, augmentation)[EVERYONE]
    assert inputs_digest(EVERYONE, plan) == "978e8e5c1c879eef344988dc8488eb0a"
    assert crop_box(plan, 32, 32).sum(dim=(0, 1)).tolist() == [30827, 31466, 129628, 129903]


@pytest.mark.parametrize(("images", "views"), [(50, 2), (80, 2), (50, 1), (51, 3)])
def test_the_plan_of_an_image_depends_on_neither_the_size_of_the_set_nor_its_company(augmentation, images, views):
    """Otherwise views would change with the batch, the order, the rank or the number of images and views."""
    whole = view_plan(4, 7, 100, augmentation)[np.arange(100)]
    chosen = np.array([49, 3, 3, 17])
    part = view_plan(4, 7, images, augmentation, views)[chosen]
    for field in fields(ViewPlan)[:-2]:  # crop_ratio and the steps, here none, are last
        both = min(views, 2)
        expected = getattr(whole, field.name)[chosen][:, :both]
        assert torch.equal(getattr(part, field.name)[:, :both], expected), field.name


def test_a_row_of_the_table_is_where_its_counter_says(augmentation):
    """Otherwise the plan of one image could not be had without drawing those of all images before it."""
    table_VNR = view_plan(4, 7, 100, augmentation).table_VNR
    for view, image in ((0, 0), (1, 0), (0, 57), (1, 99)):
        key = philox(4, "views", 7, view).state["state"]["key"]
        row = np.random.Philox(key=key, counter=4 * image).random_raw(16).astype("<u8").view("<u4")
        assert table_VNR[view, image].tolist() == row.tolist()


def test_plans_differ_between_seeds_epochs_images_and_views(augmentation):
    """Otherwise images would be shown alike again; `seed + epoch` takes (0, 1) for (1, 0)."""
    names = {field.name for field in fields(ViewPlan)[:-2]}
    plans = [
        view_plan(seed, epoch, 40, augmentation)[EVERYONE[:40]] for seed, epoch in ((0, 1), (1, 0), (0, 0), (1, 1))
    ]
    for number, plan in enumerate(plans):
        for other in plans[:number]:
            assert differing(plan, other) == names
    assert differing(plans[0][:20], plans[0][20:]) == names
    for name in names:
        first, second = getattr(plans[0], name).unbind(1)
        assert not torch.equal(first, second), name


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 20), (20, 48)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_crops_are_distributed_as_torchvisions(augmentation, height, width, scale):
    """Otherwise "RandomResizedCrop" in a paper would be another augmentation than ours."""
    strict = replace(augmentation, crop_scale=scale)
    ours = crop_box(view_plan(0, 0, 1000, strict)[EVERYONE[:1000]], height, width).reshape(-1, 4).numpy()
    picture = torch.empty(3, height, width)
    with torch_rng(0, "test"):
        crops = [RandomResizedCrop.get_params(picture, scale, strict.crop_ratio) for _ in range(2000)]
    theirs = np.array(crops)
    measures = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "bottom": lambda box: height - box[:, 0] - box[:, 2],
        "right": lambda box: width - box[:, 1] - box[:, 3],
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs), method="asymp").pvalue > 1e-3, name


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (11, 97)])
def test_where_no_candidate_fits_the_crop_is_torchvisions_central_one(augmentation, height, width):
    """Otherwise very oblong images would be cropped beyond their border, or not at all."""
    ours = crop_box(view_plan(0, 0, 20, replace(augmentation, crop_scale=(0.9, 1.0)))[EVERYONE[:20]], height, width)
    theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), (0.9, 1.0), augmentation.crop_ratio)
    assert (ours == torch.tensor(theirs)).all()


def test_crops_lie_within_the_image_and_reach_all_its_borders(large):
    """Otherwise pixels outside the image would be read, or its last row never shown."""
    top, left, high, wide = crop_box(large, 17, 29).unbind(-1)
    assert min(top.min(), left.min()) == 0
    assert min(high.min(), wide.min()) >= 1
    assert (top + high).max() == 17
    assert (left + wide).max() == 29


def test_an_image_of_one_pixel_has_a_crop(large):
    """Otherwise the smallest image would give an empty crop."""
    assert (crop_box(large, 1, 1) == torch.tensor([0, 0, 1, 1])).all()


def test_operations_happen_as_often_as_the_recipe_says(augmentation, large):
    """Otherwise a probability in the settings would mean something else."""
    happens = {
        "hflip_prob": large.flip_BV,
        "jitter_prob": large.hue_BV != 0,
        "grayscale_prob": large.grayscale_BV,
        "blur_prob": large.blur_sigma_BV > 0,
    }
    for name, happens_BV in happens.items():
        probability = getattr(augmentation, name)
        error = math.sqrt(probability * (1 - probability) / happens_BV.numel())
        assert abs(happens_BV.double().mean() - probability) < 4 * error, name


def test_strengths_are_uniform_over_the_ranges_of_torchvisions_colour_jitter(augmentation):
    """Otherwise a strength in the settings would mean something else."""
    plan = view_plan(0, 0, 3000, replace(augmentation, brightness=0.4, contrast=1.5, hue=0.1))[EVERYONE]
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.0, 2.5), "saturation": (0.2, 1.8), "hue": (-0.1, 0.1)}
    jittered_BV = plan.hue_BV != 0
    for name, (low, high) in ranges.items():
        drawn = getattr(plan, f"{name}_BV")[jittered_BV].double().numpy()
        assert kstest((drawn - low) / (high - low), "uniform").pvalue > 1e-3, name
        neutral = 0 if name == "hue" else 1
        assert (getattr(plan, f"{name}_BV")[~jittered_BV] == neutral).all(), name
    sigma = plan.blur_sigma_BV[plan.blur_sigma_BV > 0].double().numpy()
    assert kstest((sigma - 0.1) / 1.9, "uniform").pvalue > 1e-3


def test_every_order_of_the_jitters_is_equally_likely(large):
    """Otherwise the jitter would not be the protocol's: torchvision shuffles the four."""
    codes = (large.order_BV4 @ torch.tensor([64, 16, 4, 1])).flatten().numpy()
    orders, counts = np.unique(codes, return_counts=True)
    assert len(orders) == 24
    assert (large.order_BV4.sort(dim=-1).values == torch.arange(4)).all()
    assert chisquare(counts).pvalue > 1e-3


def test_the_draws_of_a_view_are_independent(large):
    """Otherwise, say, flipped views would be the bright ones."""
    draws = [large.crop_top_BV, large.crop_left_BV, large.flip_BV, large.grayscale_BV, large.blur_sigma_BV > 0]
    draws += [large.crop_area_BVT[..., 0], large.crop_aspect_BVT[..., 0], large.crop_area_BVT[..., 1]]
    draws += [getattr(large, f"{name}_BV") for name in JITTERS if name != "hue"]
    jittered = large.hue_BV != 0
    correlations = torch.corrcoef(torch.stack([draw[jittered].double() for draw in draws])).fill_diagonal_(0)
    assert correlations.abs().max() < 4.5 / math.sqrt(jittered.sum())


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_zero_and_one_mean_never_and_always(augmentation, probability):
    """Otherwise an operation that is switched off would still happen now and then."""
    certain = replace(
        augmentation, hflip_prob=probability, jitter_prob=probability, grayscale_prob=probability, blur_prob=probability
    )
    plan = view_plan(0, 0, 1000, certain)[EVERYONE[:1000]]
    for happens_BV in (plan.flip_BV, plan.hue_BV != 0, plan.grayscale_BV, plan.blur_sigma_BV > 0):
        assert (happens_BV == bool(probability)).all()


def test_the_digest_notices_one_flipped_bit_of_any_part_of_the_plan_and_another_order_of_images(augmentation):
    """Otherwise equal digests would not prove that two runs saw the same inputs."""
    indices = EVERYONE[:6]
    plan = view_plan(0, 0, 6, augmentation)[indices]
    digests = {inputs_digest(indices, plan), inputs_digest(indices[::-1], plan)}
    digests.add(inputs_digest(indices, replace(plan, crop_ratio=(0.5, 2.0))))
    for field in fields(ViewPlan)[:-2]:  # crop_ratio and the steps, here none, are last
        changed = getattr(plan, field.name).numpy().copy(order="C")
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
        digests.add(inputs_digest(indices, replace(plan, **{field.name: torch.from_numpy(changed)})))
    assert len(digests) == 3 + len(fields(ViewPlan)) - 2
    assert inputs_digest(indices, view_plan(0, 0, 9, augmentation)[indices]) in digests


def test_portable_exp_is_exp_and_does_not_depend_on_the_place_in_an_array():
    """Otherwise crops would be off, or differ by a pixel between machines and batches."""
    x = np.linspace(-79, 1, 1001)
    result = portable_exp(x)
    assert np.allclose(result, np.exp(x), rtol=1e-12, atol=0)
    assert all(portable_exp(x[i : i + 1])[0] == result[i] for i in range(0, 1001, 7))
    assert portable_exp(np.array([0.0, -1e9])).tolist() == pytest.approx([1.0, 0.0], abs=1e-30)
