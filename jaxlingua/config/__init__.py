"""The configuration: every option of a run, typed and frozen, nested by stage of the flow.

`--help`, the resolved config.yaml of a run folder and the checks of a resume are made from these classes.
A field made by `identity` is part of what the run is: resuming with another value is refused. A field made
by `free` may change from one start to the next. "auto" stands where a value follows from others; what it
became is printed at the start of a run.
"""

from typing import Literal

from pydantic import BaseModel, model_validator

from jaxlingua.config.data import (
    ChatSource,
    CldrSource,
    DataConfig,
    FiltersConfig,
    HuggingFaceSource,
    InstructionsSource,
    ParallelSource,
    QASource,
    SourceConfig,
    TextSource,
    TokensConfig,
    check_sources,
    check_tokens,
    source_languages,
)
from jaxlingua.config.evaluation import (
    EvalConfig,
    GenerateConfig,
    HarnessConfig,
    InContextConfig,
    JudgeConfig,
    ScorerConfig,
    check_in_context,
    task_files,
)
from jaxlingua.config.fields import STRICT, LanguageCode, Text, free, identity
from jaxlingua.config.model import MODEL_SIZES, LoraConfig, ModelConfig, check_model
from jaxlingua.config.sequence import check_sequence
from jaxlingua.config.stages import (
    OBJECTIVES,
    REPLAYED,
    AnchorConfig,
    MixtureEntry,
    Negative,
    Objective,
    ReplayConfig,
    StageConfig,
    StageReplay,
    Task,
    WeightSchedule,
    parse_mixture,
)
from jaxlingua.config.train import (
    CheckpointConfig,
    ExportConfig,
    MeshConfig,
    OptimizerConfig,
    ProcessesConfig,
    Remat,
    ShardingConfig,
    TrackingConfig,
    TrainConfig,
    check_tracking,
    check_train,
)
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import check_language, parse_direction

__all__ = [
    "MODEL_SIZES",
    "OBJECTIVES",
    "REPLAYED",
    "STRICT",
    "AnchorConfig",
    "ChatSource",
    "CheckpointConfig",
    "CldrSource",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ExportConfig",
    "FiltersConfig",
    "GenerateConfig",
    "HarnessConfig",
    "HuggingFaceSource",
    "InContextConfig",
    "InstructionsSource",
    "JudgeConfig",
    "LanguageCode",
    "LoraConfig",
    "MeshConfig",
    "MixtureEntry",
    "ModelConfig",
    "Negative",
    "Objective",
    "OptimizerConfig",
    "ParallelSource",
    "ProcessesConfig",
    "QASource",
    "Remat",
    "ReplayConfig",
    "RunConfig",
    "ScorerConfig",
    "ShardingConfig",
    "SourceConfig",
    "StageConfig",
    "StageReplay",
    "Task",
    "TextSource",
    "TokensConfig",
    "TrackingConfig",
    "TrainConfig",
    "WeightSchedule",
    "free",
    "identity",
    "parse_mixture",
    "source_languages",
    "task_files",
]


class RunConfig(BaseModel):
    """Where a run lives and what repeats it."""

    model_config = STRICT
    folder: Text = free(
        "runs/{config}", "Folder of everything the run writes; {config} is the config's file name."
    )
    branch_from: Text = free(
        "",
        "Folder of another run that this one begins as a copy of, to add stages without touching that one; "
        "auto is the run that the file extends, empty is none.",
    )
    seed: int = identity(
        0, "Seed of parameters, order and mixtures; the same seed gives the same run.", ge=0, lt=2**32
    )
    platform: Literal["auto", "cpu", "gpu", "tpu"] = free(
        "auto",
        "Kind of device that must be there; the run is refused on any other, auto takes what JAX finds.",
    )


class Config(BaseModel):
    """Everything about one run."""

    model_config = STRICT
    run: RunConfig = free(RunConfig(), "Where the run lives.")
    model: ModelConfig = identity(ModelConfig(), "The function that is trained.")
    data: DataConfig = identity(DataConfig(), "Text in.")
    tokens: TokensConfig = identity(TokensConfig(), "Text to rows of integers.")
    sharding: ShardingConfig = free(ShardingConfig(), "Rows and weights to devices.")
    stages: list[StageConfig] = identity([], "What is trained, in order.")
    train: TrainConfig = identity(TrainConfig(), "The training step.")
    checkpoint: CheckpointConfig = free(CheckpointConfig(), "What is kept of a run.")
    generate: GenerateConfig = free(GenerateConfig(), "The generation engine.")
    eval: EvalConfig = free(EvalConfig(), "What is measured after each stage.")
    tracking: TrackingConfig = free(TrackingConfig(), "What is told while it runs.")

    @model_validator(mode="after")
    def _parts_agree(self) -> "Config":
        check_sources(self.data)
        check_stages(self)
        check_tasks(self)
        check_abilities(self.eval)
        check_in_context(self.eval, self.data.sources)
        check_model(self.model)
        check_tokens(self.tokens, self.model)
        check_train(self.train)
        check_tracking(self.tracking)
        check_faithful(self)
        return self


def check_stages(config: Config) -> None:
    """What stages take from earlier ones is there; each mixture entry names a source and languages it has."""
    check_sequence(config.stages, config.model, config.train)
    for stage in config.stages:
        for entry_name, entry in stage.mixture.items():
            where = f"stage '{stage.name}', mixture.{entry_name}"
            source = _find_source(config.data, entry_name if entry.source == "auto" else entry.source, where)
            languages = source_languages(source)
            asked = [language for direction in entry.directions() for language in direction]
            asked += [] if entry.language == "auto" else [entry.language]
            for language in asked:
                _check_source_has(language, languages, where)


def check_faithful(config: Config) -> None:
    """The released code has one short example in each row, and learns by objectives."""
    for stage in config.stages:
        if stage.faithful and all(entry.objectives == "off" for entry in stage.mixture.values()):
            raise ConfigError(
                f"stage '{stage.name}', faithful: true given, and no entry of its mixture has objectives, "
                f"which are what the released code is about; give one of them some, or leave faithful out"
            )
        if stage.faithful and config.tokens.packing:
            raise ConfigError(
                f"stage '{stage.name}', faithful: true given with tokens.packing, which the released code "
                f"does not do; set tokens.packing=false and tokens.row_length_tokens=127, or leave faithful "
                f"out"
            )


def check_tasks(config: Config) -> None:
    """Each evaluation task names a source and languages that this source has, or else a task file."""
    files = task_files(config.eval.task_folder)
    for task in config.eval.tasks:
        where = f"eval.tasks: '{task}'"
        name, dot, what = task.partition(".")
        if not dot:
            raise ConfigError(f"{where} given; write NAME.LANGUAGE or NAME.LANGUAGE-LANGUAGE")
        languages = what.rpartition(".")[2]
        asked = parse_direction(languages) if "-" in languages else [languages]
        source = config.data.sources.get(name)
        if source is None and name not in files:
            known = [*config.data.sources, *files]
            raise ConfigError(f"{where}: unknown source or task file '{name}'; {nearest(name, known)}")
        for language in asked:
            if source is None:
                check_language(language, where)
            else:
                _check_source_has(language, source_languages(source), where)


def check_abilities(config: EvalConfig) -> None:
    """Each old ability has tasks, and these are among those that are evaluated."""
    known = [*config.tasks, *(f"harness:{name}" for name in config.harness.tasks)]
    for ability, tasks in config.abilities.items():
        where = f"eval.abilities.{ability}"
        if not tasks:
            raise ConfigError(
                f"{where}: no task given; tasks of eval.tasks are allowed; name one, or leave it out"
            )
        for task in tasks:
            if task not in known:
                raise ConfigError(
                    f"{where}: '{task}' given, which is not evaluated; tasks of eval.tasks are allowed, "
                    f"{nearest(task, known)}; add it to eval.tasks, or leave it out"
                )


def _find_source(data: DataConfig, name: str, where: str) -> SourceConfig:
    if name not in data.sources:
        raise ConfigError(f"{where}: unknown source '{name}'; {nearest(name, list(data.sources))}")
    return data.sources[name]


def _check_source_has(language: str, languages: list[str], where: str) -> None:
    check_language(language, where)
    if language not in languages:
        raise ConfigError(f"{where}: language '{language}' given; the source has {', '.join(languages)}")
