"""The augmentation of a run as plain numbers: strengths and probabilities."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from torch import Tensor

from coupled.stream.policies import Policy

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """Parameters of the augmentation of a view.

    They have the meaning of torchvision and SimCLR (Chen et al. 2020); solarize is that of BYOL (Grill et al. 2020) and
    warp that of SupCon (Khosla et al. 2020).
    """

    crop_scale: Range  # fraction of the image's area
    crop_ratio: Range  # width / height
    hflip_prob: float
    jitter_prob: float  # of all four colour jitters together
    brightness: float  # factor in 1 +- strength, at least 0
    contrast: float
    saturation: float
    hue: float  # shift in +- strength, in turns of the colour wheel
    grayscale_prob: float
    blur_prob: float
    blur_sigma: Range  # pixels of the view
    blur_taps: int | None = None  # side of the kernel in pixels, odd; None: a tenth of the view
    solarize_prob: float = 0.0
    solarize_threshold: float = 0.5  # values of at least this are inverted, x -> 1 - x
    rotation_prob: float = 0.0
    rotation_degrees: Range = (90.0, 90.0)  # counter-clockwise
    policy: Policy = "none"
    policy_num_ops: int = 2  # of RandAugment
    policy_magnitude: int = 9  # of RandAugment, 0 to 30
    warp_prob: float = 0.0
    warp_length: float = 23 / 224  # largest scale of the moves of the control points, in shares of the side

    @property
    def uses_further_draws(self) -> bool:
        """Whether solarize or rotation is used, which need the table of further random numbers."""
        return self.solarize_prob > 0 or self.rotation_prob > 0


@dataclass(frozen=True)
class Augmentation(Recipe):
    """The recipes of all views of an image, and the number of views.

    The recipe itself is that of the first view, and of all views if there is no `second`. Local views are small crops
    with the recipe of the first view; they are not counted in `views`.
    """

    views: int = 2
    second: Recipe | None = None  # of the second and further views
    local_views: int = 0
    local_size: int = 0  # side in pixels
    local_crop_scale: Range = (0.05, 0.4)  # the value of DINO (Caron et al. 2021)
    mixup_alpha: float | None = None  # of the Beta distribution of the weights; None: no MixUp
    cutmix_alpha: float | None = None
    steps: tuple[Callable[[Tensor, Tensor], Tensor], ...] = ()  # user-defined, applied last: `augment_further`

    def recipe(self) -> Recipe:
        """Return the recipe of the first view."""
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})

    def local(self) -> "Augmentation | None":
        """Return the augmentation of the local views as one of ordinary views; None if there are no local views."""
        whole, scale = self.unmixed(), self.local_crop_scale
        only = replace(whole, crop_scale=scale, views=self.local_views, second=None, local_views=0)
        return only if self.local_views else None

    @property
    def mixes(self) -> bool:
        """Whether views of different images are mixed."""
        return self.mixup_alpha is not None or self.cutmix_alpha is not None

    def unmixed(self) -> "Augmentation":
        """Return the same augmentation without MixUp and CutMix."""
        return replace(self, mixup_alpha=None, cutmix_alpha=None)

    def recipes(self) -> list[tuple[slice, Recipe]]:
        """Return pairs of views and their recipe."""
        return [(slice(0, 1), self), (slice(1, None), self.second)] if self.second else [(slice(None), self)]
