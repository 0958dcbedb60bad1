"""How fields are declared: what a resumed run must share, and types that many of them have."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

Auto = Literal["auto"]
Off = Literal["off"]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]

# Text that may be written as a whole number, such as a column or a date.
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
LanguageCode = Annotated[str, Field(description="ISO 639-3 and script, such as eng_Latn")]


def identity(default: Any, description: str, **limits: Any) -> Any:
    """A field that a resumed run must share with the run that it resumes."""
    return Field(default, description=description, json_schema_extra={"on_resume": "identity"}, **limits)


def free(default: Any, description: str, **limits: Any) -> Any:
    """A field that may change whenever a run is resumed."""
    return Field(default, description=description, json_schema_extra={"on_resume": "free"}, **limits)
