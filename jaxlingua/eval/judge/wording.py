"""What a judge is asked, and what its reply says."""

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

LOWEST, HIGHEST = 1, 10

Messages = list[dict[str, str]]

# Around a verdict models put Markdown, colons and spaces.
_VERDICT = re.compile(r"[\W_]*VERDICT[\W_]*(YES|NO)[\W_]*", re.IGNORECASE)
_GRADE = r"[\W_]*{side}[\s:*_`=]*(-?\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s*_`.]*"
_FIRST, _SECOND = (re.compile(_GRADE.format(side=side), re.IGNORECASE) for side in ("FIRST", "SECOND"))


def ask_for_verdict(question: str, answer: str, targets: Sequence[str], language: str) -> Messages:
    """Whether one answer is right; `targets` are shown where there are any."""
    wording = _wording()
    listed = "\n".join(f"- {' '.join(target.split())}" for target in dict.fromkeys(targets))
    accepted = wording["accepted"].format(targets=listed) if targets else ""
    text = wording["answer"].format(question=question, answer=answer, accepted=accepted, language=language)
    return [{"role": "user", "content": text}]


def ask_for_grades(question: str, first: str, second: str, language: str) -> Messages:
    """A grade for each of two answers."""
    text = _wording()["pair"].format(question=question, first=first, second=second, language=language)
    return [{"role": "user", "content": text}]


def read_verdict(reply: str) -> bool | None:
    """The last verdict of a reply; None where there is none.

    Example:
        >>> read_verdict("Right, Cairo.\\n**VERDICT: YES**"), read_verdict("no."), read_verdict("Yes and no")
        (True, False, None)
    """
    found = [match[1] for line in reply.splitlines() if (match := _VERDICT.fullmatch(line.strip()))]
    alone = re.fullmatch(r"[\W_]*(YES|NO)[\W_]*", reply, re.IGNORECASE)
    last = found[-1] if found else alone[1] if alone else ""
    return last.upper() == "YES" if last else None


def read_grades(reply: str) -> tuple[float, float] | None:
    """The grades of the first and the second answer; None where either is missing or out of range.

    Example:
        >>> read_grades("Both fine.\\nFIRST: 8\\n**SECOND:** 6.5/10"), read_grades("FIRST: 8\\nSECOND: 11")
        ((8.0, 6.5), None)
    """
    grades = []
    for side in (_FIRST, _SECOND):
        found = [match[1] for line in reply.splitlines() if (match := side.fullmatch(line.strip()))]
        if not found or not LOWEST <= float(found[-1]) <= HIGHEST:
            return None
        grades.append(float(found[-1]))
    return grades[0], grades[1]


def version_of(kind: str, *, shows_targets: bool = False) -> str:
    """Names the wording in signatures: its version and a hash of its text."""
    wording = _wording()
    text = wording[kind] + (wording["accepted"] if shows_targets else "")
    return f"{kind}{wording['version']}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@functools.cache
def _wording() -> dict:
    return yaml.safe_load(Path(__file__).with_name("wording.yaml").read_text(encoding="utf-8"))
