"""The configuration: every option of a run, typed and frozen, nested by stage of the flow.

`--help`, the resolved config.yaml of a run folder and the checks of a resume are made from these classes.
A field made by `identity` is part of what the run is: resuming with another value is refused. A field made
by `free` may change from one start to the next. "auto" stands where a value follows from others; what it
became is printed at the start of a run.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import check_language, parse_direction

Auto = Literal["auto"]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Task = Literal["auto", "instruction", "translation", "qa", "text", "chat"]
Remat = Literal["none", "full", "save_attention", "save_qkv", "save_mlp", "minimal", "dots"]

# Fields of ModelConfig that say how large a model is that begins from nothing.
MODEL_SIZES = (
    *("preset", "embed", "layers", "heads", "kv_heads", "head_dim", "mlp"),
    *("rope_theta", "norm_eps", "tie_embeddings", "max_positions"),
)

# Text that may be written as a whole number, such as a column or a date.
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def identity(default: Any, description: str, **limits: Any) -> Any:
    """A field that a resumed run must share with the run that it resumes."""
    return Field(default, description=description, json_schema_extra={"on_resume": "identity"}, **limits)


def free(default: Any, description: str, **limits: Any) -> Any:
    """A field that may change whenever a run is resumed."""
    return Field(default, description=description, json_schema_extra={"on_resume": "free"}, **limits)


HELD_OUT = "Records kept from training for evaluation; auto is 1 %, at most 256."

LanguageCode = Annotated[str, Field(description="ISO 639-3 and script, such as eng_Latn")]


class RunConfig(BaseModel):
    """Where a run lives and what repeats it."""

    model_config = STRICT
    folder: Text = free(
        "runs/{config}", "Folder of everything the run writes; {config} is the config's file name."
    )
    seed: int = identity(
        0, "Seed of parameters, order and mixtures; the same seed gives the same run.", ge=0, lt=2**32
    )
    platform: Literal["auto", "cpu", "gpu", "tpu"] = free(
        "auto",
        "Kind of device that must be there; the run is refused on any other, auto takes what JAX finds.",
    )


class ModelConfig(BaseModel):
    """The function that is trained."""

    model_config = STRICT
    init: Literal["scratch", "huggingface"] = identity(
        "scratch",
        "Where the first parameters come from: scratch draws them, huggingface reads a public checkpoint.",
    )
    path: Text = identity(
        "", "Hugging Face folder or hub name of the checkpoint, such as owner/model; empty with init=scratch."
    )
    new_tokens: Literal["refuse", "mean"] = identity(
        "refuse",
        "Pieces that the checkpoint has no row for: refuse them, or begin with the mean of its rows.",
    )
    preset: str = identity(
        "tiny-0.6m",
        "Named sizes with init=scratch: llama1-7b … llama3.2-3b, or a tiny one for tests and CPUs.",
    )
    embed: Positive | Auto = identity("auto", "Width of the residual stream; auto is the preset's.")
    layers: Positive | Auto = identity("auto", "Number of layers; auto is the preset's.")
    heads: Positive | Auto = identity("auto", "Number of query heads; auto is the preset's.")
    kv_heads: Positive | Auto = identity("auto", "Number of key and value heads; divides heads.")
    head_dim: Positive | Auto = identity("auto", "Width of one head, even; auto is the preset's.")
    mlp: Positive | Auto = identity("auto", "Width of the gated MLP; auto is the preset's.")
    rope_theta: PositiveFloat | Auto = identity(
        "auto", "Base of the rotary frequencies; auto is the preset's."
    )
    norm_eps: PositiveFloat | Auto = identity(
        "auto", "Added to the mean square in RMSNorm; auto is the preset's."
    )
    tie_embeddings: bool | Auto = identity("auto", "Whether the head is the transposed embedding.")
    max_positions: Positive | Auto = identity("auto", "Positions that the model is meant for.")
    compute_dtype: Literal["bfloat16", "float32"] = identity(
        "bfloat16", "Type of activations and of weights while computing; parameters are kept in float32."
    )
    attention: Literal["auto", "reference", "blockwise", "splash", "cudnn"] = free(
        "auto",
        "Attention: reference holds all scores, blockwise never does, splash is for TPUs and cudnn for GPUs; "
        "auto chooses by length and platform.",
    )
    attention_block_tokens: int = free(512, "Keys that blockwise attention looks at in one go.", gt=0)


class InstructionsSource(BaseModel):
    """Instruction, input and output: JSON, JSONL or Parquet with Alpaca's fields."""

    model_config = STRICT
    kind: Literal["instructions"] = identity("instructions", "Alpaca-style instructions.")
    path: Text = identity(..., "File, relative to data.folder; .gz is read as it is.")
    language: LanguageCode = identity(..., "Language of the answers.")
    columns: dict[str, Text] = identity(
        {}, "Names in the file of instruction, input and output, where they differ."
    )
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class ChatSource(BaseModel):
    """Conversations: OpenAI `messages` or ShareGPT `conversations`, JSON, JSONL or Parquet."""

    model_config = STRICT
    kind: Literal["chat"] = identity("chat", "Conversations; only assistant turns are learned.")
    path: Text = identity(..., "File, relative to data.folder.")
    language: LanguageCode = identity(..., "Language of the assistant.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class ParallelSource(BaseModel):
    """Sentences with their translations: one file per language, or one file with a column per language."""

    model_config = STRICT
    kind: Literal["parallel"] = identity("parallel", "Parallel text.")
    path: Text = identity(..., "File; with {language} in it one file per language, line n beside line n.")
    languages: list[LanguageCode] = identity(..., "Languages to read, two or more.", min_length=2)
    format: Literal["auto", "lines", "tsv", "jsonl"] = identity(
        "auto", "Format; auto goes by {language} and the file's name."
    )
    columns: dict[LanguageCode, Text] = identity(
        {}, "Column of each language: a header, a JSON key, a number from 1, or what stands for {language}."
    )
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class QASource(BaseModel):
    """Extractive questions in SQuAD's JSON format."""

    model_config = STRICT
    kind: Literal["qa"] = identity("qa", "SQuAD-format questions; answers are spans of the context.")
    path: Text = identity(..., "JSON file, relative to data.folder.")
    language: LanguageCode = identity(..., "Language of context and answers.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class HuggingFaceSource(BaseModel):
    """A dataset of the Hugging Face hub, or a local folder of one, with a map of its columns."""

    model_config = STRICT
    kind: Literal["huggingface"] = identity("huggingface", "A dataset read by the datasets library.")
    path: Text = identity(..., "Hub name or local folder.")
    name: Text = identity("", "Configuration of the dataset, where it has several.")
    split: str = identity("train", "Split to read.")
    yields: Literal["instruction", "translation", "qa", "text", "chat"] = identity(
        ..., "What its records are."
    )
    columns: dict[str, Text] = identity(
        {},
        "Column of each field (instruction, input, text, …, or a language code); dots go into structs.",
    )
    language: LanguageCode | Literal[""] = identity("", "Language of the records; not for translation.")
    languages: list[LanguageCode] = identity([], "Languages of a translation dataset.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class TextSource(BaseModel):
    """Plain text, for continued pre-training."""

    model_config = STRICT
    kind: Literal["text"] = identity("text", "Plain text; all of it is learned.")
    path: Text = identity(..., "File, relative to data.folder.")
    language: LanguageCode = identity(..., "Its language.")
    unit: Literal["line", "file"] = identity("line", "Whether a line or the whole file is one record.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class CldrSource(BaseModel):
    """Dates, quantities and relative times of Unicode CLDR, which ships with Babel: no download."""

    model_config = STRICT
    kind: Literal["cldr"] = identity("cldr", "Text made from Unicode CLDR.")
    languages: list[LanguageCode] = identity(..., "Languages to write it in.", min_length=1)
    yields: Literal["translation", "qa", "instruction"] = identity("translation", "What its records are.")
    records: int = identity(10_000, "Records to make, training and held-out together.", gt=0)
    held_out_records: NotNegative | Auto = identity("auto", "Records whose meanings are kept from training.")


SourceConfig = Annotated[
    InstructionsSource | ChatSource | ParallelSource | QASource | HuggingFaceSource | TextSource | CldrSource,
    Field(discriminator="kind"),
]


def source_languages(source: SourceConfig) -> list[str]:
    """The languages that a source declares."""
    declared = list(getattr(source, "languages", [])) or [getattr(source, "language", "")]
    return [language for language in declared if language]


class DataConfig(BaseModel):
    """Text in."""

    model_config = STRICT
    folder: Text = free(".", "Folder that relative paths of sources start from.")
    sources: dict[str, SourceConfig] = identity({}, "Sources by name.")
    template: Literal["alpaca", "short", "raw"] = identity(
        "alpaca", "Frame around instruction and answer, in training and evaluation alike."
    )
    leaks: Literal["refuse", "drop", "allow"] = identity(
        "refuse", "What to do where training text equals evaluation text."
    )


class TokensConfig(BaseModel):
    """Text to rows of integers."""

    model_config = STRICT
    kind: Literal["auto", "learned", "huggingface", "sentencepiece"] = identity(
        "auto",
        "Byte-level BPE learned on the training text, a Hugging Face one, a tokenizer.model; auto goes by "
        "the files of path, and learns one where there is none.",
    )
    path: Text = identity(
        "", "Folder, hub name or file of the tokenizer; empty is the checkpoint's, or none with kind=learned."
    )
    vocab_size: int = identity(768, "Pieces to learn with kind=learned, special tokens included.", ge=260)
    row_length_tokens: int = identity(512, "Tokens in a row.", ge=8)
    packing: bool = identity(True, "Whether a row holds several documents, each seeing only itself.")
    too_long: Literal["cut", "drop"] = identity(
        "cut", "What happens to documents longer than a row; both are counted."
    )
    cache_folder: Text = free("auto", "Where tokenized documents are kept; auto is the run folder.")


class MeshConfig(BaseModel):
    """Sizes of the mesh axes; their product is the number of devices."""

    model_config = STRICT
    data: Positive | Auto = free("auto", "Copies of the model; auto takes what the others leave, fsdp first.")
    fsdp: Positive | Auto = free("auto", "Devices over which parameters and rows are split.")
    tensor: Positive | Auto = free(1, "Devices over which heads, MLP and vocabulary are split.")


class ProcessesConfig(BaseModel):
    """The processes that train together; each is started with the same command."""

    model_config = STRICT
    coordinator: Text = free(
        "auto",
        "Where process 0 listens, as host:port; auto goes by the environment of TPU VM, GKE or JAX; none is "
        "one process alone.",
    )
    count: Positive | Auto = free("auto", "How many there are; auto goes by the environment.")
    index: NotNegative | Auto = free("auto", "Which one this is, from 0; auto goes by the environment.")
    wait_seconds: PositiveFloat = free(300.0, "How long they wait for one another at the start.")


class ShardingConfig(BaseModel):
    """Rows and weights to devices."""

    model_config = STRICT
    mesh: MeshConfig = free(MeshConfig(), "The device mesh.")
    processes: ProcessesConfig = free(ProcessesConfig(), "The processes that the devices belong to.")


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


class OptimizerConfig(BaseModel):
    """How gradients change parameters."""

    model_config = STRICT
    kind: Literal["adamw", "adafactor", "lion"] = identity("adamw", "Optimizer.")
    peak_lr: float = identity(2e-5, "Learning rate after warm-up.", gt=0)
    final_lr_ratio: float = identity(0.0, "Learning rate at the end as a share of peak_lr.", ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = identity(
        "cosine", "Shape after warm-up; wsd holds the peak and falls linearly at the end."
    )
    warmup_ratio: float = identity(0.03, "Share of the steps in which the rate rises linearly.", ge=0, le=1)
    warmup_steps: NotNegative | Auto = identity(
        "auto", "Steps in which the rate rises; auto goes by warmup_ratio."
    )
    decay_ratio: float = identity(0.2, "Share of the steps in which wsd falls.", ge=0, le=1)
    weight_decay: float = identity(0.0, "Decoupled weight decay; norms and biases are exempt.", ge=0)
    beta1: float = identity(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = identity(0.999, "Decay of the second moment.", ge=0, lt=1)
    eps: float = identity(1e-8, "Added to the root of AdamW's second moment.", gt=0)
    first_moment_dtype: Literal["float32", "bfloat16"] = identity(
        "float32",
        "Type of AdamW's and Lion's first moment; bfloat16 saves 2 bytes per parameter. AdamW's second stays "
        "float32, since bfloat16 cannot add a thousandth (1 - beta2); nor in Lion's, so set its beta2=0.99.",
    )
    clip_norm: PositiveFloat | Literal["off"] = identity(
        1.0, "Global norm that gradients are cut to, or off."
    )


class TrainConfig(BaseModel):
    """The training step."""

    model_config = STRICT
    batch_rows: int = identity(128, "Rows of one step over all devices.", gt=0)
    micro_batch_rows: Positive | Auto = free(
        "auto", "Rows of one forward pass over all devices; auto is the whole batch. Changes memory only."
    )
    optimizer: OptimizerConfig = identity(OptimizerConfig(), "The optimizer.")
    remat: Remat = free(
        "full", "Which activations are computed again in the backward pass. Changes memory only."
    )
    barriers: bool | Auto = free(
        "auto",
        "Whether products and SwiGLU are kept apart, in an order that hides communication; auto is on v5e, "
        "whose compiler makes use of it. Changes speed only.",
    )
    compiler_options: dict[str, bool | int | str] | Auto = free(
        "auto",
        "Options of the TPU compiler by name; auto is what is known to help on the chip, {} is none. Changes "
        "speed only.",
    )
    loss_chunk_tokens: int = free(8192, "Tokens whose logits exist at one time.", gt=0)
    max_nonfinite_steps: int = free(
        5, "Non-finite steps in a row that stop the run; fewer are skipped.", gt=0
    )
    held_out_every_steps: Positive | Auto = free(
        "auto", "Steps between measurements of held-out loss; auto is ten a stage."
    )
    held_out_documents: int = free(64, "Documents per source and language in the held-out loss.", ge=0)


class ExportConfig(BaseModel):
    """What `python -m jaxlingua.checkpoint export RUN` writes."""

    model_config = STRICT
    folder: Text = free("auto", "Hugging Face folder to write; auto is RUN/export.")
    step: NotNegative | Literal["auto", "best"] = free(
        "auto", "Step to export; auto is the latest, best the one that checkpoint.keep_best kept."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = free(
        "auto", "Type of the weights; auto is that of the public checkpoint, and float32 from scratch."
    )
    shard_gib: PositiveFloat = free(5.0, "Largest file; a model that is larger is split.")


class CheckpointConfig(BaseModel):
    """What is kept of a run."""

    model_config = STRICT
    save_every_steps: int = free(500, "Steps between checkpoints; a stage's last step is always saved.", gt=0)
    save_every_minutes: PositiveFloat | Literal["off"] = free(
        15.0, "Minutes after which a checkpoint is saved in any case, so that no more than these are lost."
    )
    keep_last: int = free(2, "Newest checkpoints that are kept.", gt=0)
    keep_best: int = free(
        0,
        "Checkpoints that are kept for their held-out loss, measured at every one of save_every_steps.",
        ge=0,
    )
    best_by: Text = free(
        "held_out_loss",
        "What is best when it is lowest: held_out_loss, the mean over sources and languages, or one of "
        "metrics.jsonl such as held_out_loss/news/jav_Latn.",
    )
    export: ExportConfig = free(ExportConfig(), "The Hugging Face folder that is made of a checkpoint.")


class GenerateConfig(BaseModel):
    """The generation engine."""

    model_config = STRICT
    max_new_tokens: int = free(256, "Longest answer; a task may ask for shorter ones.", gt=0)
    batch_rows: int = free(64, "Rows answered at one time over all devices.", gt=0)
    temperature: float = free(0.0, "0 takes the most probable token; above it tokens are drawn.", ge=0)
    top_k: int = free(0, "Most probable tokens that are drawn from; 0 is all.", ge=0)
    top_p: float = free(
        1.0, "Probability of the tokens that are drawn from, most probable first.", gt=0, le=1
    )
    beams: int = free(1, "Beams of beam search; 1 is none.", gt=0)
    length_penalty: float = free(1.0, "Power of its length that a beam's log-probability is divided by.")
    stop: list[Text] = free([], "Texts that end an answer, beside those of its task; no part of it.")


class ScorerConfig(BaseModel):
    """A scorer that runs in an environment of its own, such as COMET."""

    model_config = STRICT
    command: list[Text] = free(
        ..., "Program and arguments; {script} in it is the path of the script for this scorer that we ship."
    )
    model: Text = free("auto", "Model that the scorer loads; auto is the script's.")
    timeout_seconds: PositiveFloat = free(3600.0, "Seconds after which the command is stopped.")


class JudgeConfig(BaseModel):
    """A language model behind an OpenAI-compatible endpoint that judges answers."""

    model_config = STRICT
    url: Text = free("", "Base URL such as http://127.0.0.1:8000/v1; empty for no judge.")
    model: Text = free("", "Name of the model at the endpoint.")
    key_variable: Text = free("OPENAI_API_KEY", "Environment variable that holds the key; may be unset.")
    compare: bool = free(True, "Whether answers are also judged against the base model's, in both orders.")
    samples: int = free(1, "Verdicts asked for each item and order.", gt=0)
    temperature: float = free(0.0, "Temperature of the judge.", ge=0)
    items: Positive | Auto = free("auto", "Items that are judged per task; auto is all.")
    connections: int = free(4, "Requests at one time.", gt=0)
    timeout_seconds: PositiveFloat = free(60.0, "Seconds that one reply may take.")
    retries: int = free(3, "Further tries after an error or a timeout.", ge=0)


class HarnessConfig(BaseModel):
    """Tasks of lm-evaluation-harness, in the same process."""

    model_config = STRICT
    tasks: list[Text] = free([], "Names of its tasks; needs pip install 'jaxlingua[harness]'.")
    folder: Text = free("", "Folder of further task files of its own form; empty for none.")
    limit: Positive | Auto = free("auto", "Items per task; auto is all.")
    examples: int = free(0, "Solved examples in front of each item (few-shot).", ge=0)


class EvalConfig(BaseModel):
    """What is measured after each stage, and by `python -m jaxlingua.eval`."""

    model_config = STRICT
    tasks: list[str] = free(
        [],
        "NAME.LANGUAGE or NAME.LANGUAGE-LANGUAGE, of a source (if trained on, its held-out part) or of a "
        "task file such as xquad, flores, nusax_sentiment; NAME.SPLIT.LANGUAGE for another of its splits.",
    )
    items: Positive | Auto = free("auto", "Items per task; auto is all.")
    prompts: list[Text] = free(
        ["english.0"],
        "Prompts of each task file: english.0, native.1 …; english, native or all for every one of these.",
    )
    data_folder: Text = free("data", "Folder of the published files that task files name.")
    task_folder: Text = free("", "Folder of task files of your own; empty for none.")
    choice_by: Literal["auto", "label", "per_token", "per_character", "whole_sequence", "constrained"] = free(
        "auto",
        "How a choice is made: log-likelihood of the choice, the same per token or per character, the mean "
        "over prompt and choice as in the papers, or an answer that can only be one of them; auto is the "
        "task's.",
    )
    bleu_tokenizer: Literal["auto", "13a", "char", "flores101", "flores200", "intl", "none", "spm", "zh"] = (
        free("auto", "sacreBLEU's tokenizer; auto goes by the target language and needs no download.")
    )
    models: dict[str, Text] = free(
        {}, "Name and Hugging Face folder, hub name or run folder of models evaluated side by side."
    )
    steps: Literal["latest", "all"] | list[NotNegative] = free(
        "latest", "Kept checkpoints of a run that python -m jaxlingua.eval evaluates."
    )
    base_model: bool = free(True, "Whether the model before training is evaluated beside.")
    bootstrap_samples: int = free(1000, "Resamples behind each 95 % interval and each p-value.", gt=0)
    leak_words: int = free(
        13, "Words in a row that an item and the training data share in a leak; 0 looks for none.", ge=0
    )
    groups: dict[str, list[LanguageCode]] = free(
        {}, "Languages by group, such as seen, related and unseen; auto groups are made of the stages."
    )
    scorers: dict[str, ScorerConfig] = free(
        {}, "Scorers in other environments: comet, bleurt, bertscore, or a name of your own."
    )
    judge: JudgeConfig = free(JudgeConfig(), "A model that judges answers.")
    harness: HarnessConfig = free(HarnessConfig(), "Tasks of lm-evaluation-harness.")


class TrackingConfig(BaseModel):
    """What is told while it runs."""

    model_config = STRICT
    log_every_steps: int = free(10, "Steps between lines of metrics.jsonl.", gt=0)
    tensorboard: bool = free(True, "Whether TensorBoard event files are written.")
    wandb_project: Text = free("", "Weights & Biases project; empty for none.")


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
        check_model(self.model)
        check_tokens(self.tokens, self.model)
        check_train(self.train)
        return self


# ── checks that need more than one field ──────────────────────────────────────────────────────────────────


def check_sources(data: DataConfig) -> None:
    """Names of sources are plain; languages are known, differ and are enough."""
    for name, source in data.sources.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ConfigError(
                f"data.sources: name '{name}' given; letters, digits, _ and - are allowed; rename it"
            )
        where = f"data.sources.{name}"
        languages = source_languages(source)
        for language in languages:
            check_language(language, where)
        if len(set(languages)) < len(languages):
            raise ConfigError(f"{where}.languages: {', '.join(languages)} given; each may appear once")
        if isinstance(source, HuggingFaceSource):
            if source.yields == "translation" and len(languages) < 2:
                raise ConfigError(f"{where}.languages: {len(languages)} given; translation needs two or more")
            if source.yields != "translation" and not source.language:
                raise ConfigError(f"{where}.language: not given; say which language the records are in")


def check_stages(config: Config) -> None:
    """Stage names differ; each mixture entry names a source and languages that this source has."""
    names = [stage.name for stage in config.stages]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"stages: name '{name}' given twice; each stage needs its own name")
    for position, stage in enumerate(config.stages):
        for entry_name, entry in stage.mixture.items():
            where = f"stages[{position}].mixture.{entry_name}"
            source = _find_source(config.data, entry_name if entry.source == "auto" else entry.source, where)
            languages = source_languages(source)
            asked = [language for direction in entry.directions() for language in direction]
            asked += [] if entry.language == "auto" else [entry.language]
            for language in asked:
                _check_source_has(language, languages, where)


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


def task_files(folder: str) -> dict[str, Path]:
    """Name and path of each task file: those that come with jaxlingua, then those of `eval.task_folder`."""
    homes = [Path(__file__).parent / "eval" / "tasks" / "files", *([Path(folder)] if folder else [])]
    if folder and not homes[-1].is_dir():
        raise ConfigError(
            f"eval.task_folder: '{folder}' given, which is no folder; give one, or leave it out"
        )
    files: dict[str, Path] = {}
    for file in [file for home in homes for file in sorted(home.glob("*.yaml"))]:
        if file.stem in files:
            raise ConfigError(
                f"eval.task_folder: '{file}' given; '{file.stem}' is a task that comes with jaxlingua; "
                f"rename the file"
            )
        files[file.stem] = file
    return files


def check_model(model: ModelConfig) -> None:
    """Where the first parameters come from, the path of a checkpoint and the sizes agree."""
    if model.init == "scratch":
        if model.path:
            raise ConfigError(
                f"model.path: '{model.path}' given; model.init=scratch draws its parameters and needs no "
                f"path; leave it out, or set model.init=huggingface"
            )
        return
    if not model.path:
        raise ConfigError(
            "model.path: not given; model.init=huggingface reads a checkpoint; give its folder or hub name"
        )
    default = ModelConfig()
    for name in MODEL_SIZES:
        if getattr(model, name) != getattr(default, name):
            raise ConfigError(
                f"model.{name}: '{getattr(model, name)}' given; with model.init=huggingface sizes are those "
                f"of the checkpoint's config.json; leave it out"
            )


def check_tokens(tokens: TokensConfig, model: ModelConfig) -> None:
    """A tokenizer has a path where it needs one; a public checkpoint keeps the pieces that it knows."""
    if tokens.kind == "learned" and model.init != "scratch":
        raise ConfigError(
            "tokens.kind: 'learned' given; a checkpoint knows only its own pieces; leave tokens.kind out"
        )
    if model.init != "scratch" and tokens.vocab_size != TokensConfig().vocab_size:
        raise ConfigError(
            f"tokens.vocab_size: {tokens.vocab_size} given; only a tokenizer that is learned has a size to "
            f"choose; leave it out"
        )
    if tokens.kind == "learned" and tokens.path:
        raise ConfigError(
            f"tokens.path: '{tokens.path}' given; tokens.kind=learned needs no path; leave it out"
        )
    if tokens.kind in ("huggingface", "sentencepiece") and not tokens.path and model.init == "scratch":
        raise ConfigError(
            f"tokens.path: nothing given; tokens.kind={tokens.kind} needs the path of a tokenizer; give it"
        )


def check_train(train: TrainConfig) -> None:
    """A micro-batch divides the batch; an optimizer without a first moment is given no type for it."""
    if train.micro_batch_rows != "auto" and train.batch_rows % train.micro_batch_rows:
        raise ConfigError(
            f"train.micro_batch_rows: {train.micro_batch_rows} given, which does not divide "
            f"train.batch_rows={train.batch_rows}; use a divisor of {train.batch_rows}"
        )
    if train.optimizer.kind == "adafactor" and train.optimizer.first_moment_dtype != "float32":
        raise ConfigError(
            f"train.optimizer.first_moment_dtype: '{train.optimizer.first_moment_dtype}' given; Adafactor "
            f"keeps no first moment; leave it out, or set train.optimizer.kind=adamw"
        )


def _find_source(data: DataConfig, name: str, where: str) -> SourceConfig:
    if name not in data.sources:
        raise ConfigError(f"{where}: unknown source '{name}'; {nearest(name, list(data.sources))}")
    return data.sources[name]


def _check_source_has(language: str, languages: list[str], where: str) -> None:
    check_language(language, where)
    if language not in languages:
        raise ConfigError(f"{where}: language '{language}' given; the source has {', '.join(languages)}")


# ── mixtures in one line ───────────────────────────────────────────────────────────────────────────────────

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
