"""Names of the corruptions, and the constants of their five severities.

The constants are those of the authors' programs `make_cifar_c.py` (32 px) and `make_imagenet_c.py` (224 px) at
https://github.com/hendrycks/robustness. Images of up to 64 px get those for 32 px, larger images those for 224 px, so
that Tiny-ImageNet-C (64 px), which has constants of its own, differs. Lengths in pixels are not scaled with the image,
except those of `elastic_transform`, which are a share of the side.

`--help` imports this module, so it imports no large library.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
BLUR = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
WEATHER = ("snow", "frost", "fog", "brightness")
DIGITAL = ("contrast", "elastic_transform", "pixelate", "jpeg_compression")
CORRUPTIONS = (*NOISE, *BLUR, *WEATHER, *DIGITAL)  # the paper's fifteen, in its order
NEED_PHOTOGRAPHS = ("frost",)
PACKAGE = "imagecorruptions"  # on PyPI; has the authors' photographs of frost, and is read as data, never imported
INSTALL = f"pip install --no-deps {PACKAGE}"  # what it depends on (OpenCV, scikit-image) is not needed
PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # the authors never draw the sixth
SEVERITIES = (1, 2, 3, 4, 5)
LARGEST_SMALL = 64  # pixels

Constants = dict[str, tuple[tuple[Any, ...], ...]]  # for each severity

SMALL: Constants = {
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),  # standard deviation
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),  # photons of a white pixel
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),  # share of the values
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),  # radius, sigma that smooths its edge
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),  # sigma, distance, passes
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),  # radius, sigma
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),  # end and step of the factor
    "snow": (  # mean, deviation, zoom, threshold, radius, sigma, share of the image
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),  # of image, of frost, step
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),  # amount, decay of the displacement
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),  # added to the value of HSV
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),  # factor
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),  # factor of the side
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),  # quality
}
_SHARE = 244 / 224  # the authors' program for 224 px has 244 in the constants of elastic_transform
LARGE: Constants = {
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "elastic_transform": (  # displacement, its sigma, movement of the affine map's corners; shares of the side
        (2 * _SHARE, 0.7 * _SHARE, 0.1 * _SHARE),
        (2 * _SHARE, 0.08 * _SHARE, 0.2 * _SHARE),
        (0.05 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
        (0.07 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
        (0.12 * _SHARE, 0.01 * _SHARE, 0.02 * _SHARE),
    ),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
}


def constants_of(name: str, severity: int, side: int) -> tuple[Any, ...]:
    """Return the constants of a corruption for images of `side` pixels."""
    return (SMALL if side <= LARGEST_SMALL else LARGE)[name][severity - 1]


def photographs_folder() -> Path | None:
    """Return the folder with the photographs of frost, or None if the package is not installed."""
    spec = find_spec(PACKAGE)
    folders = (Path(each) / "frost" for each in (spec and spec.submodule_search_locations) or ())
    return next((each for each in folders if all((each / name).is_file() for name in PHOTOGRAPHS)), None)


def generated() -> tuple[str, ...]:
    """Return the corruptions that can be generated: those that need photographs only if the package is installed."""
    return tuple(name for name in CORRUPTIONS if name not in NEED_PHOTOGRAPHS or photographs_folder())
