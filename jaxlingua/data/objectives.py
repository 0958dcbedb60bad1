"""InstructAlign's objectives: examples that are drawn anew in every pass, from sentences and translations.

Denoising, translation, denoising with the translation as context, and whether two sentences mean the same
(arXiv 2305.13627: MLM, MT, TLM, XSS). Which objective, template, noise and label are drawn depends on (seed,
stage, entry, pass, record, direction) alone: not on order, workers, or what was drawn before.

`faithful` reproduces the released code with its faults. The whole text is learned, without a frame or an EOS;
bilingual denoising has the names of the two languages swapped; noise comes as words joined by spaces; two
sentences that "do not mean the same" are a translation with noise on both sides; rows are held out, whose
sentences are in other rows.
"""

import functools
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from jaxlingua.config import MixtureEntry
from jaxlingua.data.counts import LEAKING, Count
from jaxlingua.data.example import Example
from jaxlingua.data.mismatches import Mismatches, mismatches_of
from jaxlingua.data.noise import draw_recipe, noised, noised_as_released
from jaxlingua.data.records import Pair, Record, RecordSource, Text
from jaxlingua.data.released import released_split
from jaxlingua.data.slots import fill, parse_slots
from jaxlingua.data.templates import framed, why_unusable
from jaxlingua.data.wordings import Wording
from jaxlingua.errors import DataError
from jaxlingua.languages import display_name
from jaxlingua.words import segment

NOISE_TRIES = 8  # for noise that must change a sentence
_PROMPTS_TO_LEARN = 1000
_CACHED_SENTENCES = 1 << 15  # some 80 MB of words

Way = tuple[str, ...]  # source and target language, or the one language that is denoised

_segmented = functools.lru_cache(_CACHED_SENTENCES)(segment)


class Drawn(NamedTuple):
    """An example with what was drawn for it; "" and () where an objective draws none."""

    example: Example
    objective: str
    template: int
    recipe: tuple[str, ...] = ()
    label: str = ""
    negative: str = ""


class _Filled(NamedTuple):
    """What goes into a template, the language of the answer, and what was drawn."""

    slots: dict[str, str]
    language: str
    recipe: tuple[str, ...] = ()
    label: str = ""
    negative: str = ""


@dataclass(frozen=True, eq=False)
class Objectives:
    """The examples of a mixture entry that has objectives; `objectives_of` makes it. It can be pickled.

    Attributes:
        indices, sentences: of each record its index, and its sentences by language.
        slots: for each slot the record's place in `sentences` and the way's in `ways`.
        negatives: kinds and the sums of their probabilities up to each.
        counts: slots by the language of the way's end, those that there are and those that are dropped.
        languages: those in which an answer can be.
        fingerprint: hash of all that decides what is drawn.
    """

    name: str
    stage: str
    seed: int
    faithful: bool
    wording: Wording
    objectives: tuple[str, ...]
    negatives: tuple[tuple[str, ...], tuple[float, ...]]
    indices: tuple[int, ...]
    sentences: tuple[Mapping[str, str], ...]
    ways: tuple[Way, ...]
    slots: Int64[np.ndarray, "slots 2"]
    mismatches: Mismatches | None
    counts: Mapping[str, Count]
    languages: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.slots)

    def draw(self, slot: int, number: int) -> Example:
        """The example of a slot in pass `number` over the entry, counted from 0.

        Cost: 0.1 ms.
        """
        return self.drawn(slot, number).example

    def drawn(self, slot: int, number: int) -> Drawn:
        """The same example, with what was drawn for it."""
        record, place = self.slots[slot].tolist()
        way, index = self.ways[place], self.indices[record]
        random = _random_of((self.seed, self.stage, self.name, number, index, way))
        objective = _one_of(self.objectives, random)
        templates = self.wording.objectives[objective]
        chosen = int(random.random() * len(templates))
        filled = _FILL[objective](self, record, way, random)
        example = self._example(index, templates[chosen], filled)
        return Drawn(example, objective, chosen, filled.recipe, filled.label, filled.negative)

    def texts(self) -> Iterator[str]:
        """Every sentence once, and the prompts of some draws: what a tokenizer is learned on."""
        languages = dict.fromkeys(language for way in self.ways for language in way)
        for texts in self.sentences:
            yield from (texts[language] for language in languages if texts.get(language))
        for slot in range(0, len(self), -(-len(self) // _PROMPTS_TO_LEARN)):
            example = self.draw(slot, 0)
            yield example.prompt or example.text

    # ── one function per objective: what goes into its template ───────────────────────────────────────────

    def _denoising(self, record: int, way: Way, random: Random) -> _Filled:
        language, text = way[0], self.sentences[record][way[0]]
        recipe = draw_recipe(random)
        noise = self._noised(text, recipe, random)
        names = {"source_language": display_name(language)}
        return _Filled({**names, "source_text": noise, "target_text": text}, language, recipe)

    def _translation(self, record: int, way: Way, random: Random) -> _Filled:
        return _Filled(self._pair(record, way), way[1])

    def _bilingual_denoising(self, record: int, way: Way, random: Random) -> _Filled:
        context, text = (self.sentences[record][language] for language in way)
        recipe = draw_recipe(random)
        noise = self._noised(text, recipe, random)
        context_language, language = way if not self.faithful else reversed(way)
        slots = {
            "source_text": noise,
            "source_language": display_name(language),
            "context": context,
            "context_language": display_name(context_language),
            "target_text": text,
        }
        return _Filled(slots, way[1], recipe)

    def _similarity(self, record: int, way: Way, random: Random) -> _Filled:
        slots, recipe, negative = self._pair(record, way), (), ""
        label = "same" if random.random() < 0.5 else "different"
        if label == "different" and self.faithful:
            recipe, negative = draw_recipe(random), "noised"
            for side in ("source_text", "target_text"):
                slots[side] = noised_as_released(slots[side], recipe, random)
        elif label == "different":
            kinds, bounds = self.negatives
            negative = kinds[bisect_right(bounds, random.random())]
            if negative == "noised":
                recipe, slots["target_text"] = self._changed(record, way, random)
            else:
                slots["target_text"] = self.mismatches.draw(negative, record, way, random)
        slots["label"] = self.wording.labels[label]
        return _Filled(slots, way[1], recipe, label, negative)

    def _pair(self, record: int, way: Way) -> dict[str, str]:
        texts, (source, target) = self.sentences[record], way
        return {
            "source_language": display_name(source),
            "target_language": display_name(target),
            "source_text": texts[source],
            "target_text": texts[target],
        }

    def _noised(self, text: str, recipe: Sequence[str], random: Random) -> str:
        if self.faithful:
            return noised_as_released(text, recipe, random)
        return noised(_segmented(text), recipe, random)

    def _changed(self, record: int, way: Way, random: Random) -> tuple[tuple[str, ...], str]:
        """The target sentence with noise that changes it, or a mismatch if no noise does."""
        recipe, text = draw_recipe(random), self.sentences[record][way[1]]
        for _ in range(NOISE_TRIES):
            changed = noised(_segmented(text), recipe, random)
            if not self.mismatches.means_the_same(record, way, changed):
                return recipe, changed
        return recipe, self.mismatches.draw("random", record, way, random)

    def _example(self, index: int, template: str, filled: _Filled) -> Example:
        if self.faithful:
            text = fill(template, filled.slots)
            return Example(self.name, index, filled.language, text, ((0, len(text)),), ends=False)
        *parts, (last, answer), _ = parse_slots(template)
        asked = "".join(literal + filled.slots[slot] for literal, slot in parts) + last.rstrip()
        prompt = framed(self.wording, asked, "", filled.language)
        text = prompt + filled.slots[answer]
        return Example(self.name, index, filled.language, text, ((len(prompt), len(text)),))


_FILL: dict[str, Callable[[Objectives, int, Way, Random], _Filled]] = {
    "denoising": Objectives._denoising,
    "translation": Objectives._translation,
    "bilingual_denoising": Objectives._bilingual_denoising,
    "similarity": Objectives._similarity,
}


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
        records: those of the split that the entry selects. With `faithful` all of the source, since rows are
            held out then, not sentences: `released_split` says which.
        leaking: indices of records that must not be used.
    Raises: DataError naming the entry where records are not what an objective needs, or none is left;
        ConfigError where frames are localized and a language has none.
    Cost: 3 s for a million pairs, and 10 s more with similarity.
    """
    where = f"stage '{stage}', mixture.{name}"
    wanted = tuple(entry.drawn_objectives())
    _check(where, entry, source, records, wanted)
    ways = _ways(entry, source, wanted)
    counts: dict[str, Count] = {}
    indices, texts, slots = [], [], []
    for record in sorted(records, key=lambda record: record.index):
        usable = False
        for number, way in enumerate(ways):
            if isinstance(record, Text) and record.language != way[0]:
                continue
            reason = LEAKING if record.index in leaking else _why_unusable(record, way)
            counts.setdefault(way[-1], Count()).add(reason)
            if not reason:
                usable = True
                slots.append((len(texts), number))
        if usable:
            indices.append(record.index)
            texts.append(record.texts if isinstance(record, Pair) else {record.language: record.text})
    if not slots:
        reasons = sorted({reason for count in counts.values() for reason in count.dropped})
        raise DataError(
            f"{where}: no record of source '{source.name}' can be used "
            f"({', '.join(reasons) or 'there is none'}); each needs its sentences; mend the source or take "
            f"the entry out"
        )
    chosen = np.array(slots, np.int64)
    if faithful:
        chosen = chosen[released_split(len(chosen))[split == "held_out"]]
    judged = "similarity" in wanted and not faithful
    kinds = [kind for kind in ("random", "hard", "noised") if kind in entry.negatives]
    weights = [entry.negatives[kind] for kind in kinds]
    bounds = [total / sum(weights) for total in accumulate(weights)][:-1]
    answers = {way[-1] for way in ways if set(wanted) != {"denoising"}}
    answers |= {way[0] for way in ways if "denoising" in wanted}
    if not faithful:
        for language in answers:
            wording.frames_of(language)
    said = repr((stage, name, seed, faithful, split, wanted, kinds, bounds, ways, source.fingerprint))
    fingerprint = hashlib.sha256(f"{said} {wording.fingerprint} {indices} {len(chosen)}".encode()).hexdigest()
    return Objectives(
        name,
        stage,
        seed,
        faithful,
        wording,
        wanted,
        (tuple(kinds), tuple(bounds)),
        tuple(indices),
        tuple(texts),
        ways,
        chosen,
        mismatches_of(texts, indices, ways, where) if judged else None,
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


def _one_of(names: Sequence[str], random: Random) -> str:
    return names[int(random.random() * len(names))]


def _random_of(key: tuple) -> Random:
    """The random numbers of one draw."""
    return Random(int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big"))
