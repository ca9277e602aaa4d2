"""The section `augmentation`: the recipe of the views, their number, and what differs in the second and further ones.

The keys in `OPTIONAL` are written out only if they differ from their defaults, so that a key that is not used does not
change the digest of the settings. They are also written out if they differ from those of the preset.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from coupled.config.fields import Above0, Area, OpenSection, Pixels, about
from coupled.config.recipe_settings import RecipeSettings, preset_values
from coupled.config.user_augmentation import user_step
from coupled.stream.recipe import Augmentation

MOST_VIEWS = 64
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
    "warp_prob",
    "warp_length",
    "steps",
    "mixup_alpha",
    "cutmix_alpha",
    *LOCAL,
)


class StepSettings(OpenSection):
    """An augmentation step of your own. Further keys are its options."""

    name: Annotated[str, about("`path/to/file.py:function` or `package.module:function`.")]


class AugmentationSettings(RecipeSettings):
    """The recipe of the views, drawn for every image and epoch. An arm may change keys: `arms.<name>.augmentation`."""

    preset: Annotated[
        Literal["cifar", "imagenet", "sim_augment", "stacked_rand_augment"],
        about(
            "Default values of the keys below that list one value per preset. `cifar` is for 32 to 64 px, `imagenet`"
            " for 224 px. `sim_augment` and `stacked_rand_augment` are SupCon's for 224 px; the scripts of its code set"
            " no warp (`warp_prob: 0`). Deviations: RandAugment draws from torchvision's operations (identity"
            " in place of invert, cutout and solarize-add), and TensorFlow's jitter adds to the brightness.",
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
    mixup_alpha: Annotated[
        Above0 | None,
        about(
            "MixUp: each view is mixed with the same view of another image of the global batch. Each has a weight"
            " drawn from Beta(alpha, alpha). Only for objectives that take mixed labels, such as `cross_entropy`."
            " Applied last, and not in analyses. `null`: none."
        ),
    ] = Augmentation.mixup_alpha
    cutmix_alpha: Annotated[
        Above0 | None,
        about(
            "CutMix: as `mixup_alpha`, but a box of the view is replaced by that of the other view; the weight is the"
            " remaining share of the area. With both set, each view has one of them with probability 1/2."
        ),
    ] = Augmentation.cutmix_alpha

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """The strengths of the preset, and those of the first view for the second."""
        if not isinstance(given, dict):
            return given
        preset = preset_values(given.get("preset"))
        filled = {**preset, **given}
        if filled["policy"] != preset["policy"] and "policy_magnitude" not in given:
            del filled["policy_magnitude"]
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
        if self.local_views and (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError(
                f"local_views: got {self.local_views} with mixup_alpha or cutmix_alpha, which mix no local views; use"
                " local_views: 0"
            )
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
        preset, defaults = preset_values(self.preset), {key: type(self).model_fields[key].default for key in OPTIONAL}
        unused = [key for key in OPTIONAL if getattr(self, key) == defaults[key] == preset.get(key, defaults[key])]
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
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            steps=tuple(user_step(step.name, step.options, k) for k, step in enumerate(self.steps)),
        )


def check_mixed_labels(arm: str, objective: str, takes_mixed: bool, augmentation: Mapping[str, Any]) -> None:
    """Raise ValueError if an arm's resolved `augmentation` mixes images and its objective takes no mixed labels."""
    given = [f"{key}: {augmentation[key]}" for key in ("mixup_alpha", "cutmix_alpha") if augmentation.get(key)]
    if given and not takes_mixed:
        raise ValueError(
            f"arms.{arm}.objective: the arm's augmentation mixes images ({', '.join(given)}), but its objective"
            f" '{objective}' takes no mixed labels; use cross_entropy, or remove the arm or these keys"
        )
