"""Records to examples: the frame of a template around the texts of a record, and what is learned of it.

Three templates, each a set of frames in wording/frames.yaml: `alpaca` (the published scaffold), `short` (a
few bytes, for tiny models) and `raw` (none). The wording that fills them is in wording/translation.yaml and
wording/qa.yaml. Texts of a record go in as they are: nothing is stripped, and braces in them mean nothing.

Where an answer begins, `short` and `raw` have a line break: tokenizers do not join it to what follows, so a
prompt alone has the tokens that it has in front of its answer. Alpaca's colon is kept as it was published.
"""

import functools
from importlib import resources
from typing import Any

import yaml

from jaxlingua.data.example import Example
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import DataError
from jaxlingua.languages import display_name

Parts = list[tuple[str, bool]]  # text, and whether it is learned


def render(
    record: Record, template: str, *, source: str, training: bool, direction: tuple[str, str] | None = None
) -> Example:
    """One example of a record. Translation needs `direction`, the source and the target language.

    A translation instruction is number `index` mod 33 in training and the first in evaluation, under
    templates that have no translation frame of their own. Of a question the first answer is learned, of a
    conversation every assistant turn; what follows the last one is left out. Plain text has no frame and is
    learned whole.

    Args:
        source: name of the mixture entry, or of the task in evaluation; it goes into the example.

    Raises: DataError naming source and record where `why_unusable` has a reason.
    Example:
        >>> pair = Pair(0, {"eng_Latn": "in 2 days", "deu_Latn": "in 2 Tagen"})
        >>> example = render(pair, "short", source="cldr", training=True, direction=("eng_Latn", "deu_Latn"))
        >>> example.prompt, example.answer_texts, example.language
        ('English to German\\nin 2 days\\n', ('in 2 Tagen',), 'deu_Latn')
    """
    reason = why_unusable(record, direction)
    if reason:
        raise DataError(
            f"{source} (record {record.index}): {reason}; an example needs a prompt and an answer; "
            f"mend the record or leave it out"
        )
    frames = wording("frames")[template]
    match record:
        case Instruction():
            parts = [(_frame(frames, record.instruction, record.input), False), (record.output, True)]
            language = record.language
        case Pair():
            prompt = _translation_prompt(frames, record, direction, variant=record.index if training else 0)
            parts, language = [(prompt, False), (record.texts[direction[1]], True)], direction[1]
        case Question():
            parts = [(_question_prompt(frames, record), False), (record.answers[0], True)]
            language = record.language
        case Conversation():
            parts, language = _chat_parts(frames["chat"], record.turns), record.language
        case Text():
            parts, language = [(record.text, True)], record.language
    return _example(source, record.index, language, parts)


def why_unusable(record: Record, direction: tuple[str, str] | None = None) -> str:
    """Why a record gives no example, or "" where it gives one. White space alone counts as empty."""
    match record:
        case Instruction():
            if not (record.instruction.strip() or record.input.strip()):
                return "empty instruction"
            return "" if record.output.strip() else "empty answer"
        case Pair():
            for language in direction:
                if not record.texts.get(language, "").strip():
                    return f"no text in {language}"
            return ""
        case Question():
            if not (record.question.strip() and record.context.strip()):
                return "empty question or context"
            return "" if record.answers and record.answers[0].strip() else "empty answer"
        case Conversation():
            answers = [text for role, text in record.turns if role == "assistant"]
            if not answers:
                return "no assistant turn"
            return "" if all(answer.strip() for answer in answers) else "empty answer"
        case Text():
            return "" if record.text.strip() else "empty text"


def translation_instructions() -> tuple[str, ...]:
    """The 33 wordings, with the slots {source_language} and {target_language}."""
    return tuple(wording("translation"))


@functools.cache
def wording(name: str) -> Any:
    """The content of wording/<name>.yaml."""
    file = resources.files("jaxlingua.data").joinpath(f"wording/{name}.yaml")
    return yaml.safe_load(file.read_text("utf-8"))


def framed(template: str, instruction: str, given: str) -> str:
    """An instruction and its input, which may be empty, in the frame of a template; an answer may follow."""
    return _frame(wording("frames")[template], instruction, given)


def _frame(frames: dict, instruction: str, given: str) -> str:
    if given.strip():
        return frames["with_input"].format(instruction=instruction, input=given)
    return frames["without_input"].format(instruction=instruction)


def _translation_prompt(frames: dict, pair: Pair, direction: tuple[str, str], variant: int) -> str:
    names = {"source_language": display_name(direction[0]), "target_language": display_name(direction[1])}
    text = pair.texts[direction[0]]
    if "translation" in frames:
        return frames["translation"].format(input=text, **names)
    wordings = translation_instructions()
    return _frame(frames, wordings[variant % len(wordings)].format(**names), text)


def _question_prompt(frames: dict, question: Question) -> str:
    texts = {"context": question.context, "question": question.question}
    if "qa" in frames:
        return frames["qa"].format(**texts)
    words = wording("qa")
    return _frame(frames, words["instruction"], words["input"].format(**texts))


def opening(frames: dict, first_turn: str) -> str:
    """What stands before a conversation; Alpaca's frame tells whether there is an input."""
    has_input = "input_mark" in frames and frames["input_mark"] in first_turn
    return frames["opening_with_input" if has_input else "opening"]


def _chat_parts(frames: dict, turns: tuple[tuple[str, str], ...]) -> Parts:
    last = max(number for number, (role, _) in enumerate(turns) if role == "assistant")
    parts: Parts = [] if turns[0][0] == "system" else [(opening(frames, turns[0][1]), False)]
    for role, text in turns[: last + 1]:
        if parts and parts[-1][1]:
            parts.append((frames["after_answer"], False))
        if role == "assistant":
            parts += [(frames["assistant"], False), (text, True)]
        else:
            parts.append((frames[role].format(text=text), False))
    return parts


def _example(source: str, index: int, language: str, parts: Parts) -> Example:
    answers, end = [], 0
    for text, learned in parts:
        start, end = end, end + len(text)
        if learned:
            answers.append((start, end))
    return Example(source, index, language, "".join(text for text, _ in parts), tuple(answers))
