"""All that is told of the data in one value, which a terminal, a page and a file show."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxlingua.data.leaks import Leaks
from jaxlingua.data.records import RecordSource
from jaxlingua.data.replay import describe_replay
from jaxlingua.tokens.describe import (
    describe_left_out,
    describe_lengths,
    describe_rows,
    describe_source,
    describe_stage,
    estimated_columns,
    first_of_each,
    shortened,
)
from jaxlingua.tokens.draws import describe_draws, drawn_entries, sentences, translated
from jaxlingua.tokens.faults import describe_faults
from jaxlingua.tokens.fertility import describe_fertility
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.repeats import describe_repeats, describe_shared
from jaxlingua.tokens.stages import Stage
from jaxlingua.tokens.summary import summarize

SHOWN_ROWS = 8
SHOWN_DOCUMENTS = 24
SHOWN_LEAKS = 5


def describe_data(
    sources: Mapping[str, RecordSource],
    leaks: Leaks,
    stages: Sequence[Stage],
    tokenizer: Tokenizer,
    what: str,
) -> dict[str, Any]:
    """Everything there is to tell; `json` can write it with `default=asdict`.

    Args:
        what: the tokenizer's origin, such as "learned" or its path.
    Cost: some seconds, and half a minute for a million sentences.
    """
    facts = {
        "sources": [
            describe_source(source) | _repeats(source) | _faults(source) for source in sources.values()
        ],
        "leaks": {
            "told": leaks.describe(),
            "count": len(leaks.found),
            "examples": [asdict(leak) | {"text": shortened(leak.text)} for leak in leaks.found[:SHOWN_LEAKS]],
        },
        "shared": [
            row | {"example": shortened(row["example"])} for row in describe_shared(_answers_by_entry(stages))
        ],
        "tokenizer": {
            "what": what,
            "pieces": tokenizer.vocab_size,
            "begins with BOS": tokenizer.bos_id is not None,
        },
        "fertility": describe_fertility(_texts_by_language(stages, sources), tokenizer),
        "stages": [_stage(stage, tokenizer) for stage in stages],
    }
    told, warnings = summarize(facts)
    return {"summary": told, "warnings": warnings, **facts}


def _stage(stage: Stage, tokenizer: Tokenizer) -> dict[str, Any]:
    return describe_stage(stage) | {
        "estimated": estimated_columns(stage),
        "left out": describe_left_out(stage),
        "replay": [
            {"entry": entry, **row, "stratum": row["stratum"] or "none"}
            for entry, records in stage.examples.replay.items()
            for row in describe_replay(records)
        ],
        "lengths": describe_lengths(stage),
        "rows": describe_rows(stage, SHOWN_ROWS),
        "groups": len(stage.batches.group_names),
        "documents": first_of_each(stage, tokenizer, SHOWN_DOCUMENTS),
        "draws": describe_draws(stage),
    }


def _repeats(source: RecordSource) -> dict[str, Any]:
    told = describe_repeats(source)
    return told | {"repeated examples": [shortened(text) for text in told["repeated examples"]]}


def _faults(source: RecordSource) -> dict[str, Any]:
    return {"faults": [row | {"example": shortened(row["example"])} for row in describe_faults(source)]}


def _texts_by_language(stages: Sequence[Stage], sources: Mapping[str, RecordSource]) -> dict[str, list[str]]:
    """Answers, and the sentences of entries that are drawn anew.

    In languages in which nothing is learned, the sentences that are translated from them.
    """
    texts: dict[str, list[str]] = {}
    for stage in stages:
        for examples in stage.examples.by_entry.values():
            for example in examples:
                texts.setdefault(example.language, []).extend(example.answer_texts)
        for objectives in drawn_entries(stage).values():
            for language, sentence in sentences(objectives):
                texts.setdefault(language, []).append(sentence)
    given: dict[str, list[str]] = {}
    for stage in stages:
        for language, sentence in translated(stage, sources):
            given.setdefault(language, []).append(sentence)
    return given | texts


def _answers_by_entry(stages: Sequence[Stage]) -> dict[str, Iterator[str]]:
    """What each entry learns, under its own name; with the stage's before it where there are several."""
    answers: dict[str, Iterator[str]] = {}
    for stage in stages:
        before = f"{stage.config.name}: " if len(stages) > 1 else ""
        for entry, examples in stage.examples.by_entry.items():
            answers[before + entry] = (text for example in examples for text in example.answer_texts)
        for entry, objectives in drawn_entries(stage).items():
            answers[before + entry] = objectives.texts()
    return answers
