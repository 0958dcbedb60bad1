"""From answers and their frozen vectors to all that is told."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlingua.analysis.values.answers import Answer, check_answers, counts_of
from jaxlingua.analysis.values.encoder import Scale, learn
from jaxlingua.analysis.values.identification import Labeled, identified
from jaxlingua.analysis.values.questions import CONTROLS, SETS, Question, held_out
from jaxlingua.analysis.values.shift import class_cosines, more_than, question_means, shift_of
from jaxlingua.analysis.values.views import Views, check_views

BATCH_ROWS = 64  # the paper's
FROZEN = "frozen"
Telling = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Learning:
    """How encoders learn.

    Attributes:
        mosts: λ of each encoder.
        samples: resamples behind intervals.
    """

    mosts: tuple[int, ...]
    steps: int
    seed: int
    masks_same_class: bool
    samples: int


class Table:
    """Answers as arrays.

    Attributes:
        classes: (model, language), in order.
        questions: ids; those of answers are their places.
    """

    def __init__(self, answers: Sequence[Answer], questions: Sequence[Question], seed: int):
        self.classes = list(dict.fromkeys((one.model, one.language) for one in answers))
        self.languages = list(dict.fromkeys(language for _, language in self.classes))
        ids = {question.id: place for place, question in enumerate(questions)}
        tests = held_out(questions, seed)
        sets = {question.id: question.set for question in questions}
        class_of = {one: place for place, one in enumerate(self.classes)}
        self.label: Int[np.ndarray, " answers"] = np.array(
            [class_of[one.model, one.language] for one in answers]
        )
        self.language: Int[np.ndarray, " answers"] = np.array(
            [self.languages.index(one.language) for one in answers]
        )
        self.question: Int[np.ndarray, " answers"] = np.array([ids[one.question] for one in answers])
        self.is_test: Bool[np.ndarray, " answers"] = np.array([one.question in tests for one in answers])
        self.set = np.array([sets[one.question] for one in answers])

    @property
    def learned_from(self) -> Bool[np.ndarray, " answers"]:
        return (self.set == "values") & ~self.is_test


def texts_of(answers: Sequence[Answer], questions: Sequence[Question]) -> list[str]:
    """What the frozen model reads of each answer: the English question and the answer in English."""
    asked = {question.id: question.texts["eng_Latn"] for question in questions}
    return [f"Q: {asked[one.question]} A: {one.pivot}" for one in answers]


def check_measurable(answers: Sequence[Answer], questions: Sequence[Question], learning: Learning) -> None:
    """Refuse, before any vector is made, answers that nothing can be told of. Raises: DataError."""
    check_answers(answers, questions)
    table = Table(answers, questions, learning.seed)
    questions_of = {
        " · ".join(one): len(np.unique(table.question[table.learned_from & (table.label == label)]))
        for label, one in enumerate(table.classes)
    }
    check_views(questions_of, max(learning.mosts))


def measure(
    answers: Sequence[Answer],
    questions: Sequence[Question],
    frozen: Float[np.ndarray, "answers embed"],
    learning: Learning,
    telling: Telling,
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "answers size"]], Table]:
    """All numbers, the vectors that they are of by name, and the table of answers."""
    table = Table(answers, questions, learning.seed)
    centered = within_sets(frozen, table)
    scaled = Scale.of(centered[table.learned_from])(centered)
    vectors = {FROZEN: _unit(scaled)}
    losses = {}
    for most in learning.mosts:
        views = Views(
            table.label[table.learned_from],
            most,
            BATCH_ROWS,
            learning.seed,
            table.question[table.learned_from],
        )
        with telling(f"learning, λ = {most}") as on_progress:
            encoder = learn(
                scaled[table.learned_from],
                views,
                steps=learning.steps,
                masks_same_class=learning.masks_same_class,
                on_progress=on_progress,
            )
        vectors[f"λ = {most}"] = _unit(within_sets(encoder(scaled), table))
        losses[f"λ = {most}"] = encoder.loss
    identification: list[dict[str, Any]] = []
    distances: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    for name, of in vectors.items():
        with telling(f"measuring, {name}"):
            for told, labels in _targets(table).items():
                # The probe is of vectors whose dimensions are alike; neighbors see directions alone.
                rows = identified(
                    _labeled(table, scaled if name == FROZEN else of, labels),
                    samples=learning.samples,
                    seed=learning.seed,
                )
                identification += [{"vectors": name, "told": told, **row} for row in rows]
            distances += [_distances(table, name, of, set_name) for set_name in SETS]
            shifts += _shifts(table, name, of, learning)
    content = {
        "classes": counts_of(answers),
        "questions": {
            name: {
                "asked": int(np.unique(table.question[table.set == name]).size),
                "held_out": int(np.unique(table.question[(table.set == name) & table.is_test]).size),
            }
            for name in SETS
        },
        "encoder": {
            "lambda": list(learning.mosts),
            "steps": learning.steps,
            "seed": learning.seed,
            "mask_same_class": learning.masks_same_class,
            "loss": losses,
        },
        "interval": {"method": "bootstrap over held-out questions", "samples": learning.samples},
        "identification": identification,
        "distances": distances,
        "shifts": shifts,
    }
    return content, vectors, table


def within_sets(
    vectors: Float[np.ndarray, "answers embed"], table: Table
) -> Float[np.ndarray, "answers embed"]:
    """Vectors without what the training answers of their own set have in common, in float64.

    Sets are about different things. With the mean of values taken from all, unit vectors of a control, which
    lies off that mean, would be near to each other, and the same movement would look smaller there.
    """
    found = vectors.astype(np.float64)
    for name in SETS:
        here = table.set == name
        if (known := here & ~table.is_test).any():
            found[here] -= found[known].mean(axis=0)
    return found


def _unit(x: Float[np.ndarray, "answers embed"]) -> Float[np.ndarray, "answers embed"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def _targets(table: Table) -> dict[str, Int[np.ndarray, " answers"]]:
    """What is told of an answer: its class, and its language alone where that is something else."""
    found = {"model and language": table.label}
    if 1 < len(table.languages) < len(table.classes):
        found["language"] = table.language
    return found


def _labeled(
    table: Table, of: Float[np.ndarray, "answers embed"], labels: Int[np.ndarray, " answers"]
) -> dict[str, Labeled]:
    return {
        name: Labeled(of[here], labels[here], table.question[here], table.is_test[here])
        for name in SETS
        for here in [table.set == name]
    }


def _distances(
    table: Table, name: str, of: Float[np.ndarray, "answers embed"], set_name: str
) -> dict[str, Any]:
    here = (table.set == set_name) & table.is_test
    cosines = class_cosines(of[here], table.label[here], len(table.classes))
    told = [[round(float(one), 6) if np.isfinite(one) else None for one in row] for row in cosines]
    return {"vectors": name, "set": set_name, "cosines": told}


def _shifts(
    table: Table, name: str, of: Float[np.ndarray, "answers embed"], learning: Learning
) -> list[dict[str, Any]]:
    """Of each later model against the first, in each language that both answered in."""
    rows = []
    first = table.classes[0][0]
    for model, language in table.classes:
        if model == first or (first, language) not in table.classes:
            continue
        found = {}
        for set_name in SETS:
            here = (table.set == set_name) & table.is_test
            labels = [table.classes.index((who, language)) for who in (first, model)]
            sides = [here & (table.label == label) for label in labels]
            asked = sorted(set(table.question[sides[0]]) & set(table.question[sides[1]]))
            if len(asked) < 2:
                continue
            before, after = (question_means(of[side], table.question[side], asked) for side in sides)
            found[set_name] = shift_of(before, after, samples=learning.samples, seed=learning.seed)
        about = {"vectors": name, "language": language, "before": first, "after": model}
        for set_name, shift in found.items():
            row: dict[str, Any] = {**about, "set": set_name, **shift.told._asdict(), "noise": shift.noise}
            row["questions"] = shift.questions
            rows.append(row | {"values_more_by": _more(found, set_name)})
    return rows


def _more(found: Mapping[str, Any], set_name: str) -> dict[str, Any] | None:
    """How much more values moved than a control."""
    if set_name not in CONTROLS or "values" not in found:
        return None
    return more_than(found["values"], found[set_name])._asdict()
