"""Benchmark our augmentation kernels against torchvision's per-image PIL pipeline, and on a GPU against all cores.

python scripts/benchmarks/bench_augmentation.py [--device cuda] [--seconds 120]
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from rows import Case, Options, Row, fresh, in_turn, row, run
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from coupled.stream.augment import augment
from coupled.stream.recipe import Augmentation
from coupled.stream.seeds import random_uint32
from coupled.stream.view_plan import view_plan

SIZE, VIEWS = 32, 2
AUGMENTATION = Augmentation(
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    hflip_prob=0.5,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_prob=0.2,
    blur_prob=0.0,
    blur_sigma=(0.1, 2.0),
    views=VIEWS,
)
RAND_AUGMENT = replace(AUGMENTATION, jitter_prob=0.0, grayscale_prob=0.0, policy="rand_augment")


def smooth_images(images: int) -> Tensor:
    """Return images of smooth random colours, uint8 [B, 3, S, S]."""
    coarse = torch.from_numpy(random_uint32(0, "benchmark", shape=(images, 3, 8, 8)) * np.float32(255 * 2.0**-32))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").to(torch.uint8)


def _ours(images: int, augmentation: Augmentation = AUGMENTATION) -> Callable[[], Tensor]:
    images_B3HW = smooth_images(images)
    everyone = np.arange(images)
    return lambda: augment(images_B3HW, view_plan(0, 0, images, augmentation)[everyone], SIZE)


def _baseline(images: int, augmentation: Augmentation = AUGMENTATION) -> Callable[[], Tensor]:
    pictures = [to_pil_image(image) for image in smooth_images(images)]
    jitter = transforms.ColorJitter(
        AUGMENTATION.brightness, AUGMENTATION.contrast, AUGMENTATION.saturation, AUGMENTATION.hue
    )
    colours = [
        transforms.RandomApply([jitter], AUGMENTATION.jitter_prob),
        transforms.RandomGrayscale(AUGMENTATION.grayscale_prob),
    ]
    policy = [transforms.RandAugment(augmentation.policy_num_ops, augmentation.policy_magnitude)]
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, AUGMENTATION.crop_scale, AUGMENTATION.crop_ratio),
            transforms.RandomHorizontalFlip(AUGMENTATION.hflip_prob),
            *(colours if augmentation.policy == "none" else policy),
            transforms.ToTensor(),
        ]
    )
    return lambda: torch.stack([torch.stack([pipeline(picture) for picture in pictures]) for _ in range(VIEWS)])


Ways = dict[str, Callable[[int], Callable[[], Tensor]]]
WAYS: Ways = {"ours": _ours, "baseline": _baseline}
WAYS_OF_POLICY: Ways = {
    "ours with RandAugment": partial(_ours, augmentation=RAND_AUGMENT),
    "baseline with RandAugment": partial(_baseline, augmentation=RAND_AUGMENT),
}


def peak_of(way: str, images: int) -> None:
    """Make all views once, in a process whose peak memory is read afterwards."""
    torch.set_num_threads(1)
    (WAYS | WAYS_OF_POLICY)[way](images)()


def cpu_row(name: str, images: int, ways: Ways, options: Options) -> Row:
    """Measure views per CPU second on one thread, and the peak memory above that of 16 images.

    Our time includes drawing and decoding the plan. CPU time excludes other programs on the machine.
    """
    torch.set_num_threads(1)
    taken = in_turn(*(prepare(images) for prepare in ways.values()), repeats=5, cpu_seconds=True)
    ours_mib, baseline_mib = (
        fresh(__file__, peak_of, way, images, options=options)[1]
        - fresh(__file__, peak_of, way, 16, options=options)[1]
        for way in ways
    )
    ours, baseline = (VIEWS * images / seconds for seconds in taken)
    return row(name, ours, baseline, 10, "views/s", ours_mib, baseline_mib)


def gpu_row(name: str, images: int, device: str) -> Row:
    """Measure milliseconds of the views of a batch, the plan included, against all cores of the CPU."""
    pixels_B3HW = smooth_images(images)
    placed_B3HW = pixels_B3HW.to(device)

    def make(images_B3HW: Tensor) -> Tensor:
        return augment(images_B3HW, view_plan(0, 0, images, AUGMENTATION)[np.arange(images)], SIZE)

    here, there = in_turn(lambda: make(placed_B3HW), lambda: make(pixels_B3HW))
    return row(name, 1000 * here, 1000 * there, "under 5 ms", "ms")


def cases(options: Options) -> list[Case]:
    """List the rows."""
    images = 32 if options.tiny else 512
    name = f"augmentation of {VIEWS} x {images} images, {SIZE} px, on one core, against torchvision on PIL images"
    with_policy = f"RandAugment of {VIEWS} x {images} images, {SIZE} px, on one core, against torchvision on PIL images"
    on_gpu = f"augmentation of {VIEWS} x {2 * images} images, {SIZE} px, on a GPU, against all cores"
    return [
        Case(on_gpu, partial(gpu_row, on_gpu, 2 * images, options.device), "" if options.gpu else "no GPU"),
        Case(name, partial(cpu_row, name, images, WAYS, options)),
        Case(with_policy, partial(cpu_row, with_policy, images, WAYS_OF_POLICY, options)),
    ]


if __name__ == "__main__":
    run(cases, __doc__ or "", {"peak_of": peak_of})
