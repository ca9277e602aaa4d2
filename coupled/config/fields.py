"""Building blocks of the sections of the settings: types of values, descriptions of keys, and base classes."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

LARGEST = 1e6  # for floating-point settings: far above all uses, and far below the range of float32
Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Pixels = Annotated[int, Field(strict=True, ge=4, le=4096)]
Width = Annotated[int, Field(strict=True, ge=1, le=2**16)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Above0 = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Range = tuple[Above0, Above0]
Area = Annotated[float, Field(strict=True, gt=0, le=1)]  # share of an image
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def about(description: str, unit: str = "", default: str = "") -> Any:
    """Return the metadata that describe a key on the reference page.

    Args:
        description: what the key sets, in Markdown.
        unit: of its number.
        default: in words, where the code computes it from other keys.
    """
    extra: dict[str, JsonValue] = {key: text for key, text in (("unit", unit), ("default_text", default)) if text}
    return Field(description=description, json_schema_extra=extra)


class Section(BaseModel):
    """A section in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LeanSection(Section):
    """A section that omits the keys in `LEAN` where they have their default, in run.json and in digests.

    Runs that do not use a key then have the same digest with and without it.
    """

    LEAN: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_defaults(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = lean_defaults(type(self))
        return {key: value for key, value in whole(self).items() if key not in unused or value != unused[key]}


def lean_defaults(section: type[LeanSection]) -> dict[str, Any]:
    """Return the defaults of the keys that `section` omits."""
    return {key: section.model_fields[key].get_default(call_default_factory=True) for key in section.LEAN}


class OpenSection(BaseModel):
    """A section whose further keys are the options of an objective, dataset or other function that it names.

    `errors.check_options` checks them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})
