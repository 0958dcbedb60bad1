"""What is drawn for a slot of a mixture entry with objectives, and the example that comes of it.

See `objectives` for which slots there are, and for what `faithful` does.
"""

import functools
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from jaxlingua.data.counts import Count
from jaxlingua.data.example import Example
from jaxlingua.data.mismatches import Mismatches
from jaxlingua.data.noise import draw_recipe, noised, noised_as_released
from jaxlingua.data.slots import fill, parse_slots
from jaxlingua.data.templates import framed
from jaxlingua.data.wordings import Wording
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
        for slot in range(0, len(self), max(1, -(-len(self) // _PROMPTS_TO_LEARN))):
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
                negative, recipe, slots["target_text"] = self._changed(record, way, random)
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

    def _changed(self, record: int, way: Way, random: Random) -> tuple[str, tuple[str, ...], str]:
        """The target sentence with noise that changes it, or a mismatch if no noise does; and which it is."""
        recipe, text = draw_recipe(random), self.sentences[record][way[1]]
        for _ in range(NOISE_TRIES):
            changed = noised(_segmented(text), recipe, random)
            if not self.mismatches.means_the_same(record, way, changed):
                return "noised", recipe, changed
        return "random", (), self.mismatches.draw("random", record, way, random)

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


def _one_of(names: Sequence[str], random: Random) -> str:
    return names[int(random.random() * len(names))]


def _random_of(key: tuple) -> Random:
    """The random numbers of one draw."""
    return Random(int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big"))
