"""What files of a run folder must hold to be read: fields and types, of which others may stand beside."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from jaxlingua.errors import DataError

_STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _is_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


# A text of a model, which may have half a character: bytes that a tokenizer put together wrongly.
AnyText = Annotated[SkipValidation[str], AfterValidator(_is_text)]


class _Score(BaseModel):
    model_config = _STRICT

    stage: str
    step: Count
    model: str
    task: str
    language: str
    metric: str
    value: float
    low: float
    high: float
    items: Count
    signature: str
    prompt: str = ""
    kind: str = ""
    source_language: str = ""
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    p_value: Share | None = None


class _Overlap(BaseModel):
    model_config = _STRICT

    words: Count
    items: Count
    leaked: list[str]
    examples: list[list[str]] = Field(default_factory=list)
    value_without: dict[str, float] = Field(default_factory=dict)


class _Counts(BaseModel):
    model_config = _STRICT

    items: Count
    available: Count = 0
    cut_prompts: Count = 0
    cut_prompt_tokens: Count = 0
    unfinished: Count = 0
    left_out: dict[str, Count] = Field(default_factory=dict)
    checked_on: str = ""
    in_context: str = ""
    overlap: _Overlap | None = None


class _Model(BaseModel):
    model_config = _STRICT

    path: str = ""
    fingerprint: str = ""


class _Base(BaseModel):
    model_config = _STRICT

    evaluation: str
    fingerprint: str


class Evaluation(BaseModel):
    model_config = _STRICT

    scores: list[_Score]
    tasks: dict[str, _Counts] = Field(default_factory=dict)
    model: _Model | None = None
    base: _Base | None = None
    decoding: dict[str, Any] | None = None


class Provenance(BaseModel):
    model_config = _STRICT

    command: str
    repeat: str
    started: str
    devices: str
    versions: dict[str, str]
    tokenizer: str = ""
    git_commit: str = ""


class _MixtureRow(BaseModel):
    model_config = _STRICT

    entry: str
    language: str


class _Direction(BaseModel):
    model_config = _STRICT

    entry: str
    source: str
    target: str


class _Stage(BaseModel):
    model_config = _STRICT

    name: str
    steps: Count
    batch_rows: Count
    row_length_tokens: Count
    use: Share
    mixture: list[_MixtureRow]
    directions: list[_Direction] = Field(default_factory=list)


class _Source(BaseModel):
    model_config = _STRICT

    name: str
    languages: list[str]
    train: Count
    held_out: Count
    skipped: dict[str, Count]
    fingerprint: str


class Data(BaseModel):
    model_config = _STRICT

    stages: list[_Stage] = Field(default_factory=list)
    sources: list[_Source] = Field(default_factory=list)


class Prediction(BaseModel):
    model_config = _STRICT

    id: AnyText
    language: str
    prompt: AnyText
    prediction: AnyText
    targets: list[AnyText]


class MetricsLine(BaseModel):
    model_config = _STRICT

    step: Count
    stage: str = ""
    step_seconds: float | None = None
    target_tokens_per_second: float | None = None
    mfu: float | None = None


def check(form: type[BaseModel], content: Any, where: Path | str, advice: str) -> None:
    """Refuse content that has not the form.

    Raises: DataError naming the place, what is wrong first, and how many more there are.
    """
    try:
        form.model_validate(content)
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False)
        place = ".".join(map(str, first["loc"]))
        what = f"{place}: {first['msg']}" if place else first["msg"]
        what = " ".join(what.encode("ascii", "backslashreplace").decode().split())
        rest = f", and {len(more):,} more" if more else ""
        raise DataError(f"{where}: damaged ({what}{rest}); {advice}") from None
