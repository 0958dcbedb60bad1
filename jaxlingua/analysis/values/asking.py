"""Questions into each language, answers by each model, answers into English; all on disk as soon as known."""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlingua.analysis.values.answers import Answer
from jaxlingua.analysis.values.questions import PIVOT, Question
from jaxlingua.errors import DataError
from jaxlingua.eval.translate.fields import TOO_LONG, Field, Reply, reply_of, translate_texts
from jaxlingua.generate import framing
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.journal import Fields, Journal, read_answers

_KINDS = {"asked": str, "answer": str, "ended_by": str, "cut_prompt_tokens": int}
Telling = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Asking:
    """How everything is asked: what is in the journal is not asked again.

    Attributes:
        at_boundary: called after each answer; raises where all processes are to stop.
        problems: of translations, counted.
    """

    journal: Journal
    telling: Telling
    at_boundary: Callable[[], None]
    problems: Counter[str]

    def __call__(
        self, asked: Mapping[str, framing.Question], open_asker: Callable[[], Asker], what: str
    ) -> dict[str, Fields]:
        """The answer to each question by its name; `open_asker` reads weights, where one is missing."""
        left = [name for name in asked if name not in self.journal.known]
        if left:
            asker = open_asker()

            def note(index: int, told: Told) -> None:
                fields = {"answer": told.text, "ended_by": told.ended_by}
                self.journal.note(left[index], fields | {"cut_prompt_tokens": told.cut_prompt_tokens})

            with self.telling(f"{what}: {len(left):,}") as on_progress:

                def progress(done: int, total: int) -> None:
                    on_progress(done, total)
                    self.at_boundary()

                asker.answers([asked[name] for name in left], on_progress=progress, on_answer=note)
        return {name: self.journal.known[name] for name in asked}

    def translated(
        self, texts: Sequence[str], direction: tuple[str, str], open_translator: Callable[[], Asker]
    ) -> dict[str, Field]:
        """Each text in the other language, as `jaxlingua.data translate` makes it; an empty one stays so."""
        route = "-".join(direction)

        def ask(parts: Sequence[str]) -> Mapping[str, Reply]:
            names = {part: f"{route} {hashlib.sha256(part.encode()).hexdigest()[:20]}" for part in parts}
            asked = {name: framing.Question(part, direction=direction) for part, name in names.items()}
            found = self(asked, open_translator, f"parts, {route}")
            return {part: _reply(part, found[name]) for part, name in names.items()}

        fields = translate_texts(texts, ask, direction)
        self.problems.update(problem for text in texts for problem in fields[text].problems)
        return fields


def _reply(part: str, told: Fields) -> Reply:
    if told["cut_prompt_tokens"]:
        return Reply(part, frozenset({TOO_LONG}))
    return reply_of(told["answer"], is_finished=told["ended_by"] != "length")


def ask_models(
    models: Mapping[str, Callable[[], Asker]],
    questions: Sequence[Question],
    languages: Sequence[str],
    samples: int,
    ask: Asking,
    open_translator: Callable[[], Asker] | None,
) -> list[Answer]:
    """`samples` answers of each model to each question in each language.

    Args:
        models: name → what reads its weights; one after the other.
        open_translator: None where each question is there in each language; then answers are their own pivot.
    Cost: models × languages × questions × samples answers, and as many translations but for English.
    """
    # Opened once for questions and once for answers, and let go between.
    opening = None if open_translator is None else functools.cache(open_translator)
    texts = {language: _in_language(language, questions, ask, opening) for language in languages}
    opening = None
    found: dict[tuple[str, str, str, int], str] = {}
    for model, open_asker in models.items():
        asked = {
            (model, language, question.id, sample): framing.Question(
                texts[language][question.id], language=language, repeat=sample
            )
            for language in languages
            for question in questions
            for sample in range(samples)
        }
        names = {key: json.dumps(key, ensure_ascii=False) for key in asked}
        told = ask({names[key]: one for key, one in asked.items()}, open_asker, f"{model}: answers")
        found |= {key: told[name]["answer"] for key, name in names.items()}
    pivots: dict[tuple[str, str], str] = {}
    opening = None if open_translator is None else functools.cache(open_translator)
    for language in languages:
        if opening is not None and language != PIVOT:
            given = [answer for (_, of, _, _), answer in found.items() if of == language]
            fields = ask.translated(given, (language, PIVOT), opening)
            pivots |= {(language, text): field.text for text, field in fields.items()}
    return [
        Answer(model, language, question, answer, pivots.get((language, answer), answer))
        for (model, language, question, _), answer in found.items()
    ]


def _in_language(
    language: str,
    questions: Sequence[Question],
    ask: Asking,
    open_translator: Callable[[], Asker] | None,
) -> dict[str, str]:
    """The wording of each question: its own, or a translation of the English one."""
    found = {question.id: question.texts[language] for question in questions if language in question.texts}
    left = {question.id: question.texts[PIVOT] for question in questions if question.id not in found}
    if left and open_translator is not None:
        fields = ask.translated(list(left.values()), (PIVOT, language), open_translator)
        # One that became nothing is asked in English, and is counted among the problems.
        found |= {name: fields[text].text.strip() or text for name, text in left.items()}
    return found


def known_answers(path: Path, fingerprint: str, say: Callable[[str], None]) -> dict[str, Fields]:
    """Answers of a journal. Raises: DataError for a damaged line that is not the last."""
    if not path.is_file():
        return {}
    lines = read_answers(path, _is_whole, is_journal=True, say=say)
    if next(lines, {}).get("model") != fingerprint:
        raise DataError(
            f"{path}: answers of other settings; those of this command are needed; remove {path.parent}"
        )
    return {line.pop("asked"): line for line in lines if "asked" in line}


def _is_whole(line: Fields) -> bool:
    return all(type(line.get(name)) is kind for name, kind in _KINDS.items())


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
