"""How a record is shown in one prompt: its text, what is compared with others of it, its answer."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from jaxlingua.data.templates import framed
from jaxlingua.data.wordings import Wording
from jaxlingua.eval.tasks.asked import Asked
from jaxlingua.eval.tasks.prompts import LANGUAGE_SLOTS, ask, choice_texts, fill, words_of
from jaxlingua.eval.tasks.schema import SLOT, Prompt, TaskFile

_MARK = "\0"  # in no wording


@dataclass(frozen=True, slots=True)
class Shown:
    """A record in the words of a prompt.

    Attributes:
        text: all that is said of the record but its answer.
        query: its own texts alone, by which records near it are found.
        choices: of a choice, what may be answered.
        answers: every answer that is right, as it is said; the first is shown.
    """

    id: str
    text: str
    query: str
    choices: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """One prompt of a task with all that fills it beside the record.

    Attributes:
        names: of languages, by their slots.
        framed_in: language of a localized frame.
        shape: frame of the template's own, that stands around a record without a context.
        shape_names: of languages, in that frame.
        task: of a task file.
    """

    prompt: Prompt
    names: Mapping[str, str]
    wording: Wording
    framed_in: str
    shape: str = ""
    shape_names: Mapping[str, str] | None = None
    task: TaskFile | None = None

    @property
    def fields(self) -> list[str]:
        """Fields of a record that the prompt shows, in their order."""
        slots = (match[1] for match in SLOT.finditer(f"{self.prompt.instruction}\n{self.prompt.input}"))
        others = (*LANGUAGE_SLOTS, *self.prompt.words)
        return list(dict.fromkeys(slot for slot in slots if slot not in others))

    @property
    def unfilled(self) -> str:
        """What is said of each record, with slots."""
        parts = [self.prompt.instruction] if self._is_told_each_time else []
        return "\n".join([*parts, *([self.prompt.input] if self.prompt.input else [])])

    @property
    def instruction(self) -> str:
        """What is said once; empty where the instruction shows the record, and is said with each."""
        return "" if self._is_told_each_time else fill(self.prompt.instruction, self.names)

    @property
    def is_open(self) -> bool:
        """Whether nothing but white space stands behind the input, so that an answer follows it directly."""
        return not framed(self.wording, "x", _MARK, self.framed_in).partition(_MARK)[2].strip()

    def shown(self, asked: Asked) -> Shown:
        """A record as exemplars and items are shown."""
        slots = self._slots(asked, self.names)
        choices, answers = (), asked.targets
        if self.task is not None and self.task.kind == "choice":
            choices = choice_texts(self.task, self.prompt, slots)
            of_label = dict(zip(self.task.values, choices, strict=True))
            answers = tuple(of_label[label] for label in asked.targets)
        return Shown(
            asked.id,
            fill(self.unfilled, slots),
            "\n".join(asked.slots[field] for field in self.fields),
            choices,
            answers,
        )

    def plain(self, asked: Asked) -> str:
        """The prompt of a record without a context."""
        names = self.shape_names if self.shape and self.shape_names is not None else self.names
        return ask(self.prompt, self.shape, self.wording, self.framed_in, self._slots(asked, names))

    def framed(self, body: str) -> str:
        """The instruction and what is shown, in the frame; an open frame ends with what is shown."""
        if self.instruction:
            text = framed(self.wording, self.instruction, body, self.framed_in)
        else:
            text = framed(self.wording, body, "", self.framed_in)
        return text.rstrip("\n") if self.is_open else text

    @property
    def _is_told_each_time(self) -> bool:
        slots = (match[1] for match in SLOT.finditer(self.prompt.instruction))
        return any(slot not in LANGUAGE_SLOTS for slot in slots)

    def _slots(self, asked: Asked, names: Mapping[str, str]) -> dict[str, str]:
        return {**asked.slots, **names, **words_of(asked, self.prompt)}


def same_text(text: str) -> str:
    """Equal for texts that are the same one: NFC, without white space around."""
    return unicodedata.normalize("NFC", text).strip()
