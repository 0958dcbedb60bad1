"""Text that is there more than once: within a source, and in several entries of the mixtures.

Texts are compared as for leaks: after `normalize`, which folds Unicode forms, case, punctuation and space.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlingua.data.leaks import normalize
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, RecordSource, Text
from jaxlingua.words import segment

EXAMPLES = 3
SHARED_PAIRS = 10
SENTENCE_WORDS = 6  # punctuation marks are words
_READ = 200  # characters that tell whether there are so many


def describe_repeats(source: RecordSource) -> dict[str, Any]:
    """How many training records of a source say the same as an earlier one, in all their texts.

    Cost: about 14 s for a million sentences, and 100 MB.
    """
    seen: set[int] = set()
    repeated, examples = 0, []
    for record in source.records("train"):
        texts = _texts(record)
        key = hash(tuple(normalize(text) for text in texts))
        if key in seen:
            repeated += 1
            if len(examples) < EXAMPLES:
                examples.append(" · ".join(text for text in texts if text))
        seen.add(key)
    return {"repeated": repeated, "repeated examples": examples}


def describe_shared(answers: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Which entries learn the same text, and how much of it; those that share most come first.

    A text counts once in an entry however often it is there. It is shared if it is as long as a sentence, of
    `SENTENCE_WORDS` or more: two corpora may well have "2 km" in common.

    Args:
        answers: what each entry learns.
    Returns: at most `SHARED_PAIRS` pairs.
    Cost: about 14 s for a million sentences, and 120 MB.
    """
    holders: dict[int, tuple[str, ...]] = {}
    sizes: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for entry, texts in answers.items():
        for text in texts:
            key = normalize(text)
            before = holders.get(hash(key), ())
            if entry in before:
                continue
            holders[hash(key)] = (*before, entry)
            sizes[entry] += 1
            if not before or len(segment(text[:_READ]).words) < SENTENCE_WORDS:
                continue
            for other in before:
                together[other, entry] += 1
                examples.setdefault((other, entry), text)
    return [
        {
            "entry": first,
            "other entry": second,
            "texts": count,
            "share of entry": count / sizes[first],
            "share of other": count / sizes[second],
            "example": examples[first, second],
        }
        for (first, second), count in together.most_common(SHARED_PAIRS)
    ]


def _texts(record: Record) -> tuple[str, ...]:
    match record:
        case Pair():
            return tuple(text for _, text in sorted(record.texts.items()))
        case Question():
            return (record.context, record.question)
        case Instruction():
            return (record.instruction, record.input, record.output)
        case Conversation():
            return tuple(text for _, text in record.turns)
        case Text():
            return (record.text,)
