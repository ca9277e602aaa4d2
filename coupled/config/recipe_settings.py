"""The recipe of a view in the settings: strengths, probabilities, and the presets that set some of them."""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from coupled.config.fields import Area, NonNegative, Probability, Range, Section, Share, about
from coupled.stream.policies import MOST_OPERATIONS, RAND_AUGMENT_BINS, Policy
from coupled.stream.recipe import Recipe

MOST_TAPS = 511  # of a blur
WITHOUT = {"policy": "none", "policy_magnitude": 9, "warp_prob": 0.0}
CIFAR = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "blur_prob": 0.0}
IMAGENET = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur_prob": 0.5}
PRESETS: dict[str, dict[str, Any]] = {  # facts of the papers' protocol: 32-64 px, and 224 px
    "cifar": {**CIFAR, **WITHOUT},
    "imagenet": {**IMAGENET, **WITHOUT},
    # Khosla et al. 2020, arXiv 2004.11362, section 14.2, with the numbers of the published code: colour jitter of
    # strength 1, warp_prob of its functions, RandAugment of 2 operations at their largest magnitude
    "sim_augment": {**IMAGENET, **WITHOUT, "warp_prob": 0.5},
    "stacked_rand_augment": {**IMAGENET, "policy": "rand_augment", "policy_magnitude": 30, "warp_prob": 0.5},
}


def _both_ways(given: Any) -> Any:
    """Turn a number d >= 0 into the range -d to d, as torchvision's RandomRotation does."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return (-given, given) if number and given >= 0 else given


Angle = Annotated[float, Field(strict=True, ge=-360, le=360)]
Angles = Annotated[tuple[Angle, Angle], BeforeValidator(_both_ways)]


def preset_values(name: Any) -> dict[str, Any]:
    """Return the values of a preset; those of `cifar` for an unknown one, which is refused later."""
    return PRESETS[name if isinstance(name, str) and name in PRESETS else "cifar"]


def _of_preset(description: str, key: str, unit: str = "") -> Any:
    return about(description, unit, "; ".join(f"{preset}: {values[key]}" for preset, values in PRESETS.items()))


class RecipeSettings(Section):
    """Strengths and probabilities of the augmentation of a view."""

    crop_scale: Annotated[tuple[Area, Area], about("Range of the crop's area.", "share of the image's area")] = (
        0.08,
        1.0,
    )
    crop_ratio: Annotated[Range, about("Range of the crop's width over its height.", default="`[3/4, 4/3]`")] = (
        3 / 4,
        4 / 3,
    )
    hflip_prob: Annotated[Probability, about("Probability of a horizontal flip.")] = 0.5
    jitter_prob: Annotated[Probability, about("Probability of a colour jitter.")] = 0.8
    brightness: Annotated[NonNegative, _of_preset("Strength s: the factor is in [max(0, 1 - s), 1 + s].", "brightness")]
    contrast: Annotated[NonNegative, _of_preset("Strength s: the factor is in [max(0, 1 - s), 1 + s].", "contrast")]
    saturation: Annotated[NonNegative, _of_preset("Strength s: the factor is in [max(0, 1 - s), 1 + s].", "saturation")]
    hue: Annotated[
        Annotated[float, Field(strict=True, ge=0, le=0.5)],
        _of_preset("Largest turn of the hue.", "hue", "turns of the colour circle"),
    ]
    grayscale_prob: Annotated[Probability, about("Probability that the view becomes grey.")] = 0.2
    blur_prob: Annotated[Probability, _of_preset("Probability of a Gaussian blur.", "blur_prob")]
    blur_sigma: Annotated[Range, about("Range of the blur's standard deviation.", "pixels")] = (0.1, 2.0)
    blur_taps: Annotated[
        Annotated[int, Field(strict=True, ge=3, le=MOST_TAPS)] | None,
        about("Side of the blur's kernel, an odd number. `null`: about a tenth of the view, as in SimCLR.", "pixels"),
    ] = Recipe.blur_taps
    solarize_prob: Annotated[
        Probability,
        about("Probability of solarization after the blur: values x >= `solarize_threshold` become 1 - x."),
    ] = Recipe.solarize_prob
    solarize_threshold: Annotated[
        Probability, about("For values in [0, 1]; 128 of torchvision and lightly is 0.502.")
    ] = Recipe.solarize_threshold
    rotation_prob: Annotated[
        Probability,
        about("Probability of a rotation after crop and flip; bilinear, black outside, as torchvision's `rotate`."),
    ] = Recipe.rotation_prob
    rotation_degrees: Annotated[
        Angles,
        about(
            "Range of the angle, counter-clockwise; a number d is [-d, d]. The default is lightly's quarter turn, which"
            " changes no value.",
            "degrees",
        ),
    ] = Recipe.rotation_degrees
    policy: Annotated[
        Policy,
        _of_preset(
            "Operations chosen for each view, after the colour jitter: RandAugment or a policy of AutoAugment, as in"
            " torchvision. They round the view to whole grey levels. Set `jitter_prob: 0` for the policy alone.",
            "policy",
        ),
    ] = Recipe.policy
    policy_num_ops: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MOST_OPERATIONS)],
        about("Number of operations of `rand_augment`, one after the other."),
    ] = Recipe.policy_num_ops
    policy_magnitude: Annotated[
        Annotated[int, Field(strict=True, ge=0, lt=RAND_AUGMENT_BINS)],
        _of_preset(
            "Magnitude of the operations of `rand_augment`, 0 to 30 as in torchvision; 30 is 10 of the paper.",
            "policy_magnitude",
        ),
    ] = Recipe.policy_magnitude
    warp_prob: Annotated[
        Probability,
        _of_preset(
            "Probability of a warp before the blur: a thin-plate spline moves four points at 1/3 and 2/3 of the side;"
            " bilinear, with the border's pixels outside.",
            "warp_prob",
        ),
    ] = Recipe.warp_prob
    warp_length: Annotated[
        Share,
        about(
            "Each coordinate of a point moves by a normal number times a length, which is uniform from 0 to this value."
            " The default is that of SupCon's code, 23 px of 224.",
            "share of the view's side",
            "`23/224`",
        ),
    ] = Recipe.warp_length

    @model_validator(mode="after")
    def _ranges(self) -> "RecipeSettings":
        for key in ("crop_scale", "crop_ratio", "blur_sigma", "rotation_degrees", "local_crop_scale"):
            low, high = getattr(self, key, (0, 0))
            if low > high:
                raise ValueError(f"{key}: got [{low}, {high}]; the first number must not exceed the second")
        if self.blur_taps and self.blur_taps % 2 == 0:
            raise ValueError(f"blur_taps: got {self.blur_taps}; allowed are odd numbers from 3 to {MOST_TAPS}")
        return self

    def recipe(self) -> Recipe:
        """The strengths as plain numbers."""
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})
