"""The policies RandAugment and AutoAugment as columns of the view plan, and in the views."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as F

from coupled.stream.augment import augment
from coupled.stream.crops import crop_box
from coupled.stream.policies import LARGEST, OPERATIONS, auto_augment_pairs, value_of
from coupled.stream.seeds import random_uint32
from coupled.stream.view_plan import inputs_digest, view_plan

THEIRS = {name: name.title().replace("_", "") for name in OPERATIONS}
LEARNED = {"auto_augment_cifar10": AutoAugmentPolicy.CIFAR10, "auto_augment_imagenet": AutoAugmentPolicy.IMAGENET}
EVERYONE = np.arange(3000)


def only(augmentation, policy, **options):
    """Crop, flip and the policy."""
    none = {"jitter_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": 0.0}
    return replace(augmentation, **none, policy=policy, **options)


def test_rand_augment_draws_its_14_operations_and_their_signs_uniformly(augmentation):
    """Otherwise some operations would be missing or frequent, or the second would follow the first."""
    recipe = only(augmentation, "rand_augment", policy_num_ops=3, policy_magnitude=20)
    plan = view_plan(0, 0, 3000, recipe)[EVERYONE]
    op_MK, value_MK = plan.policy_op_BVK.flatten(0, 1).numpy(), plan.policy_value_BVK.flatten(0, 1).numpy()
    assert not op_MK[:, 3].any()
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert chisquare(np.bincount(op_MK[:, first] * 14 + op_MK[:, second], minlength=196)).pvalue > 1e-3
    for number, name in enumerate(OPERATIONS[:14]):
        values = value_MK[:, :3][op_MK[:, :3] == number]
        assert np.abs(values) == pytest.approx(value_of(name, 20, 31))
        assert (values < 0).mean() == pytest.approx(0.5 if name in LARGEST else 0, abs=0.08), name


@pytest.mark.parametrize("policy", LEARNED)
def test_auto_augment_has_torchvisions_pairs_with_their_probabilities(augmentation, policy):
    """Otherwise AutoAugment would not be the published policy."""
    theirs = AutoAugment(LEARNED[policy]).policies
    pairs = auto_augment_pairs(policy)
    assert [[(THEIRS[op], p, m) for op, p, m in pair] for pair in pairs] == [
        [(op, p, m or 0) for op, p, m in pair] for pair in theirs
    ]
    plan = view_plan(0, 0, 3000, only(augmentation, policy))[EVERYONE]
    for k in range(2):
        op_M, value_M = (part[..., k].flatten().numpy() for part in (plan.policy_op_BVK, plan.policy_value_BVK))
        for name in OPERATIONS[1:]:
            mine = [(p, m) for op, p, m in (pair[k] for pair in pairs) if op == name]
            share = sum(p for p, _ in mine) / len(pairs)
            assert (op_M == OPERATIONS.index(name)).mean() == pytest.approx(share, abs=0.025), (k, name)
            sizes = {round(abs(value), 6) for value in value_M[op_M == OPERATIONS.index(name)]}
            assert sizes == {round(value_of(name, m, 10), 6) for p, m in mine if p > 0}, (k, name)
    assert not plan.policy_op_BVK[..., 2:].any()


@pytest.mark.parametrize("policy", ["rand_augment", *LEARNED])
def test_views_with_a_policy_are_torchvisions_of_the_cropped_image(augmentation, policy):
    """Otherwise an operation would be left out, or come before the crop, or on another view."""
    size, images = 33, torch.from_numpy(random_uint32(0, "images", shape=(24, 3, 20, 28)) % 256).to(torch.uint8)
    plan = view_plan(0, 0, 24, only(augmentation, policy, policy_magnitude=13))[EVERYONE[:24]]
    views_VB3SS = augment(images, plan, size)
    cropped_VB3SS = augment(images, replace(plan, policy_op_BVK=torch.zeros_like(plan.policy_op_BVK)), size)
    box = crop_box(plan, 20, 28)[0, 0].tolist()
    crop = F.resized_crop(images[0].float() / 255, *box, [size, size], antialias=True)
    assert (cropped_VB3SS[0, 0] - (crop.flip(-1) if plan.flip_BV[0, 0] else crop)).abs().max() < 1 / 255
    for view, image in np.ndindex(2, 24):
        levels = (cropped_VB3SS[view, image] * 255).round().to(torch.uint8)
        for op, value in zip(plan.policy_op_BVK[image, view], plan.policy_value_BVK[image, view], strict=True):
            name = OPERATIONS[op]
            theirs = float(value) * (size if "translate" in name else 1)
            levels = _apply_op(levels, THEIRS[name], theirs, InterpolationMode.NEAREST, None)
        if plan.policy_op_BVK[image, view].any():
            differs = (views_VB3SS[view, image] * 255).round() != levels
            assert differs.float().mean() < 0.02, (view, image)


def test_a_policy_keeps_bits_of_a_view_alone_and_all_other_columns(augmentation, images):
    """Otherwise views would depend on their neighbours, or a policy would change crops and digests of other runs."""
    first = replace(augmentation, policy="rand_augment", second=replace(augmentation.recipe(), policy="none"))
    plan = view_plan(0, 0, 24, replace(first, views=3))
    together = augment(images, plan[EVERYONE[:24]], 16)
    alone = [augment(images[b : b + 1], plan[EVERYONE[b : b + 1]], 16) for b in range(24)]
    assert torch.equal(together, torch.cat(alone, dim=1))
    without = view_plan(0, 0, 24, replace(augmentation, views=3))
    assert without.policy_VNR is None
    unchanged = augment(images, without[EVERYONE[:24]], 16)
    assert torch.equal(together[1:], unchanged[1:])
    assert not torch.equal(together[0], unchanged[0])
    indices, whole = EVERYONE[:24], plan[EVERYONE[:24]]
    less = replace(whole, policy_op_BVK=None, policy_value_BVK=None)
    assert inputs_digest(indices, less) == inputs_digest(indices, without[indices]) != inputs_digest(indices, whole)
