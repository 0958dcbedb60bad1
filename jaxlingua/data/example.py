"""An example: one record as the model will read it, still text, with what is learned of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxlingua.errors import DataError


@dataclass(frozen=True, slots=True)
class Example:
    """Text with the character ranges that are learned; an end-of-sequence token follows each if `ends`.

    `source` is the name of the mixture entry, `index` the record's place in its source, `language` that of
    the answers. `answers` are [start, end) in code points of `text`, ascending, none empty. A conversation
    has one per assistant turn; of plain text the whole is the one answer.

    Raises: DataError naming source and index if a range is empty, out of bounds or out of order.
    Example:
        >>> example = Example("news", 7, "deu_Latn", "Good morning.\\nGuten Morgen.", ((14, 27),))
        >>> example.prompt, example.answer_texts
        ('Good morning.\\n', ('Guten Morgen.',))
    """

    source: str
    index: int
    language: str
    text: str
    answers: tuple[tuple[int, int], ...]
    ends: bool = True

    def __post_init__(self) -> None:
        where = f"{self.source} (record {self.index})"
        if not self.answers:
            raise DataError(f"{where}: no answer given; an example needs at least one range that is learned")
        earliest = 0
        for start, end in self.answers:
            if not earliest <= start < end <= len(self.text):
                raise DataError(
                    f"{where}: answer range ({start}, {end}) given; ranges are ascending, not empty "
                    f"and within the {len(self.text)} characters of the text; use templates.render"
                )
            earliest = end

    @property
    def prompt(self) -> str:
        """The text up to the last answer: what the model is given when it has to answer by itself."""
        return self.text[: self.answers[-1][0]]

    @property
    def answer_texts(self) -> tuple[str, ...]:
        """The text of each answer."""
        return tuple(self.text[start:end] for start, end in self.answers)


@runtime_checkable
class Redrawn(Protocol):
    """Examples of a mixture entry that are drawn anew each time; goes to other processes by pickle.

    A slot is what one example is drawn for, such as a sentence in a direction; `draw` is a function of slot
    and pass, which counts how many times the slot came before. `languages` are those of all answers.
    """

    languages: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Slots."""

    def draw(self, slot: int, number: int) -> Example:
        """The example of a slot in pass `number`, counted from 0."""

    def texts(self) -> Iterator[str]:
        """What a tokenizer is learned on."""
