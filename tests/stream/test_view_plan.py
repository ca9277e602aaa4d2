import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from coupled.stream.crops import crop_box
from coupled.stream.portable import portable_cos_sin, portable_exp
from coupled.stream.seeds import philox, torch_rng
from coupled.stream.view_plan import JITTERS, ViewPlan, inputs_digest, view_plan

EVERYONE = np.arange(3000)


def differing(one: ViewPlan, other: ViewPlan) -> set[str]:
    """The names of what is not bit for bit equal in two plans."""
    return {name for name in tensors(one) if not torch.equal(getattr(one, name), getattr(other, name))}


def tensors(plan: ViewPlan) -> list[str]:
    """The names of what a plan has for every view."""
    return [field.name for field in fields(plan) if isinstance(getattr(plan, field.name), torch.Tensor)]


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
def test_the_plan_of_an_image_does_not_depend_on_dataset_size_or_other_images(everything, images, views):
    """Otherwise views would change with the batch, the order, the rank or the number of images and views."""
    whole = view_plan(4, 7, 100, everything)[np.arange(100)]
    chosen = np.array([49, 3, 3, 17])
    part = view_plan(4, 7, images, replace(everything, views=views))[chosen]
    for name in tensors(whole):
        both = min(views, 3)
        expected = getattr(whole, name)[chosen][:, :both]
        assert torch.equal(getattr(part, name)[:, :both], expected), name


def test_one_row_of_the_plan_can_be_drawn_by_its_counter(everything):
    """Otherwise the plan of one image would need the draws of all images before it."""
    plan = view_plan(4, 7, 100, everything)
    tables = (("views", plan.table_VNR, 4), ("further views", plan.further_VNR, 1), ("warp views", plan.warp_VNR, 2))
    for name, table_VNR, blocks in tables:
        for view, image in ((0, 0), (1, 0), (0, 57), (2, 99)):
            key = philox(4, name, 7, view).state["state"]["key"]
            row = np.random.Philox(key=key, counter=blocks * image).random_raw(4 * blocks).astype("<u8").view("<u4")
            assert table_VNR[view, image].tolist() == row.tolist()


def test_plans_differ_between_seeds_epochs_images_and_views(everything):
    """Otherwise images would be shown alike again; `seed + epoch` takes (0, 1) for (1, 0)."""
    plans = [view_plan(seed, epoch, 40, everything)[EVERYONE[:40]] for seed, epoch in ((0, 1), (1, 0), (0, 0), (1, 1))]
    names = set(tensors(plans[0]))
    assert {"solarize_BV", "rotation_BV", "warp_BV8"} < names
    for number, plan in enumerate(plans):
        for other in plans[:number]:
            assert differing(plan, other) == names
    assert differing(plans[0][:20], plans[0][20:]) == names
    for name in names:
        first, second, third = getattr(plans[0], name).unbind(1)
        assert not torch.equal(first, second), name
        assert not torch.equal(second, third), name


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
def test_the_fallback_crop_is_torchvisions_central_crop(augmentation, height, width):
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


def test_the_plan_digest_detects_a_flipped_bit_and_another_image_order(everything):
    """Otherwise equal digests would not prove that two runs saw the same inputs."""
    indices = EVERYONE[:6]
    plan = view_plan(0, 0, 6, everything)[indices]
    digests = {inputs_digest(indices, plan), inputs_digest(indices[::-1], plan)}
    digests.add(inputs_digest(indices, replace(plan, crop_ratios=((0.5, 2.0), *plan.crop_ratios[1:]))))
    for name in tensors(plan):
        changed = getattr(plan, name).numpy().copy(order="C")
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
        digests.add(inputs_digest(indices, replace(plan, **{name: torch.from_numpy(changed)})))
    assert len(digests) == 3 + len(tensors(plan))
    assert inputs_digest(indices, view_plan(0, 0, 9, everything)[indices]) in digests


def test_each_view_follows_its_recipe_and_view_0_ignores_the_second_recipe(augmentation):
    """Otherwise an asymmetric recipe would change what it does not name, or not what it names."""
    second = replace(augmentation.recipe(), crop_ratio=(0.1, 10.0), blur_prob=0.1, jitter_prob=0.0, hflip_prob=1.0)
    one, both = (view_plan(0, 0, 200, replace(augmentation, views=3, second=each)) for each in (None, second))
    plain, plan = one[EVERYONE[:200]], both[EVERYONE[:200]]
    for name in tensors(plain):
        assert torch.equal(getattr(plan, name)[:, 0], getattr(plain, name)[:, 0]), name
    assert differing(plan, plain) == {
        *("crop_aspect_BVT", "blur_sigma_BV", "brightness_BV", "contrast_BV", "saturation_BV", "hue_BV", "flip_BV")
    }
    assert plan.flip_BV[:, 1:].all()
    assert (plan.hue_BV[:, 1:] == 0).all()
    blurred_BV = plan.blur_sigma_BV[:, 1:] > 0
    assert 0 < blurred_BV.sum() < 80
    assert not (blurred_BV & (plain.blur_sigma_BV[:, 1:] == 0)).any()  # a probability moves no number
    oblong = crop_box(replace(plan, crop_area_BVT=torch.full_like(plan.crop_area_BVT, 2.0)), 10, 100)
    assert oblong[:, :, 3].unique(dim=0).tolist() == [[13, 100, 100]]  # the central crop within each side's ratios
    assert inputs_digest(EVERYONE[:200], plan) != inputs_digest(EVERYONE[:200], plain)


def test_disabled_operations_do_not_change_digest_or_tables(augmentation):
    """Otherwise existing runs would get other digests for the same inputs."""
    plan = view_plan(0, 0, 6, augmentation)
    assert plan.further_VNR is None
    same = replace(augmentation, solarize_threshold=0.1, rotation_degrees=(-5.0, 5.0), second=augmentation.recipe())
    indices = EVERYONE[:6]
    expected = inputs_digest(indices, plan[indices])
    assert inputs_digest(indices, view_plan(0, 0, 6, same)[indices]) == expected
    for used in ({"solarize_prob": 0.1}, {"rotation_prob": 0.1}):
        assert inputs_digest(indices, view_plan(0, 0, 6, replace(augmentation, **used))[indices]) != expected


def test_solarize_and_rotation_happen_as_often_and_as_strongly_as_the_recipe_says(augmentation):
    """Otherwise a probability or a range in the settings would mean something else, or follow another draw."""
    recipe = replace(augmentation, solarize_prob=0.3, solarize_threshold=0.4, rotation_prob=0.6)
    plan = view_plan(0, 0, 3000, replace(recipe, rotation_degrees=(-20.0, 60.0)))[EVERYONE]
    solarized_BV, rotated_BV = plan.solarize_BV < math.inf, plan.rotation_BV != 0
    assert plan.solarize_BV[solarized_BV].unique().tolist() == pytest.approx([0.4])
    for happens_BV, probability in ((solarized_BV, 0.3), (rotated_BV, 0.6)):
        error = math.sqrt(probability * (1 - probability) / happens_BV.numel())
        assert abs(happens_BV.double().mean() - probability) < 4 * error
    degrees = plan.rotation_BV[rotated_BV].double().numpy()
    assert kstest((degrees + 20) / 80, "uniform").pvalue > 1e-3
    draws = torch.stack([solarized_BV, rotated_BV, plan.flip_BV, plan.grayscale_BV, plan.blur_sigma_BV > 0])
    correlations = torch.corrcoef(draws.flatten(1).double()).fill_diagonal_(0)
    assert correlations.abs().max() < 4.5 / math.sqrt(rotated_BV.numel())
    sides = view_plan(0, 0, 3000, replace(augmentation, second=replace(augmentation.recipe(), solarize_prob=0.2)))
    assert (sides[EVERYONE].solarize_BV < math.inf).double().mean(0).tolist() == pytest.approx([0, 0.2], abs=0.03)


def test_portable_cosine_and_sine_are_accurate_at_any_array_position():
    """Otherwise a rotated view would be turned by another angle, or differ between machines and batches."""
    degrees = np.linspace(-360, 360, 1441)
    for ours, theirs in zip(portable_cos_sin(degrees), (np.cos, np.sin), strict=True):
        assert np.abs(ours - theirs(np.deg2rad(degrees))).max() < 1e-11
    alone = [portable_cos_sin(degrees[i : i + 1]) for i in range(0, 1441, 7)]
    assert np.array_equal(np.concatenate(alone, axis=1), np.stack(portable_cos_sin(degrees))[:, ::7])


def test_portable_exp_is_accurate_at_any_array_position():
    """Otherwise crops would be off, or differ by a pixel between machines and batches."""
    x = np.linspace(-79, 1, 1001)
    result = portable_exp(x)
    assert np.allclose(result, np.exp(x), rtol=1e-12, atol=0)
    assert all(portable_exp(x[i : i + 1])[0] == result[i] for i in range(0, 1001, 7))
    assert portable_exp(np.array([0.0, -1e9])).tolist() == pytest.approx([1.0, 0.0], abs=1e-30)
