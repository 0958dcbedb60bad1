"""What a judge is asked, and what its reply says."""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

LOWEST, HIGHEST = 1, 10

Messages = list[dict[str, str]]

# Around a verdict models put Markdown, colons, spaces and tags of HTML.
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|br|code|h\d)\s*/?>", re.IGNORECASE)
_VERDICT = re.compile(r"(?<![^\W_])VERDICT[\W_]*(YES|NO)(?![^\W_])", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:not|never|cannot|no)\b|n['’]t\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;|\n]")
_SENTENCE_CHARACTERS = 400  # read on either side, so that long replies take no longer
# What may follow: nothing, a mark, a reason; but no other choice, as in "YES or NO" and "YES / NO".
_REASON = r"[\s_*`]{0,20}(?:because|since|as)\b"
_OTHER = re.compile(r"[\W_]{0,20}(?:YES|NO)\b|\s{0,20}[/|]\s{0,20}(?:yes|no)\b")
_AFTER_VERDICT = re.compile(rf"[ \t_*`]{{0,20}}(?:$|[^\w\s])|{_REASON}", re.IGNORECASE | re.MULTILINE)

_GRADE = re.compile(
    r"(?<![^\W_])(FIRST|SECOND)(?:\s+answer)?([\s:*_`=]*)"
    r"(-?\d+(?:[.,]\d+)?)(?:\s*(?:/|out\s+of)\s*10(?!\d))?",
    re.IGNORECASE,
)
_AFTER_GRADE = re.compile(
    r"[ \t_*`]{0,20}(?:$|[.,;!|)(\]](?!\d)|[-–—](?!\s*\d)"
    rf"|(?:and\b|&)?[\W_]{{0,20}}(?:FIRST|SECOND)\b)|{_REASON}",
    re.IGNORECASE | re.MULTILINE,
)


def ask_for_verdict(question: str, answer: str, targets: Sequence[str], language: str) -> Messages:
    """Whether one answer is right; `targets` are shown where there are any."""
    wording = _wording()
    listed = "\n".join(f"- {' '.join(target.split())}" for target in dict.fromkeys(targets))
    mark = _mark(question, answer, listed)
    accepted = wording["accepted"].format(targets=listed, mark=mark) if targets else ""
    text = wording["answer"].format(
        question=question, answer=answer, accepted=accepted, language=language, mark=mark
    )
    return [{"role": "user", "content": text}]


def ask_for_grades(question: str, first: str, second: str, language: str) -> Messages:
    """A grade for each of two answers."""
    mark = _mark(question, first, second)
    text = _wording()["pair"].format(
        question=question, first=first, second=second, language=language, mark=mark
    )
    return [{"role": "user", "content": text}]


def read_verdict(reply: str) -> bool | None:
    """The last verdict of a reply; None where there is none, or where the last one is not clear.

    A verdict begins a line or a sentence, and a mark or a reason may follow; or it ends one.

    Example:
        >>> read_verdict("Right, Cairo.\\n**VERDICT: YES**"), read_verdict("no."), read_verdict("Yes and no")
        (True, False, None)
    """
    reply = _HTML.sub("", reply)
    last: bool | None = None
    found = list(_VERDICT.finditer(reply))
    for match in found:
        before = _before(reply, match.start())
        is_clear = _AFTER_VERDICT.match(reply, match.end()) and not _OTHER.match(reply, match.end())
        if not _has_words(before):
            last = match[1].upper() == "YES" if is_clear else None
        elif not _NEGATED.search(before) and not _has_words(_after(reply, match.end())):
            last = match[1].upper() == "YES"
    alone = None if found else re.fullmatch(r"[\W_]*(YES|NO)[\W_]*", reply, re.IGNORECASE)
    return alone[1].upper() == "YES" if alone else last


def read_grades(reply: str) -> tuple[float, float] | None:
    """The last grades of the first and the second answer; None where either is missing or out of range.

    Example:
        >>> read_grades("Both fine.\\nFIRST: 8\\n**SECOND:** 6.5/10"), read_grades("FIRST: 8\\nSECOND: 11")
        ((8.0, 6.5), None)
    """
    reply = _HTML.sub("", reply)
    grades: dict[str, float | None] = {}
    end = 0
    for match in _GRADE.finditer(reply):
        before = re.sub(r"\band\b", "", _before(reply, match.start(), end))
        if _has_words(before):
            continue
        if _AFTER_GRADE.match(reply, match.end()):
            grade = float(match[3].replace(",", "."))
            grades[match[1].upper()] = grade if LOWEST <= grade <= HIGHEST else None
        elif set(match[2]) & set(":="):
            grades[match[1].upper()] = None
        end = match.end()
    first, second = grades.get("FIRST"), grades.get("SECOND")
    return None if first is None or second is None else (first, second)


def _before(text: str, place: int, start: int = 0) -> str:
    """The part of a sentence in front of a place, from `start` on."""
    return _SENTENCE_END.split(text[max(start, place - _SENTENCE_CHARACTERS) : place])[-1]


def _after(text: str, place: int) -> str:
    """The rest of a line."""
    return text[place : place + _SENTENCE_CHARACTERS].partition("\n")[0]


def _has_words(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None


def _mark(*texts: str) -> str:
    """Ends the tags around texts: the same for the same texts, and not known to who wrote one of them."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]


def version_of(kind: str, *, shows_targets: bool = False) -> str:
    """Names the wording in signatures: its version and a hash of its text."""
    wording = _wording()
    text = wording[kind] + (wording["accepted"] if shows_targets else "")
    return f"{kind}{wording['version']}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@functools.cache
def _wording() -> dict:
    return yaml.safe_load(Path(__file__).with_name("wording.yaml").read_text(encoding="utf-8"))
