"""What is learned: stages, their mixtures, and a mixture in one line."""

import re
from typing import Any, Literal

from pydantic import BaseModel, field_validator, model_validator

from jaxlingua.config.fields import STRICT, Auto, LanguageCode, Positive, PositiveFloat, Text, identity
from jaxlingua.errors import ConfigError
from jaxlingua.languages import parse_direction

Task = Literal["auto", "instruction", "translation", "qa", "text", "chat"]


class MixtureEntry(BaseModel):
    """One source, or one direction of it, as part of a stage."""

    model_config = STRICT
    source: str = identity("auto", "Name in data.sources; auto is the entry's own name.")
    task: Task = identity("auto", "What is asked for; auto goes by the source's records.")
    direction: str | list[str] = identity(
        "auto", "Translation directions such as eng_Latn-zho_Hans; auto is from and into the first language."
    )
    language: LanguageCode | Auto = identity("auto", "Language to take of a source that has several.")
    start: int = identity(0, "First record of the training part to use.", ge=0)
    limit: Positive | Auto = identity("auto", "Number of records to use; auto is all.")
    weight: PositiveFloat | Auto = identity("auto", "Share of the stage's documents; auto goes by size.")

    def directions(self) -> list[tuple[str, str]]:
        """Source and target language of each given direction; empty for auto."""
        given = [self.direction] if isinstance(self.direction, str) else self.direction
        return [parse_direction(direction) for direction in given if direction != "auto"]


class StageConfig(BaseModel):
    """One element of the sequence of trainings."""

    model_config = STRICT
    name: Text = identity(..., "Name of the stage: letters, digits, _ and -.", pattern=r"^[A-Za-z0-9_-]+$")
    mixture: dict[str, MixtureEntry] = identity(
        ..., "What is learned, by entry; or one line such as alpaca_en+news:eng_Latn-zho_Hans[0:100000]."
    )
    steps: Positive | Auto = identity("auto", "Length in steps; auto goes by epochs.")
    epochs: PositiveFloat | Auto = identity("auto", "Length in passes over the mixture; auto goes by steps.")

    @field_validator("mixture", mode="before")
    @classmethod
    def _one_line(cls, mixture: Any) -> Any:
        return parse_mixture(mixture) if isinstance(mixture, str) else mixture

    @model_validator(mode="after")
    def _one_length(self) -> "StageConfig":
        if not self.mixture:
            raise ConfigError(f"stage '{self.name}': mixture is empty; name at least one source")
        if (self.steps == "auto") == (self.epochs == "auto"):
            given = "neither" if self.steps == "auto" else "both"
            raise ConfigError(f"stage '{self.name}': {given} of steps and epochs given; give exactly one")
        return self


_MIXTURE_PART = re.compile(
    r"(?P<source>[A-Za-z0-9_-]+)(:(?P<direction>[A-Za-z_-]+))?(\[(?P<start>\d*):(?P<stop>\d*)\])?"
)


def parse_mixture(line: str) -> dict[str, dict[str, Any]]:
    """Mixture entries of x-LLaMA's one-line form: sources joined by +, each with direction and slice.

    Raises: ConfigError naming the part that is not of this form.
    Example:
        >>> parse_mixture("alpaca_en+alpaca_zh[0:999]")
        {'alpaca_en': {'source': 'alpaca_en'}, 'alpaca_zh': {'source': 'alpaca_zh', 'start': 0, 'limit': 999}}
    """
    entries: dict[str, dict[str, Any]] = {}
    for part in line.split("+"):
        match = _MIXTURE_PART.fullmatch(part.strip())
        if match is None:
            raise ConfigError(
                f"mixture: '{part}' given; write SOURCE, SOURCE:DIRECTION or SOURCE:DIRECTION[0:1000]"
            )
        entry: dict[str, Any] = {"source": match["source"]}
        name = match["source"]
        if match["direction"]:
            entry |= {"task": "translation", "direction": match["direction"]}
            name += f".{match['direction']}"
        if match["start"] or match["stop"]:
            entry["start"] = int(match["start"] or 0)
        if match["stop"]:
            entry["limit"] = int(match["stop"]) - entry["start"]
            if entry["limit"] <= 0:
                raise ConfigError(f"mixture: '{part}' given; a slice [start:stop] needs start below stop")
        if name in entries:
            raise ConfigError(
                f"mixture: '{name}' given twice; write the mixture as a map with a name per entry"
            )
        entries[name] = entry
    return entries
