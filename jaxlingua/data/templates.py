"""Records to examples: the frame of a template around the texts of a record, and what is learned of it.

Three templates, each a set of frames in wording/frames.yaml: `alpaca` (the published scaffold), `short` (a
few bytes, for tiny models) and `raw` (none). The wording that fills them is in wording/translation.yaml and
wording/qa.yaml, or by language in wording/localized.yaml. Texts of a record go in as they are: nothing is
stripped, and braces in them mean nothing.

Where an answer begins, `short` and `raw` have a line break: tokenizers do not join it to what follows, so a
prompt alone has the tokens that it has in front of its answer. Alpaca's colon is kept as it was published.
"""

from collections.abc import Mapping
from typing import Any

from jaxlingua.data.example import Example
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.data.slots import fill
from jaxlingua.data.wordings import Wording
from jaxlingua.errors import DataError

Parts = list[tuple[str, bool]]  # text, and whether it is learned


def render(
    record: Record, wording: Wording, *, source: str, training: bool, direction: tuple[str, str] | None = None
) -> Example:
    """One example of a record. Translation needs `direction`, the source and the target language.

    A translation instruction is number `index` mod 33 (of localized ones, mod their number) in training and
    the first in evaluation, under templates that have no translation frame of their own. Of a question the
    first answer is learned, of a conversation every assistant turn; what follows the last one is left out.
    Plain text has no frame and is learned whole.

    Args:
        source: name of the mixture entry, or of the task in evaluation; it goes into the example.

    Raises: DataError naming source and record where `why_unusable` has a reason; ConfigError where frames are
        localized and the language of the answer has none.
    Example:
        >>> from jaxlingua.data.wordings import wording_of
        >>> short, options = wording_of("short"), {"source": "cldr", "training": True}
        >>> pair = Pair(0, {"eng_Latn": "in 2 days", "deu_Latn": "in 2 Tagen"})
        >>> example = render(pair, short, direction=("eng_Latn", "deu_Latn"), **options)
        >>> example.prompt, example.answer_texts, example.language
        ('English to German\\nin 2 days\\n', ('in 2 Tagen',), 'deu_Latn')
    """
    reason = why_unusable(record, direction)
    if reason:
        raise DataError(
            f"{source} (record {record.index}): {reason}; an example needs a prompt and an answer; "
            f"mend the record or leave it out"
        )
    language = direction[1] if isinstance(record, Pair) else record.language
    match record:
        case Instruction():
            prompt = framed(wording, record.instruction, record.input, language)
            parts = [(prompt, False), (record.output, True)]
        case Pair():
            prompt = _translation_prompt(wording, record, direction, variant=record.index if training else 0)
            parts = [(prompt, False), (record.texts[language], True)]
        case Question():
            parts = [(_question_prompt(wording, record), False), (record.answers[0], True)]
        case Conversation():
            parts = _chat_parts(wording.frames_of(language)["chat"], record.turns)
        case Text():
            parts = [(record.text, True)]
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


def framed(wording: Wording, instruction: str, given: str, language: str) -> str:
    """An instruction and its input, which may be empty, in the frame for an answer in `language`."""
    frames = wording.frames_of(language)
    if given.strip():
        return fill(frames["with_input"], {"instruction": instruction, "input": given})
    return fill(frames["without_input"], {"instruction": instruction})


def _translation_prompt(wording: Wording, pair: Pair, direction: tuple[str, str], variant: int) -> str:
    given, wanted = direction
    text, frames = pair.texts[given], wording.frames_of(wanted)
    if "translation" in frames:
        names = wording.names(frames["translation"], given, wanted)
        return fill(frames["translation"], {"input": text, **names})
    instructions = wording.translation(wanted)
    instruction = instructions[variant % len(instructions)]
    return framed(wording, fill(instruction, wording.names(instruction, given, wanted)), text, wanted)


def _question_prompt(wording: Wording, question: Question) -> str:
    texts = {"context": question.context, "question": question.question}
    frames = wording.frames_of(question.language)
    if "qa" in frames:
        return fill(frames["qa"], texts)
    words = wording.qa(question.language)
    return framed(wording, words["instruction"], fill(words["input"], texts), question.language)


def opening(frames: Mapping[str, str], first_turn: str) -> str:
    """What stands before a conversation; Alpaca's frame tells whether there is an input."""
    has_input = "input_mark" in frames and frames["input_mark"] in first_turn
    return frames["opening_with_input" if has_input else "opening"]


def _chat_parts(frames: Mapping[str, Any], turns: tuple[tuple[str, str], ...]) -> Parts:
    last = max(number for number, (role, _) in enumerate(turns) if role == "assistant")
    parts: Parts = [] if turns[0][0] == "system" else [(opening(frames, turns[0][1]), False)]
    for role, text in turns[: last + 1]:
        if parts and parts[-1][1]:
            parts.append((frames["after_answer"], False))
        if role == "assistant":
            parts += [(frames["assistant"], False), (text, True)]
        else:
            parts.append((fill(frames[role], {"text": text}), False))
    return parts


def _example(source: str, index: int, language: str, parts: Parts) -> Example:
    answers, end = [], 0
    for text, learned in parts:
        start, end = end, end + len(text)
        if learned:
            answers.append((start, end))
    return Example(source, index, language, "".join(text for text, _ in parts), tuple(answers))
