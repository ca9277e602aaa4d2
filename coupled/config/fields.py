"""What the sections of the settings are made of: kinds of values, descriptions of keys, and their base classes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

LARGEST = 1e6  # of a number with a fraction: far above all uses, and far below what float32 holds
Positive = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Pixels = Annotated[int, Field(strict=True, ge=4, le=4096)]
Width = Annotated[int, Field(strict=True, ge=1, le=2**16)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Above0 = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Range = tuple[Above0, Above0]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def about(description: str, unit: str = "", default: str = "") -> Any:
    """The metadata that describe a key on the reference page.

    Args:
        description: what the key sets, in Markdown.
        unit: of its number.
        default: in words, where the code computes it from other keys.
    """
    extra: dict[str, JsonValue] = {key: text for key, text in (("unit", unit), ("default_text", default)) if text}
    return Field(description=description, json_schema_extra=extra)


class Section(BaseModel):
    """A group of keys, all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(BaseModel):
    """A section whose further keys are the options of something found by name, checked by `errors.check_options`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})
