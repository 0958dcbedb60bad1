"""Entries whose examples are drawn anew in every pass: what is drawn how often, and what it looks like.

Also the sentences that entries of any kind are made of.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlingua.data.example import Example
from jaxlingua.data.objectives import directions_of
from jaxlingua.data.records import Pair, RecordSource
from jaxlingua.data.redrawn import Drawn, Objectives
from jaxlingua.tokens.describe import shortened
from jaxlingua.tokens.stages import Stage

TAKEN = 2000  # slots, at equal distances, that frequencies and fertility are told of
SHOWN_SLOTS = 3
DRAWS = 4  # of each slot that is shown
SHOWN_CHARACTERS = 1000  # of what is given, and of an answer


def drawn_entries(stage: Stage) -> Mapping[str, Objectives]:
    """The entries of a stage whose examples are drawn anew."""
    return stage.examples.redrawn


def sentences(objectives: Objectives) -> Iterator[tuple[str, str]]:
    """(language, sentence) of some records: what examples are made of, where answers may be "yes" or "no"."""
    languages = dict.fromkeys(language for way in objectives.ways for language in way)
    for record in _spread(len(objectives.sentences), TAKEN):
        texts = objectives.sentences[record]
        yield from ((language, texts[language]) for language in languages if texts.get(language))


def translated(stage: Stage, sources: Mapping[str, RecordSource]) -> Iterator[tuple[str, str]]:
    """(language, sentence) of some training records of the entries that are translated from that language."""
    for name, entry in stage.config.mixture.items():
        source = sources.get(name if entry.source == "auto" else entry.source)
        if source is None or name in stage.examples.redrawn or entry.task == "text":
            continue
        records = source.records("train")
        languages = dict.fromkeys(first for first, _ in directions_of(entry, source.languages))
        for place in _spread(len(records), TAKEN):
            if isinstance(record := records[place], Pair):
                yield from (
                    (language, text) for language in languages if (text := record.texts.get(language))
                )


def describe_draws(stage: Stage) -> list[dict[str, Any]]:
    """Of each entry that is drawn anew the frequencies of what is drawn, and several draws of some slots.

    Cost: about 0.3 s for each entry.
    """
    told = []
    for entry, objectives in drawn_entries(stage).items():
        draws = [objectives.drawn(slot, 0) for slot in _spread(len(objectives), TAKEN)]
        told.append(
            {
                "entry": entry,
                "slots": len(objectives),
                "draws": len(draws),
                "frequencies": _frequencies(draws),
                "samples": [_sample(objectives, slot) for slot in _spread(len(objectives), SHOWN_SLOTS)],
            }
        )
    return told


def _frequencies(draws: Sequence[Drawn]) -> list[dict[str, Any]]:
    """How often each objective, and what is drawn within them, each as a share of its kind."""
    kinds = {
        "objective": Counter(draw.objective for draw in draws),
        "answer": Counter(draw.label for draw in draws if draw.label),
        "other sentence": Counter(draw.negative for draw in draws if draw.negative),
        "noise": Counter(" + ".join(draw.recipe) for draw in draws if draw.recipe),
    }
    return [
        {"drawn": kind, "which": which, "draws": count, "share": count / counts.total()}
        for kind, counts in kinds.items()
        for which, count in sorted(counts.items())
    ]


def _sample(objectives: Objectives, slot: int) -> dict[str, Any]:
    drawn = [objectives.drawn(slot, number) for number in range(DRAWS)]
    return {
        "record": drawn[0].example.index,
        "draws": [
            {
                "objective": draw.objective,
                "language": draw.example.language,
                "parts": list(_parts(draw.example)),
            }
            for draw in drawn
        ],
    }


def _parts(example: Example) -> Iterator[tuple[bool, str]]:
    """Text that is learned and text that is not, in turn."""
    done = 0
    for start, end in example.answers:
        if done < start:
            yield False, shortened(example.text[done:start], SHOWN_CHARACTERS)
        yield True, shortened(example.text[start:end], SHOWN_CHARACTERS)
        done = end
    if done < len(example.text):
        yield False, shortened(example.text[done:], SHOWN_CHARACTERS)


def _spread(count: int, most: int) -> range:
    return range(0, count, max(1, -(-count // most)))
