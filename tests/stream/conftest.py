"""What the tests of the stream share: one thread, an augmentation with all operations, and images."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from coupled.stream.recipe import Augmentation
from coupled.stream.seeds import random_uint32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of torch busy-wait for each other, which is slow when other programs use the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def augmentation() -> Augmentation:
    """Strong colour jitter; every operation applies to some views and not to others."""
    return Augmentation(
        crop_scale=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        hflip_prob=0.5,
        jitter_prob=0.8,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.5,
        grayscale_prob=0.2,
        blur_prob=0.5,
        blur_sigma=(0.1, 2.0),
    )


@pytest.fixture(scope="session")
def everything(augmentation: Augmentation) -> Augmentation:
    """Three views, all operations, and another recipe for the second and the third."""
    first = replace(augmentation, solarize_prob=0.3, rotation_prob=0.5, rotation_degrees=(-180.0, 180.0), warp_prob=0.2)
    second = replace(first.recipe(), blur_prob=0.2, solarize_prob=0.6, rotation_degrees=(90.0, 90.0), warp_length=0.3)
    return replace(first, views=3, second=second)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """uint8 [24, 3, 20, 28]: noise, and some flat, grey, black and white ones, whose hue is undefined."""
    noise = torch.from_numpy(random_uint32(0, "test images", shape=(24, 3, 20, 28)) % 256).to(torch.uint8)
    noise[0], noise[1], noise[2] = 0, 255, 77
    noise[3] = noise[3, :1]
    return noise
