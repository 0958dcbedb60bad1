"""What is learned: stages, their mixtures, and a mixture in one line."""

import re
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError, field_validator, model_validator

from jaxlingua.config.fields import (
    STRICT,
    Auto,
    LanguageCode,
    NotNegative,
    Off,
    Positive,
    PositiveFloat,
    Share,
    Text,
    identity,
)
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import parse_direction

Task = Literal["auto", "instruction", "translation", "qa", "text", "chat"]


REPLAYED = "replay"  # how names of entries begin that a stage replays of earlier ones
Negative = Literal["random", "hard", "noised"]
Objective = Literal["denoising", "translation", "bilingual_denoising", "similarity"]

# InstructAlign's names for several objectives, one of which is drawn for each example.
OBJECTIVES: dict[str, list[Objective]] = {
    "random": ["denoising", "translation", "bilingual_denoising"],
    "random-xss": ["denoising", "translation", "bilingual_denoising", "similarity"],
    "pair": ["translation", "bilingual_denoising"],
    "pair-xss": ["translation", "bilingual_denoising", "similarity"],
    "bilingual-xss": ["bilingual_denoising", "similarity"],
}


class WeightSchedule(BaseModel):
    """A weight that changes by step: straight lines between the given points, constant outside of them."""

    model_config = STRICT
    steps: list[NotNegative] = identity(..., "Steps of the stage, ascending.", min_length=1)
    weights: list[PositiveFloat] = identity(..., "Weight at each of these steps.", min_length=1)

    @model_validator(mode="after")
    def _is_a_line(self) -> "WeightSchedule":
        if len(self.steps) != len(self.weights) or any(
            later <= earlier for earlier, later in pairwise(self.steps)
        ):
            raise ConfigError(
                f"weight: steps {self.steps} and weights {self.weights} given; as many weights as steps are "
                f"needed, and each step after the one before; mend them"
            )
        return self

    def at(self, step: float) -> float:
        """The weight at a step of the stage."""
        if step <= self.steps[0]:
            return self.weights[0]
        for (begin, first), (end, last) in pairwise(zip(self.steps, self.weights, strict=True)):
            if step <= end:
                return first + (last - first) * (step - begin) / (end - begin)
        return self.weights[-1]


class ReplayConfig(BaseModel):
    """Records of earlier training, chosen once at random."""

    model_config = STRICT
    records: int = identity(..., "Records to choose from the source's training part.", gt=0)
    by: Literal["all", "stratum", "language"] = identity(
        "all",
        "all chooses among all records; stratum and language take equally many of each value of the column "
        "`stratum` or of each language, as far as there are so many.",
    )
    seed: int = identity(0, "Seed of the choice.", ge=0)


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
    replay: ReplayConfig | Off = identity("off", "Choose records at random, to keep what they taught.")
    weight: PositiveFloat | Auto | WeightSchedule = identity(
        "auto",
        "Share of the stage's documents, or steps and weights that it goes through; auto goes by size.",
    )
    objectives: str | list[Objective] = identity(
        "off",
        "InstructAlign's objectives, drawn anew each time: denoising, translation, bilingual_denoising, "
        "similarity, a list of them, or random, random-xss, pair, pair-xss, bilingual-xss.",
    )
    negatives: dict[Negative, PositiveFloat] = identity(
        {"random": 1.0, "hard": 1.0, "noised": 1.0},
        "Weights of what similarity sets against a sentence that it does not mean: another sentence, the "
        "most similar one of several, the right one with noise.",
    )

    def directions(self) -> list[tuple[str, str]]:
        """Source and target language of each given direction; empty for auto."""
        given = [self.direction] if isinstance(self.direction, str) else self.direction
        return [parse_direction(direction) for direction in given if direction != "auto"]

    def drawn_objectives(self) -> list[Objective]:
        """The objectives of which one is drawn for each example; none where the entry's text is fixed."""
        if isinstance(self.objectives, list):
            return self.objectives
        if self.objectives == "off":
            return []
        return OBJECTIVES.get(self.objectives, [self.objectives])

    @field_validator("objectives")
    @classmethod
    def _objectives_are_known(cls, given: str | list[str]) -> str | list[str]:
        names = [given] if isinstance(given, str) else given
        known = [*get_args(Objective), *(["off", *OBJECTIVES] if isinstance(given, str) else [])]
        if not names:
            raise ConfigError("objectives: an empty list given; name one or more, or write off")
        for name in names:
            if name not in known:
                raise ConfigError(f"objectives: unknown objective '{name}'; {nearest(name, known)}")
        return given

    @model_validator(mode="after")
    def _objectives_stand_alone(self) -> "MixtureEntry":
        directions = self.directions()
        for source, target in directions:
            if directions.count((source, target)) > 1:
                raise ConfigError(f"direction: '{source}-{target}' given twice; each may appear once")
        if self.objectives != "off" and self.task != "auto":
            raise ConfigError(
                f"objectives: '{_said(self.objectives)}' given with task '{self.task}'; objectives are the "
                f"task; leave task out"
            )
        if not self.negatives:
            raise ConfigError("negatives: {} given; similarity needs random, hard or noised; name one")
        default = type(self).model_fields["negatives"].default
        if self.negatives != default and "similarity" not in self.drawn_objectives():
            raise ConfigError(
                f"negatives: given with objectives '{_said(self.objectives)}'; only similarity has "
                f"negatives; leave them out, or name similarity among the objectives"
            )
        return self


class StageReplay(BaseModel):
    """What earlier stages of the run learned, mixed into a later one."""

    model_config = STRICT
    share: Share = identity(..., "Share of the stage's documents that earlier stages bring.")
    stages: list[Text] | Auto = identity(
        "auto", "Names of the earlier stages, each of which brings as much; auto is all of them."
    )
    records: Positive | Auto = identity(
        "auto", "Records of each earlier mixture entry that may come back, chosen at random; auto is all."
    )
    seed: int = identity(0, "Seed of the choice.", ge=0)


class AnchorConfig(BaseModel):
    """What holds a stage to the model that it begins with. Several add up."""

    model_config = STRICT
    l2_sp: PositiveFloat | Off = identity(
        "off", "Weight of ½ ‖θ - θ₀‖², θ₀ being the parameters at the stage's beginning (L2-SP)."
    )
    ewc: PositiveFloat | Off = identity(
        "off",
        "Weight of ½ Σ F (θ - θ₀)², F being the Fisher information of earlier stages per target token (EWC).",
    )
    kl: PositiveFloat | Off = identity(
        "off",
        "Weight of the divergence KL(p₀ ‖ p) per target token, p₀ being the answers of the model at the "
        "stage's beginning (learning without forgetting).",
    )
    fisher_draws: int = identity(
        32, "Batches of each earlier stage that EWC's information is estimated from.", gt=0
    )

    @model_validator(mode="after")
    def _holds_something(self) -> "AnchorConfig":
        if (self.l2_sp, self.ewc, self.kl) == ("off", "off", "off"):
            raise ConfigError(
                "anchor: no weight given; l2_sp, ewc and kl are allowed; give one, or leave it out"
            )
        return self


class StageConfig(BaseModel):
    """One element of the sequence of trainings."""

    model_config = STRICT
    name: Text = identity(..., "Name of the stage: letters, digits, _ and -.", pattern=r"^[A-Za-z0-9_-]+$")
    mixture: dict[str, MixtureEntry] = identity(
        ..., "What is learned, by entry; or one line such as alpaca_en+news:eng_Latn-zho_Hans[0:100000]."
    )
    steps: Positive | Auto = identity("auto", "Length in steps; auto goes by epochs.")
    epochs: PositiveFloat | Auto = identity("auto", "Length in passes over the mixture; auto goes by steps.")
    target_tokens: Positive | Auto = identity(
        "auto", "Length in target tokens, to whole steps; auto goes by steps."
    )
    schedule: Literal["restart", "continue"] = identity(
        "restart",
        "Whether the learning rate begins anew, or goes on, in one rise and fall over this stage and the one "
        "before.",
    )
    peak_lr: PositiveFloat | Auto = identity(
        "auto", "Learning rate after warm-up; auto is train.optimizer.peak_lr."
    )
    optimizer: Literal["fresh", "keep"] = identity(
        "fresh", "Whether the optimizer begins with nothing, or with its state from the stage before."
    )
    replay: Share | StageReplay | Off = identity(
        "off", "Share of the documents that all earlier stages bring back, or a map that says which."
    )
    anchor: AnchorConfig | Off = identity("off", "What holds the parameters or answers to those before.")
    frozen: list[Text] = identity(
        [],
        "Parameters that the stage leaves as they are, as patterns such as embed/*, *norm/scale, "
        "layers[0:8]/*, the first eight layers, or embed/embedding[0:32000] and head/kernel[0:32000], the "
        "rows of these tokens.",
    )
    adapters: Literal["continue", "merge", "stack"] = identity(
        "continue",
        "With model.lora: train the adapters on, or new ones, the earlier ones being merged into the frozen "
        "weights or stacked beside them.",
    )
    average: Share | Auto | Off = identity(
        "off",
        "Share that the stage's last weights keep when they are averaged with its first ones; auto takes the "
        "one with the lowest held-out loss of this and all earlier stages.",
    )
    faithful: bool = identity(
        False,
        "Whether InstructAlign's released code is reproduced with its faults: every token learned, no EOS, "
        "swapped names, noise as negatives, held-out rows that share sentences with training.",
    )
    balance: Literal["off", "temperature", "unimax"] = identity(
        "off",
        "How languages share an epoch of the entries that have no weight: by size, by size^(1/temperature), "
        "or equally as far as balance_max_repeats allows (UniMax).",
    )
    balance_temperature: PositiveFloat = identity(3.3, "Temperature of balance=temperature.")
    balance_max_repeats: PositiveFloat = identity(
        4.0, "Times that balance=unimax may show a language's documents in one epoch."
    )

    @property
    def anchored(self) -> AnchorConfig | None:
        """What `anchor` means; None where it is off."""
        return None if self.anchor == "off" else self.anchor

    @property
    def replayed(self) -> StageReplay | None:
        """What `replay` means; None where it is off."""
        if self.replay == "off":
            return None
        return self.replay if isinstance(self.replay, StageReplay) else StageReplay(share=self.replay)

    @field_validator("mixture", mode="before")
    @classmethod
    def _entries_are_right(cls, mixture: Any, info: Any) -> Any:
        """Errors of an entry get its place. Those of pydantic are left: they are told with theirs."""
        stage = f"stage '{info.data['name']}', " if "name" in info.data else ""
        try:
            entries = parse_mixture(mixture) if isinstance(mixture, str) else mixture
        except ConfigError as error:
            raise ConfigError(f"{stage}{error}") from None
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if str(name).startswith(f"{REPLAYED}."):
                raise ConfigError(
                    f"{stage}mixture.{name}: given; names that begin with '{REPLAYED}.' are those of entries "
                    f"that a stage replays; rename it"
                )
            try:
                MixtureEntry.model_validate(entry)
            except ConfigError as error:
                raise ConfigError(f"{stage}mixture.{name}.{error}") from None
            except ValidationError:
                pass
        return entries

    @model_validator(mode="after")
    def _one_length(self) -> "StageConfig":
        if not self.mixture:
            raise ConfigError(f"stage '{self.name}', mixture: nothing given; name at least one source")
        lengths = ("steps", "epochs", "target_tokens")
        given = [length for length in lengths if getattr(self, length) != "auto"]
        if len(given) != 1:
            raise ConfigError(
                f"stage '{self.name}': {' and '.join(given) or 'no length'} given; give exactly one of "
                f"steps, epochs and target_tokens"
            )
        scheduled = [name for name, entry in self.mixture.items() if isinstance(entry.weight, WeightSchedule)]
        if scheduled and self.steps == "auto":
            raise ConfigError(
                f"stage '{self.name}', mixture.{scheduled[0]}.weight: a weight that changes by step given "
                f"with {given[0]}; such a stage has its length in steps; write steps"
            )
        if scheduled and self.replay != "off":
            raise ConfigError(
                f"stage '{self.name}', replay: given with mixture.{scheduled[0]}.weight, which changes by "
                f"step; name what is replayed in the mixture, with weights of its own"
            )
        if scheduled and self.balance != "off":
            raise ConfigError(
                f"stage '{self.name}', balance: '{self.balance}' given with a weight that changes by step; "
                f"leave one of them out"
            )
        drawn = [name for name, entry in self.mixture.items() if entry.objectives != "off"]
        if drawn and self.balance != "off":
            raise ConfigError(
                f"stage '{self.name}', balance: '{self.balance}' given with mixture.{drawn[0]}.objectives, "
                f"whose languages are those of its directions; leave balance out"
            )
        without = [name for name, entry in self.mixture.items() if entry.weight == "auto"]
        if scheduled and without:
            raise ConfigError(
                f"stage '{self.name}', mixture.{without[0]}.weight: not given, and that of "
                f"mixture.{scheduled[0]} changes by step; give every entry one"
            )
        return self


def _said(objectives: str | list[Objective]) -> str:
    return objectives if isinstance(objectives, str) else ", ".join(objectives)


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
