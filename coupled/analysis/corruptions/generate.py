"""Corrupt clean images: the 15 corruptions of ImageNet-C and CIFAR-C, each at five severities.

    D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
    (2019), arXiv 1903.12261, and the authors' programs, from which the constants and the order of the operations are.

Random numbers are a function of (seed, corruption, severity, index of the image). All is computed on the CPU in
float64, one image at a time, so a corrupted image depends on neither the other images, the arm nor the device. Results
are cut to whole grey levels, as in the authors' programs; values within 1e-6 below a level count as the level, so that
rounding errors of another machine do not change them.

The images are not those of the published archives: the random numbers are others, and ImageNet-C was stored as JPEG of
quality 85. Blur, zoom and maps are those of scipy, torch and numpy instead of OpenCV, scikit-image and ImageMagick.

Frost needs the authors' photographs, which are in the package imagecorruptions (`constants.INSTALL`). As in their
programs, the photograph is one of the first five; the sixth is never used.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.analysis.corruptions import blur, digital, noise, weather
from coupled.analysis.corruptions.constants import BLUR, DIGITAL, NOISE, WEATHER, constants_of
from coupled.analysis.corruptions.draws import Array, Draws

GREY = 255
MODULES = {noise: NOISE, blur: BLUR, weather: WEATHER, digital: DIGITAL}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    name: getattr(module, name) for module, names in MODULES.items() for name in names
}


def corrupted(
    image_SS3: NDArray[np.uint8], name: str, severity: int, *, seed: int = 0, image: int = 0
) -> NDArray[np.uint8]:
    """Return a corrupted copy of a square image, uint8 [S, S, 3].

    Args:
        image_SS3: the image, uint8.
        name: one of `constants.CORRUPTIONS`.
        severity: 1 (least) to 5.
        seed: seed of the random numbers.
        image: index of the image, which selects its random numbers.

    Raises:
        ValueError: for frost, without the package that has its photographs.
    """
    constants = constants_of(name, severity, len(image_SS3))
    found = FUNCTIONS[name](image_SS3 / GREY, Draws(seed, name, severity, image), *constants)
    return np.floor(GREY * np.clip(found, 0, 1) + 1e-6).astype(np.uint8)


def corrupted_batch(pixels_B3SS: Tensor, images: Sequence[int], name: str, severity: int, seed: int) -> Tensor:
    """Return corrupted copies of images, uint8 [B, 3, S, S] on the CPU; `images` are their indices."""
    found = [
        corrupted(pixels_SS3, name, severity, seed=seed, image=image)
        for pixels_SS3, image in zip(pixels_B3SS.permute(0, 2, 3, 1).numpy(), images, strict=True)
    ]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
