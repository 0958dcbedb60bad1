"""What is asked of a model to translate a field, and what its answers become.

Fields are translated in the parts that `protect.parts` makes of them. A part that holds code, placeholders
or addresses is asked for whole first, and accepted if all of them come back byte for byte and in order; else
what stands between them is asked for by itself. So no answer of any model can lose or change one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxlingua import identify
from jaxlingua.data.protect import Part, agree, around, count_protected, parts, spans, unprotected
from jaxlingua.eval.metrics.off_target import verdict

EMPTY = "empty answer"
CUT = "cut by generate.max_new_tokens"
LINES = "more than one line"
TOO_LONG = "too long for the model"
LANGUAGE = "wrong language"
UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a part became, always one line, and what is wrong with it."""

    text: str
    problems: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Field:
    """A field in the target language.

    Attributes:
        asked: parts of it that were asked for; 0 where there was nothing to translate.
        protected: code blocks and protected spans in it.
        split: parts that were asked for again between their protected spans.
        told: whether it is in the target language: on, off, undecided; empty where nothing was asked for.
    """

    text: str
    problems: tuple[str, ...] = ()
    asked: int = 0
    protected: int = 0
    split: int = 0
    told: str = ""


Ask = Callable[[Sequence[str]], Mapping[str, Reply]]


def reply_of(answer: str, *, is_finished: bool) -> Reply:
    """An answer as one line: its first that is not blank. A part is of one line, so that the others are more.

    Example:
        >>> reply_of("\\n Hallo!\\n\\nHello!", is_finished=True)
        Reply(text='Hallo!', problems=frozenset({'more than one line'}))
    """
    lines = [line for line in answer.split("\n") if line.strip()]
    problems = {EMPTY: not lines, LINES: len(lines) > 1, CUT: len(lines) < 2 and not is_finished}
    return Reply(lines[0].strip() if lines else "", frozenset(name for name, has in problems.items() if has))


def translate_texts(texts: Iterable[str], ask: Ask, direction: tuple[str, str]) -> dict[str, Field]:
    """The translation of each text. What stands in several of them is asked for once.

    Args:
        ask: gives the reply to each of some different parts; called twice at most.
    """
    whole = {text: parts(text) for text in dict.fromkeys(texts)}
    replies = ask(_asked(whole.values()))
    split = {text: around(text) for text in replies if spans(text) and not agree(text, replies[text].text)}
    between = ask(_asked(split.values())) if split else {}
    replies = dict(replies) | {text: _joined(pieces, between) for text, pieces in split.items()}
    return {text: _field(text, of, replies, split, direction) for text, of in whole.items()}


def _asked(texts: Iterable[Sequence[Part]]) -> list[str]:
    return list(dict.fromkeys(part.text for of in texts for part in of if part.is_asked))


def _joined(pieces: Sequence[Part], replies: Mapping[str, Reply]) -> Reply:
    found = [replies[piece.text] if piece.is_asked else Reply(piece.text) for piece in pieces]
    return Reply("".join(one.text for one in found), frozenset().union(*(one.problems for one in found)))


def _field(
    text: str,
    of: Sequence[Part],
    replies: Mapping[str, Reply],
    split: Mapping[str, Any],
    direction: tuple[str, str],
) -> Field:
    whole, asked = _joined(of, replies), [part.text for part in of if part.is_asked]
    if not asked:
        return Field(text, protected=count_protected(text))
    told, problems = _language(whole.text, direction), set(whole.problems)
    if told == "off":
        problems.add(LANGUAGE)
    if whole.text == text and TOO_LONG not in problems:
        problems.add(UNCHANGED)
    again = sum(part in split for part in asked)
    return Field(whole.text, tuple(sorted(problems)), len(asked), count_protected(text), again, told)


def _language(text: str, direction: tuple[str, str]) -> str:
    """By the rule of off-target rates, of all that is not protected."""
    left = unprotected(text)
    return verdict(left, direction[1], direction[0]) if identify.letters(left) else "undecided"
