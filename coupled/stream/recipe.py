"""What the augmentation of a run does: strengths and probabilities, plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from torch import Tensor

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """Strengths of the augmentation of a view, with the meaning they have in torchvision and SimCLR (Chen et al. 2020);
    solarize as in BYOL (Grill et al. 2020).
    """

    crop_scale: Range  # share of the image's area
    crop_ratio: Range  # width / height
    hflip_prob: float  # probability
    jitter_prob: float  # probability that the colours are jittered
    brightness: float  # factor within 1 +- strength, not below 0
    contrast: float
    saturation: float
    hue: float  # shift within +- strength, in turns of the colour wheel
    grayscale_prob: float  # probability
    blur_prob: float  # probability
    blur_sigma: Range  # pixels of the view
    solarize_prob: float = 0.0  # probability
    solarize_threshold: float = 0.5  # values from here on are inverted, x -> 1 - x
    rotation_prob: float = 0.0  # probability
    rotation_degrees: Range = (90.0, 90.0)  # counter-clockwise

    @property
    def uses_further_draws(self) -> bool:
        """Whether an operation of the second table happens."""
        return self.solarize_prob > 0 or self.rotation_prob > 0


@dataclass(frozen=True)
class Augmentation(Recipe):
    """The recipe of the first view and, unless there is a `second` one, of all; and how many views an image has, local
    ones apart, which are small crops of the first view's recipe.
    """

    views: int = 2
    second: Recipe | None = None  # of the second and further views
    local_views: int = 0
    local_size: int = 0  # pixels of a side
    local_crop_scale: Range = (0.05, 0.4)  # that of DINO (Caron et al. 2021)
    steps: tuple[Callable[[Tensor, Tensor], Tensor], ...] = ()  # of the user, after all others: `augment_further`

    def recipe(self) -> Recipe:
        """That of the first view alone."""
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})

    def local(self) -> "Augmentation | None":
        """That of the local views, as views of their own; None without any."""
        only = replace(self, crop_scale=self.local_crop_scale, views=self.local_views, second=None, local_views=0)
        return only if self.local_views else None

    def recipes(self) -> list[tuple[slice, Recipe]]:
        """The recipes, each after the views that are made with it."""
        return [(slice(0, 1), self), (slice(1, None), self.second)] if self.second else [(slice(None), self)]
