"""The section `augmentation`: the recipe of the views, their number, and what differs in the second and further ones.

The keys in `OPTIONAL` are written out only if they differ from their defaults, so that a key that is not used does not
change the digest of the settings.
"""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coupled.config.fields import Area, NonNegative, OpenSection, Pixels, Probability, Range, Section, about
from coupled.config.user_augmentation import user_step
from coupled.stream.policies import MOST_OPERATIONS, RAND_AUGMENT_BINS, Policy
from coupled.stream.recipe import Augmentation, Recipe

MOST_VIEWS = 64
MOST_TAPS = 511  # of a blur
PRESETS: dict[str, dict[str, Any]] = {  # facts of the papers' protocol: 32-64 px, and 224 px
    "cifar": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "blur_prob": 0.0},
    "imagenet": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur_prob": 0.5},
}


def _both_ways(given: Any) -> Any:
    """Turn a number d >= 0 into the range -d to d, as torchvision's RandomRotation does."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return (-given, given) if number and given >= 0 else given


Angle = Annotated[float, Field(strict=True, ge=-360, le=360)]
Angles = Annotated[tuple[Angle, Angle], BeforeValidator(_both_ways)]


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
        about(
            "Operations chosen for each view, after the colour jitter: RandAugment or a policy of AutoAugment, as in"
            " torchvision. They round the view to whole grey levels. Set `jitter_prob: 0` for the policy alone."
        ),
    ] = Recipe.policy
    policy_num_ops: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MOST_OPERATIONS)],
        about("Number of operations of `rand_augment`, one after the other."),
    ] = Recipe.policy_num_ops
    policy_magnitude: Annotated[
        Annotated[int, Field(strict=True, ge=0, lt=RAND_AUGMENT_BINS)],
        about("Magnitude of the operations of `rand_augment`, 0 to 30 as in torchvision; 30 is 10 of the paper."),
    ] = Recipe.policy_magnitude

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


STRENGTHS = tuple(RecipeSettings.model_fields)
LOCAL = ("local_views", "local_size", "local_crop_scale")
OPTIONAL = (
    "views",
    "second",
    "blur_taps",
    "solarize_prob",
    "solarize_threshold",
    "rotation_prob",
    "rotation_degrees",
    "policy",
    "policy_num_ops",
    "policy_magnitude",
    "steps",
    *LOCAL,
)


class StepSettings(OpenSection):
    """An augmentation step of your own. Further keys are its options."""

    name: Annotated[str, about("`path/to/file.py:function` or `package.module:function`.")]


class AugmentationSettings(RecipeSettings):
    """The recipe of the views, drawn for every image and epoch, the same for all arms."""

    preset: Annotated[
        Literal["cifar", "imagenet"],
        about(
            "Default values of the keys below that list one value per preset. `cifar` is for 32 to 64 px, `imagenet`"
            " for 224 px.",
            default="`cifar` up to 64 px, else `imagenet`",
        ),
    ] = "cifar"
    views: Annotated[Annotated[int, Field(strict=True, ge=2, le=MOST_VIEWS)], about("Number of views of an image.")] = 2
    second: Annotated[
        RecipeSettings | None,
        about("Keys of the recipe with other values for the second and further views; the rest is as for the first."),
    ] = None
    local_views: Annotated[
        Annotated[int, Field(strict=True, ge=0, le=MOST_VIEWS)],
        about(
            "Number of local views (multi-crop) in addition to `views`. Allowed only if an arm's objective reads an"
            " output of them, such as `local_projection`."
        ),
    ] = Augmentation.local_views
    local_size: Annotated[
        Pixels | None,
        about("Side of a local view; needed with `local_views`. The encoder must take two sizes.", "pixels"),
    ] = None
    local_crop_scale: Annotated[
        tuple[Area, Area], about("Range of the crop's area of a local view.", "share of the image's area")
    ] = Augmentation.local_crop_scale
    steps: Annotated[tuple[StepSettings, ...], about("Augmentation steps of your own, applied after all others.")] = ()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """The strengths of the preset, and those of the first view for the second."""
        if not isinstance(given, dict):
            return given
        preset = given.get("preset")  # an unknown one is refused later
        filled = {**PRESETS[preset if isinstance(preset, str) and preset in PRESETS else "cifar"], **given}
        if isinstance(second := given.get("second"), dict):
            filled["second"] = {key: filled[key] for key in STRENGTHS if key in filled} | second
        return filled

    @model_validator(mode="after")
    def _local(self) -> "AugmentationSettings":
        if self.local_views and self.local_size is None:
            raise ValueError(f"local_size: missing; the {self.local_views} local_views need their side in pixels")
        for key in LOCAL[1:]:
            if not self.local_views and (value := getattr(self, key)) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: got {value}; it has no effect without local views: set local_views")
        return self

    @model_validator(mode="after")
    def _policy(self) -> "AugmentationSettings":
        for key in ("policy_num_ops", "policy_magnitude"):
            for recipe in (self, self.second or self):
                used = "rand_augment" in (self.policy, recipe.policy)
                if not used and (value := getattr(recipe, key)) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}: got {value}; it has no effect without `policy: rand_augment`")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_used(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree = whole(self)
        unused = [key for key in OPTIONAL if getattr(self, key) == type(self).model_fields[key].default]
        if self.second:
            changed = {key: value for key, value in tree["second"].items() if value != tree[key]}
            tree["second"], unused = changed, unused if changed else [*unused, "second"]
        return {key: tree[key] for key in ("preset", *tree) if key not in unused}

    def plain(self) -> Augmentation:
        """The recipes as plain numbers, without the preset."""
        first, second = self.recipe(), self.second.recipe() if self.second else None
        return Augmentation(
            **vars(first),
            views=self.views,
            second=None if second == first else second,
            local_views=self.local_views,
            local_size=self.local_size or Augmentation.local_size,
            local_crop_scale=self.local_crop_scale,
            steps=tuple(user_step(step.name, step.options, k) for k, step in enumerate(self.steps)),
        )
