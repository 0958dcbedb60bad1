"""From a question to the prompt that a model reads: framed as in training, or as it is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlingua.bucket import is_bucket
from jaxlingua.config import Config, DataConfig, source_languages
from jaxlingua.data.chat_template import chat_template
from jaxlingua.data.learned_frames import frame_language, learns_prompts
from jaxlingua.data.records import Instruction, Pair
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import Wording, load_wording, wording_of
from jaxlingua.errors import CheckpointError, DataError, one_line
from jaxlingua.hub import find_folder
from jaxlingua.languages import display_name

CHAT_TEMPLATE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"


@dataclass(frozen=True)
class Question:
    """What somebody asks of a model, before it is framed."""

    text: str  # a prompt, an instruction, or a text to translate
    given: str = ""  # the input of an instruction
    direction: tuple[str, str] | None = None  # of a translation
    is_raw: bool = False  # the text is the prompt itself, without a frame
    language: str = ""  # of an instruction's answer, which localized frames are in; empty: the model's own
    repeat: int = 0  # number among equal questions, each of which gets a sample of its own


@dataclass(frozen=True)
class Framing:
    """How prompts are framed for one model.

    Attributes:
        is_framed: whether instructions have a frame; without, they go in as they are.
        language: of answers to instructions, where frames are localized and a question names none.
        about: the same in a sentence.
        learned: languages of the run's data; none of a model without a run.
    """

    wording: Wording
    is_framed: bool
    language: str
    about: str
    learned: tuple[str, ...] = ()

    def prompt(self, question: Question) -> str:
        """What the model reads for a question.

        Raises: DataError where there is nothing to frame, or what is no text; ConfigError where frames are
            localized and the language has none.
        """
        _check_characters(f"{question.text}\n{question.given}")
        if question.is_raw:
            return question.text
        if not (question.text.strip() or (question.given.strip() and question.direction is None)):
            raise DataError("question: an empty text given; text is needed; write some")
        options = {"source": "question", "training": False, "direction": question.direction}
        if question.direction is not None:
            given, wanted = question.direction
            # The answer is no part of a prompt.
            return render(Pair(0, {given: question.text, wanted: "a"}), self.wording, **options).prompt
        if not self.is_framed:
            return f"{question.text}\n{question.given}" if question.given else question.text
        language = question.language or self.language
        asked = Instruction(0, language, question.text, question.given, "a")
        return render(asked, self.wording, **options).prompt


def framing_of_run(config: Config, trained: DataConfig | None = None) -> Framing:
    """The frames that a run learns; of localized ones that of its first language, or English.

    Args:
        trained: options of its data in training, where the command gives others.
    """
    wording, language = load_wording(config.data), frame_language(config)
    learned = tuple(languages_of(config))
    if not learns_prompts(config):
        about = "instructions go in as they are: the run learns plain text alone"
        return Framing(wording, False, language, about, learned)
    about = f"instructions are framed as in training ({_named(wording, language)})"
    given, before = (
        {f"data.{name}": getattr(data, name) for name in ("template", "frames", "wording_folder")}
        for data in (config.data, trained or config.data)
    )
    if changed := [name for name in given if given[name] != before[name]]:
        says, learns = (", ".join(f"{name}={values[name]}" for name in changed) for values in (given, before))
        about = f"instructions are framed as the command says ({says}); the run learned {learns}"
    return Framing(wording, True, language, about, learned)


def languages_of(config: Config) -> list[str]:
    """Languages of a run's data, in the order of its sources."""
    sources = config.data.sources.values()
    return list(dict.fromkeys(code for source in sources for code in source_languages(source)))


def framing_of_model(path: str, data: DataConfig, *, is_given: bool) -> Framing:
    """The frames of a Hugging Face folder or hub name.

    Args:
        data: says which, if `is_given`; else they are known by the chat template that our exports have.
    Raises: CheckpointError where there is no such folder.
    """
    if is_given:
        wording = load_wording(data)
        about = f"instructions are framed as data.template={wording.template} says"
        return Framing(wording, True, "eng_Latn", about)
    found = _chat_template(path)
    for wording, language in _our_wordings() if found else ():
        spaced = (False, True)
        ours = {
            chat_template(wording, language, has_bos=has_bos, opens_with_space=opens_with_space)
            for has_bos in spaced
            for opens_with_space in spaced
        }
        if found in ours:
            about = f"instructions are framed as its chat template says ({_named(wording, language)})"
            return Framing(wording, True, language, about)
    why = "its chat template is none of ours" if found else "it has no chat template"
    about = f"instructions go in as they are: {why}; data.template=alpaca frames them"
    return Framing(load_wording(data), False, "eng_Latn", about)


def _check_characters(text: str) -> None:
    """Raises: DataError for what is no text, such as a byte of a command line that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"question: U+{ord(text[error.start]):04X} at character {error.start} given, which is half of a "
            f"character, or a byte that is not UTF-8; whole characters are needed; mend the text"
        ) from None


def _named(wording: Wording, language: str) -> str:
    where = f", frames in {display_name(language)}" if wording.frames == "localized" else ""
    return f"{wording.template}{where}"


def _chat_template(path: str) -> str:
    """Of a Hugging Face folder; empty where it has none."""
    folder = find_folder(path, [CHAT_TEMPLATE, SETTINGS], where="MODEL", error=CheckpointError)
    template, file = folder / CHAT_TEMPLATE, folder / SETTINGS
    if template.is_file():
        try:
            return template.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{template}: {one_line(error)}; UTF-8 is needed; copy or download the file again"
            ) from None
    settings: Any = {}
    if file.is_file():
        try:
            settings = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{file}: broken JSON, {one_line(error)}; one whole JSON object is needed; copy or download "
                f"the file again"
            ) from None
    given = settings.get("chat_template") if isinstance(settings, dict) else None
    return given if isinstance(given, str) else ""


def _our_wordings() -> Iterator[tuple[Wording, str]]:
    """Every wording of ours with each language that its frames are in."""
    for template in ("alpaca", "short", "raw"):
        yield wording_of(template), "eng_Latn"
    localized = wording_of("alpaca", "localized")
    yield from ((localized, language) for language in localized.languages)


def is_run(name: str) -> bool:
    """Whether a name is that of a run's folder."""
    return is_bucket(name) or (Path(name) / "config.yaml").is_file()
