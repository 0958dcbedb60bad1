"""Text that is not what its language says: a look at some records of each source, whatever filters are set.

Each text is counted once, under the first of: the same as another side, garbled (UTF-8 that was read in
another encoding), in another script, in another language. What the filters that are used here find of faults,
and in clean text, is measured in docs/filters.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pycountry
import regex

from jaxlingua import identify
from jaxlingua.data.filters import other_language, other_script, same_sides
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, RecordSource, Text
from jaxlingua.languages import find_language

LOOKED_AT = 500  # texts of each source and language, at equal distances
CHARACTERS = 600  # of each text
SCRIPT = 0.5  # of the letters
LANGUAGE = 0.9  # probability of another one
SAME_CHARACTERS = 20  # of a side that is told to be a copy: names are the same in many languages

# UTF-8 of two, three and four bytes as Latin-1 or Windows-1252 shows it; and what stands for broken bytes.
# Without ß and what follows it in two bytes: a closing quote does so in German, rightly.
_REST = r"[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_GARBLED = regex.compile(rf"[Â-Þ]{_REST}|[à-ï]{_REST}{{2}}|[ð-ô]{_REST}{{3}}|\ufffd")

GARBLED = "garbled: not read in its encoding"

Sides = dict[str, str]


def describe_faults(source: RecordSource) -> list[dict[str, Any]]:
    """What is wrong with the texts of each language, as a share of those that are looked at.

    Pairs are looked at in all languages, instructions and conversations by their answers, questions by their
    contexts. Another language is told only where the identifier knows the one that it should be.

    Cost: about 0.2 s for each language, and a second to load the identifier.
    """
    records = source.records("train") or source.records("held_out")
    looked_at: Counter[str] = Counter()
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for sides, languages in _looked_at(records):
        first = source.languages[0]
        for language in languages:
            looked_at[language] += 1
            for fault, check in _checks(first).items():
                if detail := check(sides, language):
                    found.setdefault((language, fault), []).append((detail, sides[language]))
                    break
    return [
        {
            "language": language,
            "fault": Counter(detail for detail, _ in cases).most_common(1)[0][0],
            "texts": len(cases),
            "looked at": looked_at[language],
            "share of texts": len(cases) / looked_at[language],
            "example": cases[0][1],
        }
        for (language, _), cases in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _looked_at(records: Sequence[Record]) -> Iterator[tuple[Sides, Iterable[str]]]:
    """Texts by language with those of the languages that are to be looked at, some of each language."""
    by_languages: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        languages = tuple(record.texts) if isinstance(record, Pair) else (record.language,)
        by_languages.setdefault(languages, []).append(record)
    for languages, some in by_languages.items():
        for record in islice(some, 0, None, max(1, -(-len(some) // LOOKED_AT))):
            sides = {language: text[:CHARACTERS] for language, text in _texts(record).items() if text.strip()}
            yield sides, [language for language in languages if language in sides]


def _texts(record: Record) -> Sides:
    match record:
        case Pair():
            return record.texts
        case Instruction():
            return {record.language: record.output}
        case Question():
            return {record.language: record.context}
        case Conversation():
            return {record.language: "\n".join(said for role, said in record.turns if role == "assistant")}
        case Text():
            return {record.language: record.text}


def _checks(first: str) -> dict[str, Callable[[Sides, str], str]]:
    """What is told of the text of a language, by fault; empty where there is nothing to tell."""
    return {"same": partial(_same, first), "garbled": _garbled, "script": _script, "language": _language}


def _same(first: str, sides: Sides, language: str) -> str:
    if language == first or first not in sides or len(sides[language]) < SAME_CHARACTERS:
        return ""
    return f"the same as {_name(first)}" if same_sides([first, language], sides) else ""


def _garbled(sides: Sides, language: str) -> str:
    return GARBLED if _GARBLED.search(sides[language]) else ""


def _script(sides: Sides, language: str) -> str:
    if not other_script(SCRIPT, {language: sides[language]}):
        return ""
    script = pycountry.scripts.get(alpha_4=identify.main_script(sides[language]))
    return f"in {script.name.partition(' (')[0]} letters"


def _language(sides: Sides, language: str) -> str:
    finding = other_language(LANGUAGE, {language: sides[language]})
    if finding is None:
        return ""
    code = finding.detail.split()[0]
    known = pycountry.languages.get(alpha_3=code)
    return known.name.partition(" (")[0] if known else code


def _name(code: str) -> str:
    known = find_language(code)
    return known.name if known else code
