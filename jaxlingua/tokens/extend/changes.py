"""What becomes of text that the old tokenizer knew, when new pieces stand behind its own."""

import datetime
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from babel import Locale

from jaxlingua.data.cldr import MOMENTS, UNITS, Day, Moment, Quantity, all_words, missing_parts
from jaxlingua.data.wordings import OURS
from jaxlingua.languages import cldr_locale
from jaxlingua.tokens.interface import Encoding, Tokenizer

SHOWN = 10  # examples
_AT_ONCE = 4096  # texts
_AROUND = 20  # characters of an example on each side


@dataclass(frozen=True)
class Change:
    """The first place of a text where it has other tokens than before."""

    text: str  # with some characters before and behind
    before: tuple[str, ...]  # pieces there
    after: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """How much of old text has other tokens than before, counted by encoding it twice."""

    texts: int
    changed_texts: int
    tokens_before: int
    tokens_after: int
    changed_tokens: int  # of tokens_before, those that are no longer there
    examples: tuple[Change, ...]  # of the first `SHOWN` changed texts


def changes_of(old: Tokenizer, new: Tokenizer, texts: Sequence[str]) -> Changes:
    """Which tokens of texts are others with the new tokenizer than with the old one.

    Cost: two encodings of the texts, some 2 MB a second.
    """
    before, after = old.encode_batch(texts), new.encode_batch(texts)
    changed_tokens, changed = 0, []
    for text, was, now in zip(texts, before, after, strict=True):
        if was.ids.tolist() != now.ids.tolist():
            changed_tokens += (Counter(_tokens(was)) - Counter(_tokens(now))).total()
            changed.append((text, was, now))
    return Changes(
        texts=len(texts),
        changed_texts=len(changed),
        tokens_before=sum(len(encoding.ids) for encoding in before),
        tokens_after=sum(len(encoding.ids) for encoding in after),
        changed_tokens=changed_tokens,
        examples=tuple(_first_change(*each, old, new) for each in changed[:SHOWN]),
    )


def ids_in(tokenizer: Tokenizer, texts: Sequence[str]) -> set[int]:
    """The ids that texts are written with. Cost: an encoding, some thousand texts at a time."""
    found: set[int] = set()
    for start in range(0, len(texts), _AT_ONCE):
        for encoding in tokenizer.encode_batch(texts[start : start + _AT_ONCE]):
            found.update(encoding.ids.tolist())
    return found


def _tokens(encoding: Encoding) -> list[tuple[int, int, int]]:
    return [
        (int(number), int(start), int(end))
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]


def _first_change(text: str, was: Encoding, now: Encoding, old: Tokenizer, new: Tokenizer) -> Change:
    before, after = _tokens(was), _tokens(now)
    same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    before, after = before[same:], after[same:]
    ends = {end for _, _, end in before} & {end for _, _, end in after}
    until = min(ends, default=len(text))
    start = min(before[0][1], after[0][1])
    return Change(
        text=text[max(0, start - _AROUND) : until + _AROUND],
        before=tuple(old.name_piece(number) for number, _, end in before if end <= until),
        after=tuple(new.name_piece(number) for number, _, end in after if end <= until),
    )


def own_old_texts(excluding: Collection[str] = ()) -> list[str]:
    """Text of jaxlingua's own in some sixty languages: frames, instructions, and phrases from Unicode CLDR.

    It stands for old text where nobody gives any: what a model is asked in, and everyday words.

    Args:
        excluding: languages that are new, whose text is left out; "eng_Latn" takes English with it.
    Cost: some 5 s, most of it for CLDR.
    """
    english, by_language = [], {}
    for path in sorted(OURS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem in ("localized", "cldr"):
            for language, wording in content.items():
                by_language.setdefault(language, []).extend(_strings(wording))
        else:
            english += _strings(content)
    by_language.setdefault("eng_Latn", []).extend(english)
    for language in all_words():
        by_language[language] += _phrases(language)
    return [
        text for language, texts in by_language.items() if language not in excluding for text in texts if text
    ]


def _strings(content: Any) -> Iterator[str]:
    """All texts of a file of wording."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _strings(part)


def _phrases(language: str) -> list[str]:
    """Some fifty phrases in a language: units, relative times, the months."""
    locale = Locale.parse(cldr_locale(language))
    if missing_parts(locale):
        return []
    phrases = [Quantity(n, unit) for unit in UNITS for n in (1, 37)]
    phrases += [Moment(5, unit, is_future=is_future) for unit in MOMENTS for is_future in (True, False)]
    phrases += [Day(datetime.date(2023, month, 17)) for month in range(1, 13)]
    return [phrase.text(locale) for phrase in phrases]
