"""What is generated and measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from jaxlingua.config.fields import (
    STRICT,
    Auto,
    LanguageCode,
    NotNegative,
    Positive,
    PositiveFloat,
    Text,
    free,
)
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.languages import check_language


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


class InContextConfig(BaseModel):
    """Solved examples and translations in front of each item: cross-lingual in-context learning."""

    model_config = STRICT
    exemplars: Literal["none", "mono", "cross", "pivot"] = free(
        "none",
        "Solved records in front of each item: none, of its own language, of source_language, or of "
        "source_language near the translation of the sentence of `parallel` that is nearest to the item.",
    )
    count: int = free(3, "Exemplars in front of each item.", gt=0)
    split: Text = free(
        "auto",
        "Split of the task file that exemplars are of; auto is `train` where there is one that is not asked, "
        "else the first other one.",
    )
    source_language: LanguageCode = free(
        "eng_Latn", "Language of cross-lingual exemplars, and the other side of alignments."
    )
    align: Literal["none", "query", "label", "both"] = free(
        "none", "Translations shown: of sentences near the item, of the labels of a choice, or of both."
    )
    align_count: int = free(3, "Sentences with their translation in front of each item.", gt=0)
    align_place: Literal["after", "before"] = free(
        "after", "Whether they stand after the exemplars or before."
    )
    align_order: Literal["target_first", "source_first"] = free(
        "target_first", "Which side of a sentence pair is said first; the item's language is the target."
    )
    parallel: Text = free(
        "",
        "Sentence pairs that pivot and query alignment look in: TASK or TASK.SPLIT of kind translation, such "
        "as nusax_translation.train, or a source with translations.",
    )
    labels: Literal["source", "target"] = free(
        "source",
        "Whether labels are said as the prompt has them, or as the native prompt of the item's language "
        "does; label alignment is always with the latter.",
    )
    format: Literal["line", "table"] = free("line", "A line per exemplar, or a row of a table.")
    retrieval: list[Literal["random", "overlap", "count", "tfidf", "bm25", "states", "encoder"]] = free(
        ["random"],
        "What finds exemplars and sentences: chance, shared words, counts or TF-IDF of words, BM25, hidden "
        "states of the model that answers, a sentence encoder; several are averaged.",
        min_length=1,
    )
    layer: NotNegative | Auto = free("auto", "Layer of `states`; auto is the middle one.")
    encoder: Text = free(
        "sentence-transformers/LaBSE",
        "Hub name or folder of `encoder`; needs pip install 'jaxlingua[encoder]'.",
    )
    match: Literal["target", "source"] = free(
        "target", "Side of a sentence pair that query alignment compares with the item."
    )
    nearest: Literal["last", "first"] = free(
        "last", "Whether the best exemplar, or sentence, stands last, next to the item, or first."
    )
    translate_test: Text = free(
        "",
        "Run, folder or hub name of a model that translates each item into source_language, in which it is "
        "asked then; empty for none.",
    )

    @property
    def is_on(self) -> bool:
        """Whether items are asked otherwise than by their prompt alone."""
        return self.has_context or self.labels != "source" or self.translate_test != ""

    @property
    def has_context(self) -> bool:
        """Whether an item stands behind exemplars or alignments, or in a table."""
        return self.exemplars != "none" or self.align != "none" or self.format != "line"

    @property
    def label_language(self) -> Literal["source", "target"]:
        """In which language labels are said: label alignment shows those that are asked for."""
        return "target" if self.align in ("label", "both") else self.labels

    @property
    def is_chosen(self) -> bool:
        """Whether anything is chosen for an item, so that retrieval is needed."""
        return self.exemplars != "none" or self.needs_parallel

    @property
    def needs_parallel(self) -> bool:
        """Whether sentence pairs are looked in."""
        return self.exemplars == "pivot" or self.align in ("query", "both")


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
    abilities: dict[str, list[str]] = free(
        {},
        "Old abilities by name and their tasks, such as {english questions: [xquad.eng_Latn]}: what the "
        "model could do before training, of which the report tells what is left after each stage.",
    )
    in_context: InContextConfig = free(InContextConfig(), "Solved examples and translations in the prompt.")
    scorers: dict[str, ScorerConfig] = free(
        {}, "Scorers in other environments: comet, bleurt, bertscore, or a name of your own."
    )
    judge: JudgeConfig = free(JudgeConfig(), "A model that judges answers.")
    harness: HarnessConfig = free(HarnessConfig(), "Tasks of lm-evaluation-harness.")


def check_in_context(config: EvalConfig, sources: Iterable[str]) -> None:
    """What `eval.in_context` names is there, and its parts can be asked together."""
    asked = config.in_context
    where = "eval.in_context"
    check_language(asked.source_language, f"{where}.source_language")
    if len(set(asked.retrieval)) < len(asked.retrieval):
        raise ConfigError(
            f"{where}.retrieval: {', '.join(asked.retrieval)} given; each counts once; leave the second out"
        )
    if asked.needs_parallel and not asked.parallel:
        needing = "exemplars=pivot" if asked.exemplars == "pivot" else f"align={asked.align}"
        raise ConfigError(
            f"{where}.{needing} given without sentence pairs; a task of kind translation or a source with "
            f"translations is needed; set {where}.parallel, such as nusax_translation.train"
        )
    if asked.parallel:
        known = [*sources, *task_files(config.task_folder)]
        if asked.parallel.partition(".")[0] not in known:
            hint = nearest(asked.parallel.partition(".")[0], known)
            raise ConfigError(f"{where}.parallel: unknown source or task file '{asked.parallel}'; {hint}")
    if asked.translate_test:
        for name in ("align", "labels"):
            if getattr(asked, name) != type(asked).model_fields[name].default:
                raise ConfigError(
                    f"{where}.{name}={getattr(asked, name)} given with translate_test, which asks all in "
                    f"{asked.source_language}; nothing is left to align; leave one of them out"
                )
        if asked.exemplars not in ("none", "cross"):
            raise ConfigError(
                f"{where}.exemplars={asked.exemplars} given with translate_test, which asks all in "
                f"{asked.source_language}; none or cross are allowed; choose one"
            )


def task_files(folder: str) -> dict[str, Path]:
    """Name and path of each task file: those that come with jaxlingua, then those of `eval.task_folder`."""
    homes = [Path(__file__).parents[1] / "eval" / "tasks" / "files", *([Path(folder)] if folder else [])]
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
