"""What the stages show the model, in numbers and samples: for the console, data.json and the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from jaxlingua.data.records import RecordSource
from jaxlingua.data.redrawn import Objectives
from jaxlingua.tokens.batches import GroupCount, StageBatches
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.rows import Batch
from jaxlingua.tokens.stages import Stage
from jaxlingua.tokens.store import Counts, Group

HISTOGRAM_BINS = 16
SEARCHED_ROWS = 1024  # for a document of each entry and language
SHOWN_PIECES = 60  # at each end of a longer part that is learned, or is not
SHOWN_CHARACTERS = 300  # of a piece, or of a text that is told as an example
_NOT_SHOWN = GroupCount(0, 0, 0, 0.0, 0.0, 0.0)


def describe_source(source: RecordSource) -> dict[str, Any]:
    """What was read of a source."""
    return {
        "name": source.name,
        "languages": list(source.languages),
        "train": len(source.records("train")),
        "held_out": len(source.records("held_out")),
        "skipped": dict(source.skipped),
        "skipped examples": {
            reason: [shortened(text) for text in texts]
            for reason, texts in getattr(source, "dropped_examples", {}).items()
        },
        "fingerprint": source.fingerprint,
    }


def describe_stage(stage: Stage) -> dict[str, Any]:
    """Length, use and realised mixture of a stage; also entries in languages of which nothing was left.

    Documents of an entry that is drawn anew are those that its slots give in one pass, on average. Columns
    that are estimates are named by `estimated_columns`.
    """
    batches = stage.batches
    seen, made = batches.describe(), stage.examples.counts
    lost: dict[Group, list[str]] = {}
    for row in describe_left_out(stage):
        lost.setdefault((row["entry"], row["language"]), []).append(f"{row['examples']:,} {row['reason']}")
    rows = []
    entries = list(dict.fromkeys(entry for entry, _ in made))
    for entry, language in sorted(dict.fromkeys([*made, *seen]), key=lambda group: entries.index(group[0])):
        shown = seen.get((entry, language), _NOT_SHOWN)
        kept, times = _kept(stage, entry, language)
        records = made[entry, language].examples if (entry, language) in made else 0
        if (
            entry in stage.examples.redrawn
        ):  # with slots that end in other languages, and are answered in this
            there = made[entry, language].kept if (entry, language) in made else 0
            records += round(times * kept.examples) - there
        rows.append(
            {
                "entry": entry,
                "language": language,
                "records": records,
                "left out": ", ".join(lost.get((entry, language), [])) or "nothing",
                "documents": round(times * kept.documents) if kept else 0,
                "cut": round(times * kept.cut_documents) if kept else 0,
                "tokens cut": round(times * kept.cut_tokens) if kept else 0,
                "passes": round(shown.epochs, 3),
                "documents seen": shown.documents,
                "share of documents": round(shown.share_of_documents, 4),
                "tokens seen": shown.tokens,
                "target tokens seen": shown.target_tokens,
                "share of target tokens": round(shown.share_of_target_tokens, 4),
            }
        )
    seen_rows = batches.steps * batches.batch_rows
    return {
        "name": stage.config.name,
        "steps": batches.steps,
        "epochs": round(batches.epochs, 3),
        "batch_rows": batches.batch_rows,
        "row_length_tokens": batches.row_length_tokens,
        "use": round(batches.use, 4),
        "documents per row": round(sum(row["documents seen"] for row in rows) / seen_rows, 3),
        "mixture": rows,
        "directions": [
            {"entry": entry, "source": source, "target": target}
            for entry in entries
            for source, target in _directions(stage, entry)
        ],
    }


def _directions(stage: Stage, entry: str) -> list[tuple[str, str]]:
    """Source and target language of the translations of an entry; none of other tasks."""
    redrawn = stage.examples.redrawn.get(entry)
    if redrawn is None:
        return stage.examples.directions.get(entry, [])
    return [way for way in redrawn.ways if len(way) == 2]


def estimated_columns(stage: Stage) -> list[str]:
    """The columns of the mixture that are estimates from the first window; all others are exact."""
    if isinstance(stage.batches, StageBatches):
        return []
    columns = ["passes", "documents seen", "share of documents", "tokens seen", "target tokens seen"]
    columns.append("share of target tokens")
    if stage.examples.redrawn:
        columns += ["cut", "tokens cut"]
    for entry, language in stage.batches.group_names:
        kept, _ = _kept(stage, entry, language)
        if entry in stage.examples.redrawn and kept.documents < kept.examples:
            return ["left out", "documents", *columns]
    return columns


def describe_left_out(stage: Stage) -> list[dict[str, Any]]:
    """The examples of each entry and language that became no document, by reason, and out of how many."""
    rows = []
    for entry, language in dict.fromkeys([*stage.examples.counts, *stage.batches.group_names]):
        made, (kept, times) = stage.examples.counts.get((entry, language)), _kept(stage, entry, language)
        reasons = [(why, count, made.examples) for why, count in made.dropped.items()] if made else []
        if kept:
            too_long, without_target = kept.dropped_too_long, kept.dropped_without_target
            reasons += [
                (why, round(times * count), round(times * kept.examples))
                for why, count in (("too long", too_long), ("without target", without_target))
            ]
        rows += [
            {"entry": entry, "language": language, "reason": why, "examples": count, "of": of}
            for why, count, of in reasons
            if count
        ]
    return rows


def _kept(stage: Stage, entry: str, language: str) -> tuple[Counts | None, float]:
    """What became of the examples of a group, and how many each of them stands for.

    Those of fixed text are all there; None where there is none. Of entries that are drawn anew, the first
    window has some.
    """
    numbered = stage.batches.corpus
    counts = numbered.stores[numbered.entries.index(entry)].counts if entry in numbered.entries else {}
    if entry not in stage.examples.redrawn:
        return counts.get((entry, language)), 1.0
    expected = _drawn_in_a_pass(stage.examples.redrawn[entry]).get(language, 0.0)
    drawn = counts.get((entry, language))
    if not drawn or not drawn.examples:
        drawn = Counts(1, 1, 0, 0, 0, 0, 0, 0, 0)  # as if all were kept
    return drawn, expected / drawn.examples


def _drawn_in_a_pass(objectives: Objectives) -> dict[str, float]:
    """Examples by language of the answer that one pass over an entry has on average.

    Every objective is drawn as often; denoising answers in the language that a slot begins with, the others
    in that which it ends with.
    """
    denoised = objectives.objectives.count("denoising") / len(objectives.objectives)
    expected: dict[str, float] = {}
    for way, slots in enumerate(np.bincount(objectives.slots[:, 1], minlength=len(objectives.ways)).tolist()):
        for language, share in (
            (objectives.ways[way][0], denoised),
            (objectives.ways[way][-1], 1 - denoised),
        ):
            expected[language] = expected.get(language, 0.0) + share * slots
    return expected


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


def describe_rows(stage: Stage, count: int) -> list[dict[str, Any]]:
    """The first rows of the stage: the positions that each segment takes, and those that stay empty."""
    rows = []
    for row in range(min(count, stage.batches.batch_rows)):
        batch = stage.batches.batch(0, row, row + 1)
        segments = []
        for segment in range(1, int(batch.segments.max()) + 1):
            places = batch.segments[0] == segment
            entry, language = stage.batches.group_names[batch.groups[0, places][0]]
            segments.append(
                {
                    "entry": entry,
                    "language": language,
                    "positions": int(places.sum()),
                    "learned": int(batch.target_mask[0, places].sum()),
                }
            )
        rows.append({"row": row + 1, "segments": segments, "empty": int((batch.segments[0] == 0).sum())})
    return rows


def first_documents(stage: Stage, tokenizer: Tokenizer, count: int) -> list[ShownDocument]:
    """The first documents of the stage's first batch, in the order of rows and segments."""
    places = ((batch, row, segment) for _, batch, row, segment in _places(stage, stage.batches.batch_rows))
    return [_shown(stage, tokenizer, *place) for place in islice(places, count)]


def first_of_each(stage: Stage, tokenizer: Tokenizer, count: int) -> list[ShownDocument]:
    """The first document of each entry and language, of those that come within `SEARCHED_ROWS` rows."""
    shown: dict[int, ShownDocument] = {}
    for group, batch, row, segment in _places(stage, SEARCHED_ROWS):
        if len(shown) == min(count, len(stage.batches.group_names)):
            break
        if group not in shown:
            shown[group] = _shown(stage, tokenizer, batch, row, segment)
    return list(shown.values())


def _places(stage: Stage, rows: int) -> Iterator[tuple[int, Batch, int, int]]:
    """Group, batch of one row, row and segment of each document of the first rows, row by row."""
    batch_rows = stage.batches.batch_rows
    for row in range(min(rows, stage.batches.steps * batch_rows)):
        batch = stage.batches.batch(row // batch_rows, row % batch_rows, row % batch_rows + 1)
        segments, firsts = np.unique(batch.segments[0], return_index=True)
        for segment, first in zip(segments.tolist(), firsts.tolist(), strict=True):
            if segment:
                yield int(batch.groups[0, first]), batch, row + 1, segment


def _shown(stage: Stage, tokenizer: Tokenizer, batch: Batch, row: int, segment: int) -> ShownDocument:
    places = np.flatnonzero(batch.segments[0] == segment)
    tokens = [int(batch.tokens[0, places[0]]), *map(int, batch.targets[0, places])]
    learned = [False, *map(bool, batch.target_mask[0, places])]
    entry, language = stage.batches.group_names[batch.groups[0, places[0]]]
    return ShownDocument(row, segment, entry, language, tuple(_pieces(tokens, learned, tokenizer)))


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


def parts(document: ShownDocument) -> Iterator[tuple[bool, list[Piece]]]:
    """What is learned and what is not, in turn; a long part loses its middle, of which one piece tells."""
    for learned, group in groupby(document.pieces, key=lambda piece: piece.learned):
        pieces = list(group)
        if len(pieces) > 2 * SHOWN_PIECES:
            middle = sum(piece.tokens for piece in pieces[SHOWN_PIECES:-SHOWN_PIECES])
            left_out = Piece("", 0, learned, f"{middle:,} tokens")
            pieces = [*pieces[:SHOWN_PIECES], left_out, *pieces[-SHOWN_PIECES:]]
        yield learned, pieces


def shortened(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """A text without its middle where it is longer than `characters`.

    >>> shortened("a" * 1000).count("a"), shortened("short")
    (299, 'short')
    """
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]}…{text[1 - half :]}"


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
