"""What the items of a task can be shown with, before anything of it is chosen."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxlingua.config import InContextConfig
from jaxlingua.errors import DataError
from jaxlingua.eval.in_context.form import Form, Shown, same_text
from jaxlingua.eval.in_context.itself import Excluded, either, equal, inside
from jaxlingua.eval.in_context.lines import FORMATS, Around, SentencePair, cell, uncelled
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
    def is_itself(self) -> Excluded:
        """Exemplars that are the item, or share its paragraph."""
        return either(self._same, self._beside, total=len(self.exemplars))

    @cached_property
    def is_pair_itself(self) -> Excluded:
        """Sentence pairs a side of which is the item or stands in one of its fields, or in a translation of
        it."""
        shown = set(self.form.fields)
        texts = [
            [item.query, *(text for name, text in each.slots.items() if name not in shown)]
            for item, each in zip(self.items, self.asked, strict=True)
        ]
        if self.kind == "translation":
            texts = [[*of_item, *item.answers] for of_item, item in zip(texts, self.items, strict=True)]
        found = [inside(texts, side) for side in zip(*self.pairs, strict=True)]
        return either(*found or [[set()] * len(texts)], total=len(self.pairs))

    @property
    def note(self) -> str:
        """How often something was the item itself, or near to it, and is not shown with it."""
        itself = sum(map(len, self._same))
        counts = {
            "exemplars left out that are the item itself": itself,
            "exemplars left out that share its paragraph": self.is_itself.count - itself,
            "sentence pairs left out that are the item itself or a part of it": self.is_pair_itself.count,
        }
        return "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)

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
            if is_itself.left < count:
                raise DataError(
                    f"eval.in_context.{given} has {is_itself.left} beside an item of {self.task}; "
                    f"{count} are needed; ask for fewer, or name a larger split"
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
            separator="\n\n" if self._has_breaks or "\n" in item.text else "\n",
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
        """Texts that end an answer which follows an open frame, as the exemplars' answers end.

        Lines are separated by one of these, or by a blank line where a line break alone ends an answer. In a
        table a bar without a space before it may be an escaped one.
        """
        if not self.form.is_open:
            return ()
        if self.config.format == "table":
            return (" |", "\n")
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
        digest = hashlib.sha256(repr((self.pool.name, self.pool.shares_ids, self.labels)).encode())
        for one in self.pool.records:  # without places: a folder that is moved holds the same records
            digest.update(repr((one.id, one.slots, one.targets)).encode())
        for pair in self.pairs:
            digest.update(repr(tuple(pair)).encode())
        return ",".join([*parts, digest.hexdigest()[:8]])

    def answer(self, text: str) -> str:
        """What a model means that has written `text`: in a table, a cell that is unescaped."""
        if not self.config.has_context or self.config.format != "table":
            return text
        return uncelled(text, is_open=self.form.is_open)

    @cached_property
    def _same(self) -> list[set[int]]:
        """Exemplars that are the item: by its id, its text, or as a translation by its answer."""
        found = [
            equal(
                [[same_text(one.query)] for one in self.items],
                [same_text(one.query) for one in self.exemplars],
            )
        ]
        if self.pool.shares_ids:
            found.append(equal([[one.id] for one in self.items], [one.id for one in self.exemplars]))
        if self.kind == "translation":
            answers = [[same_text(answer) for answer in one.answers] for one in self.items]
            found.append(equal(answers, [same_text(one.answers[0]) for one in self.exemplars]))
        return [set().union(*each) for each in zip(*found, strict=True)]

    @cached_property
    def _beside(self) -> list[set[int]]:
        """Exemplars that are asked of the item's paragraph, which ids name in another language."""
        if self.kind != "qa":
            return [set() for _ in self.asked]
        of_items, of_pool = (
            [same_text(one.source_text) for one in records] for records in (self.asked, self.pool.records)
        )
        paragraphs = {text: {text} for text in of_items}
        if self.pool.shares_ids:
            named = {one.id: text for one, text in zip(self.pool.records, of_pool, strict=True)}
            for one, text in zip(self.asked, of_items, strict=True):
                paragraphs[text].add(named.get(one.id, text))
        return equal([paragraphs[text] - {""} if text else () for text in of_items], of_pool)

    @cached_property
    def _has_breaks(self) -> bool:
        """Whether something that prompts of the task may show has a line break."""
        shown = [text for one in self.exemplars for text in (one.text, *one.answers[:1])]
        pairs = self.pairs if self.config.align in ("query", "both") else ()
        return any("\n" in text for text in (self.form.unfilled, *shown, *itertools.chain(*pairs)))

    @cached_property
    def _translations(self) -> dict[str, str]:
        return {same_text(pair.target): pair.source for pair in self.pairs}
