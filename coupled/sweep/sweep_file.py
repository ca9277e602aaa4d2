"""The keys of a sweep file, with their types, defaults and descriptions. docs/reference/settings.md lists them."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from coupled.config.fields import Count, Name, Positive, Section, about

DEFAULT_ANALYSES = ("weight-gap", "alignment --split test --layers h")
Values = Annotated[list[Any], Field(min_length=1)]


class FigureSettings(Section):
    """What the figures of a sweep show: one panel per metric, against the factor and against epochs."""

    reference: Annotated[str, about("Arm that the others are compared with.")] = "cl"
    metrics: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        about(
            "One panel for each: `weight_gap`, or a metric of the tables such as `cka`. If the table has several"
            " variants of a metric, add one: `nccc:euclidean`, `few_shot:nccc shots=5`."
        ),
    ] = ("cka", "rsa", "weight_gap")
    layer: Annotated[str, about("Layer whose representations are measured; `weight_gap` has none.")] = "h"
    split: Annotated[Literal["train", "test"], about("Images that are measured; `weight_gap` needs none.")] = "test"
    arm: Annotated[
        str,
        about("Arm of the figure against epochs, with one line per value of the factor. Without a factor: all arms."),
    ] = "nscl"
    epochs: Annotated[
        tuple[Literal["last"] | Count, ...],
        about("A figure against the factor is drawn for each of these epochs; `last` is the last epoch of each run."),
    ] = ("last",)


class SweepFile(Section):
    """A sweep file is YAML with the key `base`. Keys of the settings are written with dots in it, for example
    `optimizer.base_lr`. One run is trained for each combination of the values of `grid`, `zip` and `seeds`.
    """

    base: Annotated[
        str, about("Settings file of all runs: a path relative to the sweep file, or the name of a packaged one.")
    ]
    name: Annotated[
        Name | None, about("Folder of the sweep under `runs/`.", default="name of the sweep file without its ending")
    ] = None
    overrides: Annotated[
        dict[str, Any], about("Settings that every run changes in the same way, for example `{epochs: 20}`.")
    ] = Field(default_factory=dict)
    grid: Annotated[
        dict[str, Values], about("Settings with a list of values each; all combinations of the values are trained.")
    ] = Field(default_factory=dict)
    zip: Annotated[
        tuple[dict[str, Values], ...],
        about("Settings with lists of equal length, paired value by value; for several groups, a list of mappings."),
    ] = ()
    seeds: Annotated[
        Positive | Annotated[list[Count], Field(min_length=1)] | None,
        about("A number n for the seeds 0 to n - 1, or a list of seeds. `null`: the seed of `base`."),
    ] = None
    analyses: Annotated[
        tuple[str, ...], about("Analysis commands with their options, run on each finished run; without `--run-dir`.")
    ] = DEFAULT_ANALYSES
    factor: Annotated[
        str | None,
        about("Setting on the x-axis of the figures.", default="first setting with several values, except `seed`"),
    ] = None
    figure: Annotated[FigureSettings, about("What the figures show.")] = FigureSettings()

    @field_validator("zip", mode="before")
    @classmethod
    def _one_group(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given
