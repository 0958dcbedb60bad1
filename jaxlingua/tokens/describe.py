"""What the stages show the model, in numbers and samples: for the console, data.json and the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlingua.data.records import RecordSource
from jaxlingua.tokens.batches import GroupCount
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage

HISTOGRAM_BINS = 16
FERTILITY_TEXTS = 2000
_NOT_SHOWN = GroupCount(0, 0, 0, 0.0, 0.0, 0.0)


def describe_source(source: RecordSource) -> dict[str, Any]:
    """What was read of a source."""
    return {
        "name": source.name,
        "languages": list(source.languages),
        "train": len(source.records("train")),
        "held_out": len(source.records("held_out")),
        "skipped": dict(source.skipped),
        "fingerprint": source.fingerprint,
    }


def describe_stage(stage: Stage) -> dict[str, Any]:
    """Length, use and realised mixture of a stage; also entries in languages of which nothing was left."""
    batches = stage.batches
    counts = {group: count for store in batches.corpus.stores for group, count in store.counts.items()}
    seen = batches.describe()
    rows = []
    for (entry, language), made in stage.examples.counts.items():
        shown, kept = seen.get((entry, language), _NOT_SHOWN), counts.get((entry, language))
        left_out = dict(made.dropped)
        if kept:
            left_out |= {"too long": kept.dropped_too_long, "without target": kept.dropped_without_target}
        rows.append(
            {
                "entry": entry,
                "language": language,
                "records": made.examples,
                "left out": ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
                or "nothing",
                "documents": kept.documents if kept else 0,
                "cut": kept.cut_documents if kept else 0,
                "tokens cut": kept.cut_tokens if kept else 0,
                "passes": round(shown.epochs, 3),
                "documents seen": shown.documents,
                "share of documents": round(shown.share_of_documents, 4),
                "target tokens seen": shown.target_tokens,
                "share of target tokens": round(shown.share_of_target_tokens, 4),
            }
        )
    return {
        "name": stage.config.name,
        "steps": batches.steps,
        "epochs": round(batches.epoch(batches.steps), 3),
        "batch_rows": batches.batch_rows,
        "row_length_tokens": batches.row_length_tokens,
        "use": round(batches.use, 4),
        "mixture": rows,
    }


def describe_lengths(stage: Stage) -> list[dict[str, Any]]:
    """Tokens of the documents of each entry and language, BOS and EOS included, after what was cut.

    `histogram` counts documents in equal bins from 0 to the longest that a row holds.
    """
    corpus = stage.batches.corpus
    longest = stage.batches.row_length_tokens + 1
    rows = []
    for number, (entry, language) in enumerate(corpus.group_names):
        tokens = corpus.lengths[corpus.groups == number] + 1
        if not len(tokens):
            continue
        median, most = np.quantile(tokens, (0.5, 0.9), method="inverted_cdf")
        rows.append(
            {
                "entry": entry,
                "language": language,
                "shortest": int(tokens.min()),
                "median": int(median),
                "90 %": int(most),
                "longest": int(tokens.max()),
                "histogram": np.histogram(tokens, HISTOGRAM_BINS, (0, longest))[0].tolist(),
            }
        )
    return rows


def describe_fertility(stages: Sequence[Stage], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """How many tokens the learned text of each language takes, per character and per UTF-8 byte.

    Not per word, which Chinese or Thai do not mark. A character is a code point. Of more than
    `FERTILITY_TEXTS` answers in a language, so many are taken at equal distances.
    """
    answers: dict[str, list[str]] = {}
    for stage in stages:
        for examples in stage.examples.by_entry.values():
            for example in examples:
                answers.setdefault(example.language, []).extend(example.answer_texts)
    rows = []
    for language, texts in sorted(answers.items()):
        taken = texts[:: -(-len(texts) // FERTILITY_TEXTS)]
        tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(taken, continuation=True))
        characters, size = sum(map(len, taken)), sum(len(text.encode()) for text in taken)
        rows.append(
            {
                "language": language,
                "answers": len(taken),
                "characters": characters,
                "bytes": size,
                "tokens": tokens,
                "tokens per character": tokens / characters,
                "tokens per byte": tokens / size,
            }
        )
    return rows


# ── samples ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that make whole characters; nearly always one.

    `text` of BOS and EOS is empty, and `control` says which it is.
    """

    text: str
    tokens: int
    learned: bool
    control: str = ""


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document as it lies in a row; `row` and `segment` are counted from 1."""

    row: int
    segment: int
    entry: str
    language: str
    pieces: tuple[Piece, ...]


def first_documents(stage: Stage, tokenizer: Tokenizer, count: int) -> list[ShownDocument]:
    """The first documents of the stage's first batch, in the order of rows and segments."""
    shown: list[ShownDocument] = []
    for row in range(stage.batches.batch_rows):
        batch = stage.batches.batch(0, row, row + 1)
        for segment in range(1, int(batch.segments.max()) + 1):
            if len(shown) == count:
                return shown
            places = np.flatnonzero(batch.segments[0] == segment)
            tokens = [int(batch.tokens[0, places[0]]), *map(int, batch.targets[0, places])]
            learned = [False, *map(bool, batch.target_mask[0, places])]
            entry, language = stage.batches.group_names[batch.groups[0, places[0]]]
            pieces = tuple(_pieces(tokens, learned, tokenizer))
            shown.append(ShownDocument(row + 1, segment, entry, language, pieces))
    return shown


def sample_rows(stage: Stage, tokenizer: Tokenizer, count: int = 3) -> list[str]:
    """The first documents of the first batch as text, learned parts between 「 and 」."""
    samples = []
    for document in first_documents(stage, tokenizer, count):
        text, before = "", False
        for piece in document.pieces:
            text += "" if piece.learned == before else "「" if piece.learned else "」"
            text += visible(piece.text)
            before = piece.learned
        samples.append(text + ("」" if before else ""))
    return samples


def visible(text: str) -> str:
    """Text in one line, with a sign in place of each control character.

    >>> visible("a\\n\\tb\\x1b[31m")
    'a⏎⇥b␛[31m'
    """
    signs = {"\n": "⏎", "\t": "⇥", "\x7f": "␡"}
    return "".join(signs.get(c) or (chr(0x2400 + ord(c)) if c < " " else c) for c in text)


def _pieces(tokens: list[int], learned: list[bool], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Tokens as text, a few at a time where only several make a character.

    A token is decoded behind the piece before it: alone, a first token loses the space that it begins with.
    """
    control = {tokenizer.eos_id: "EOS", tokenizer.bos_id: "BOS"}
    before = start = 0  # where the piece before, and the one that is being gathered, begin
    for place, token in enumerate(tokens):
        end = place + 1
        if token in tokenizer.control_ids:
            yield Piece("", 1, learned[place], control.get(token, str(token)))
            start = end
            continue
        text = tokenizer.decode(tokens[before:end])[len(tokenizer.decode(tokens[before:start])) :]
        is_last = end == len(tokens) or tokens[end] in tokenizer.control_ids or learned[end] != learned[place]
        if is_last or (text and not text.endswith("\ufffd")):
            yield Piece(text, end - start, learned[place])
            before, start = start, end
