"""What the items of a task can be shown with, before anything of it is chosen."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from jaxlingua.config import InContextConfig
from jaxlingua.errors import DataError
from jaxlingua.eval.in_context.form import Form, Shown, same_text
from jaxlingua.eval.in_context.lines import FORMATS, Around, SentencePair, cell
from jaxlingua.eval.in_context.pool import Pool
from jaxlingua.eval.tasks.asked import Asked
from jaxlingua.languages import display_name


@dataclass(frozen=True)
class Context:
    """Items in the words of their prompt, and all that exemplars and alignments are chosen of.

    Attributes:
        task: key of the task, for errors.
        language: of the items.
        labels: of label alignment: each label as the prompt says it, and in the language of the items.
    """

    task: str
    kind: str
    language: str
    form: Form
    asked: tuple[Asked, ...]
    pool: Pool
    pairs: tuple[SentencePair, ...]
    labels: tuple[tuple[str, str], ...]
    config: InContextConfig
    seed: int

    @cached_property
    def items(self) -> list[Shown]:
        return [self.form.shown(each) for each in self.asked]

    @cached_property
    def exemplars(self) -> list[Shown]:
        """The records of the pool."""
        return [self.form.shown(each) for each in self.pool.records]

    @cached_property
    def is_itself(self) -> Bool[np.ndarray, "items pool"]:
        """Whether an exemplar is the item: by its id, its text, or as a translation by its answer."""
        same = np.zeros((len(self.items), len(self.exemplars)), bool)
        _mark(same, self._texts, [same_text(one.query) for one in self.exemplars])
        if self.pool.shares_ids:
            _mark(same, [[one.id] for one in self.items], [one.id for one in self.exemplars])
        if self.kind == "translation":
            _mark(same, self._answers, [same_text(one.answers[0]) for one in self.exemplars])
        return same

    @cached_property
    def is_pair_itself(self) -> Bool[np.ndarray, "items pairs"]:
        """Whether a sentence pair is the item, on either side, or as a translation its answer."""
        same = np.zeros((len(self.items), len(self.pairs)), bool)
        for side in zip(*self.pairs, strict=True):
            texts = [same_text(text) for text in side]
            _mark(same, self._texts, texts)
            if self.kind == "translation":
                _mark(same, self._answers, texts)
        return same

    @property
    def note(self) -> str:
        """How often something was the item itself, and is not shown with it."""
        counts = {
            "exemplars": int(self.is_itself.sum()),
            "sentence pairs": int(self.is_pair_itself.sum()),
        }
        return "; ".join(
            f"{count:,} {what} left out that are the item itself" for what, count in counts.items() if count
        )

    def check(self) -> None:
        """Refuse labels that say nothing, and too few records for an item. Raises: DataError."""
        for one in [*self.items, *self.exemplars]:
            if "" in (choice.strip() for choice in one.choices):
                raise DataError(
                    f"eval.in_context: {self.task} (item {one.id}): a label without text given; each needs "
                    f"some; change it in the task file or its prompts"
                )
        asked = self.config
        needed = [(self.is_itself, asked.count, f"count: {asked.count} given; '{self.pool.name}'")]
        if asked.exemplars == "none":
            needed = []
        if asked.needs_parallel:
            pairs = asked.align_count if asked.align in ("query", "both") else 1
            needed.append((self.is_pair_itself, pairs, f"align_count: {pairs} given; '{asked.parallel}'"))
        for is_itself, count, given in needed:
            left = int((~is_itself).sum(axis=1).min(initial=is_itself.shape[1]))
            if left < count:
                raise DataError(
                    f"eval.in_context.{given} has {left} beside an item of {self.task}; {count} are needed; "
                    f"ask for fewer, or name a larger split"
                )

    def prompt(self, item: Shown, exemplars: Sequence[Shown], pairs: Sequence[SentencePair]) -> str:
        """All that a model reads of an item; what is nearest comes first in both."""
        order = -1 if self.config.nearest == "last" else 1
        around = Around(
            exemplars=exemplars[::order],
            pairs=pairs[::order],
            labels=self.labels,
            language=display_name(self.language),
            source_language=display_name(self.config.source_language),
            pairs_first=self.config.align_place == "before",
            target_first=self.config.align_order == "target_first",
            translations=self._translations if self.config.align in ("query", "both") else None,
        )
        return self.form.framed(FORMATS[self.config.format](item, around))

    def choices(self, item: Shown) -> tuple[str, ...]:
        """What may follow that prompt: behind an open frame a space stands first."""
        said = [cell(text) for text in item.choices] if self.config.format == "table" else item.choices
        return tuple(f" {text}" for text in said) if self.form.is_open else tuple(said)

    @property
    def unfilled(self) -> str:
        """The prompt with one exemplar and one sentence pair, and slots as they are named."""
        if not self.config.has_context:
            return ""
        item = Shown("", self.form.unfilled, "", ("{label}",) if self.kind == "choice" else (), ("{answer}",))
        exemplars = [] if self.config.exemplars == "none" else [item]
        pairs = [SentencePair("{target}", "{source}")] if self.config.align in ("query", "both") else []
        return self.prompt(item, exemplars, pairs)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer which follows an open frame, as the exemplars' answers end."""
        if not self.form.is_open:
            return ()
        if self.config.format == "table":
            return ("|", "\n")
        if self.config.exemplars == "none":
            return ()
        has_breaks = any("\n" in answer for one in self.exemplars for answer in one.answers[:1])
        return ("\n\n",) if has_breaks else ("\n",)

    @property
    def arm(self) -> str:
        """Everything that makes the prompts, for signatures."""
        asked, parts = self.config, []
        if asked.exemplars == "none":
            parts.append("none")
        else:
            parts += [f"{asked.exemplars}{asked.count}", self.pool.name]
        if asked.needs_parallel:
            parts.append(asked.parallel)
        if asked.is_chosen:
            how = {"random": f"random{self.seed}", "states": f"states-{asked.layer}"}
            how["encoder"] = f"encoder-{asked.encoder}"
            parts += ["+".join(how.get(name, name) for name in asked.retrieval), f"nearest-{asked.nearest}"]
        if asked.align in ("query", "both"):
            parts += [f"query{asked.align_count}", f"match-{asked.match}", asked.align_order]
        if asked.align in ("label", "both"):
            parts.append("label")
        if asked.align != "none":
            parts += [asked.align_place, asked.source_language]
        if asked.label_language == "target":
            parts.append("target-labels")
        parts.append(asked.format)
        if asked.translate_test:
            parts.append(f"translated-{asked.source_language}-{asked.translate_test}")
        told = repr((self.pool, self.pairs, self.labels))
        return ",".join([*parts, hashlib.sha256(told.encode()).hexdigest()[:8]])

    @cached_property
    def _texts(self) -> list[list[str]]:
        return [[same_text(one.query)] for one in self.items]

    @cached_property
    def _answers(self) -> list[list[str]]:
        return [[same_text(answer) for answer in one.answers] for one in self.items]

    @cached_property
    def _translations(self) -> dict[str, str]:
        return {same_text(pair.target): pair.source for pair in self.pairs}


def _mark(
    same: Bool[np.ndarray, "items others"], items: Sequence[Sequence[str]], others: Sequence[str]
) -> None:
    """Mark where one of the texts of an item is the text of another."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(others):
        places.setdefault(text, []).append(place)
    for row, texts in zip(same, items, strict=True):
        for text in texts:
            row[places.get(text, [])] = True
