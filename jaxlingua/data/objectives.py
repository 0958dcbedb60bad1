"""InstructAlign's objectives: examples that are drawn anew in every pass, from sentences and translations.

Denoising, translation, denoising with the translation as context, and whether two sentences mean the same
(arXiv 2305.13627: MLM, MT, TLM, XSS). Which objective, template, noise and label are drawn depends on (seed,
stage, entry, pass, record, direction) alone: not on order, workers, or what was drawn before.

`faithful` reproduces the released code with its faults. The whole text is learned, without a frame or an EOS;
bilingual denoising has the names of the two languages swapped; noise comes as words joined by spaces; two
sentences that "do not mean the same" are a translation with noise on both sides; rows are held out, whose
sentences are in other rows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from jaxlingua.config import MixtureEntry
from jaxlingua.data.counts import LEAKING, Count
from jaxlingua.data.mismatches import mismatches_of
from jaxlingua.data.records import Pair, Record, RecordSource, Text
from jaxlingua.data.redrawn import Objectives, Way
from jaxlingua.data.released import released_split
from jaxlingua.data.templates import why_unusable
from jaxlingua.data.wordings import Wording
from jaxlingua.errors import DataError


def objectives_of(
    name: str,
    entry: MixtureEntry,
    source: RecordSource,
    records: Sequence[Record],
    *,
    stage: str,
    seed: int,
    wording: Wording,
    faithful: bool,
    leaking: frozenset[int] = frozenset(),
    split: Literal["train", "held_out"] = "train",
) -> Objectives:
    """The drawn examples of the entry `name`: a slot for each record in each direction.

    Where denoising is the only objective there is a slot for each record in each language. Half of the pairs
    that similarity is asked about are translations; the others have a sentence in place of the second one
    that, as far as the records tell, means something else.

    Args:
        records: those of the split that the entry selects. With `faithful` the same ones for both splits,
            since then rows are held out, not sentences: `released_split` says which.
        leaking: indices of records that must not be used.
    Returns: for training one slot or more; of what is held out there may be none.
    Raises: DataError naming the entry where records are not what an objective needs, or none is left;
        ConfigError where frames are localized and a language has none.
    Cost: 6 s for a million pairs, and 10 s more with similarity.
    """
    where = f"stage '{stage}', mixture.{name}"
    wanted = tuple(entry.drawn_objectives())
    _check(where, entry, source, records, wanted)
    ways = _ways(entry, source, wanted)
    answers = {way[-1] for way in ways if set(wanted) != {"denoising"}}
    answers |= {way[0] for way in ways if "denoising" in wanted}
    if not faithful:
        for language in answers:
            wording.frames_of(language)  # so that a missing one is told now
    indices, sentences, asked = _asked(records, ways, leaking)
    if faithful:
        rows = [row for row in asked if not row.dropped]
        for place in released_split(len(rows))[split == "train"].tolist():
            rows[place].dropped = "held out" if split == "train" else "learned"
    mismatches = None
    if "similarity" in wanted and not faithful:
        mismatches = mismatches_of(sentences, ways)
        lonely = [
            row for row in asked if (row.record, ways[row.way]) in mismatches.lonely and not row.dropped
        ]
        if lonely and split == "train":
            record, target = indices[lonely[0].record], ways[lonely[0].way][1]
            raise DataError(
                f"{where}: objective similarity given; record {record} has no sentence in {target} beside it "
                f"that means something else ({len(indices):,} records here); use more records, or objectives "
                f"without similarity"
            )
        for row in lonely:
            row.dropped = f"no other meaning in {ways[row.way][1]}"
    counts: dict[str, Count] = {}
    for row in asked:
        counts.setdefault(ways[row.way][-1], Count()).add(row.dropped)
    slots = [(row.record, row.way) for row in asked if not row.dropped]
    if not slots and split == "train":
        reasons = sorted({row.dropped for row in asked}) or ["there is none"]
        raise DataError(
            f"{where}: no record of source '{source.name}' can be used ({', '.join(reasons)}); each needs "
            f"its sentences; mend the source or take the entry out"
        )
    kinds = [kind for kind in ("random", "hard", "noised") if kind in entry.negatives]
    weights = [entry.negatives[kind] for kind in kinds]
    bounds = [total / sum(weights) for total in accumulate(weights)][:-1]
    said = repr((stage, name, seed, faithful, split, wanted, kinds, bounds, ways, indices))
    fingerprint = hashlib.sha256(f"{source.fingerprint} {wording.fingerprint} {said}".encode()).hexdigest()
    return Objectives(
        name,
        stage,
        seed,
        faithful,
        wording,
        wanted,
        (tuple(kinds), tuple(bounds)),
        indices,
        sentences,
        ways,
        np.array(slots, np.int64).reshape(-1, 2),
        mismatches,
        counts,
        tuple(sorted(answers)),
        fingerprint,
    )


def directions_of(entry: MixtureEntry, languages: Sequence[str]) -> list[tuple[str, str]]:
    """The directions of an entry; from and into the first language if it names none."""
    first, *others = languages
    return entry.directions() or [pair for other in others for pair in ((first, other), (other, first))]


def _ways(entry: MixtureEntry, source: RecordSource, wanted: Sequence[str]) -> tuple[Way, ...]:
    if set(wanted) != {"denoising"}:
        return tuple(directions_of(entry, source.languages))
    languages = source.languages if entry.language == "auto" else [entry.language]
    return tuple((language,) for language in languages)


@dataclass(slots=True)
class _Asked:
    """A record in a way, and why it gives no slot if it does not."""

    record: int
    way: int
    dropped: str


def _asked(
    records: Sequence[Record], ways: Sequence[Way], leaking: frozenset[int]
) -> tuple[tuple[int, ...], tuple[Mapping[str, str], ...], list[_Asked]]:
    """Indices and sentences of the records that may be used, in order, and every record in every way."""
    indices: list[int] = []
    sentences: list[Mapping[str, str]] = []
    asked = []
    for record in sorted(records, key=lambda record: record.index):
        leaks = record.index in leaking
        for number, way in enumerate(ways):
            if isinstance(record, Pair) or record.language == way[0]:
                dropped = LEAKING if leaks else _why_unusable(record, way)
                asked.append(_Asked(len(indices), number, dropped))
        if not leaks:
            indices.append(record.index)
            sentences.append(record.texts if isinstance(record, Pair) else {record.language: record.text})
    return tuple(indices), tuple(sentences), asked


def _why_unusable(record: Record, way: Way) -> str:
    if isinstance(record, Pair) and len(way) == 1:
        record = Text(record.index, way[0], record.texts.get(way[0], ""))
    return why_unusable(record, way if len(way) == 2 else None)


def _check(
    where: str, entry: MixtureEntry, source: RecordSource, records: Sequence[Record], wanted: Sequence[str]
) -> None:
    others = [objective for objective in wanted if objective != "denoising"]
    denoise = "write objectives: denoising"
    for record in records:
        if isinstance(record, Pair) or (isinstance(record, Text) and not others):
            continue
        if isinstance(record, Text):
            raise DataError(
                f"{where}.objectives: {others[0]} given; source '{source.name}' has text in one language, "
                f"which can only be denoised; {denoise}, or name a parallel source"
            )
        kind = type(record).__name__.lower()
        raise DataError(
            f"{where}.objectives: {wanted[0]} given; source '{source.name}' has records of kind {kind}, and "
            f"sentences are needed; name a source of parallel text, or of text and {denoise}"
        )
    if others and entry.language != "auto":
        raise DataError(
            f"{where}.language: '{entry.language}' given with objective {others[0]}, which has directions; "
            f"write direction: SOURCE-TARGET, or {denoise}"
        )
    if not others and entry.directions():
        raise DataError(
            f"{where}.direction: '{'-'.join(entry.directions()[0])}' given with denoising alone, which has "
            f"none; write language, or leave both out for all languages"
        )
