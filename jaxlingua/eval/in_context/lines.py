"""What stands in front of an item, and the item itself with its answer left open: lines, or a table."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from jaxlingua.command_line import parse_yaml
from jaxlingua.data.slots import fill
from jaxlingua.eval.in_context.form import Shown, same_text

_BAR = re.compile(r"(?<!\\)\|")  # that is not escaped


class SentencePair(NamedTuple):
    """A sentence in the language of the items, and in source_language."""

    target: str
    source: str


@dataclass(frozen=True)
class Around:
    """All that an item is shown with; exemplars and pairs in the order in which they stand.

    Attributes:
        labels: each label in English, and in the item's language; of label alignment.
        language: name of the item's language.
        source_language: name of the other one.
        separator: of lines; one blank line where some text of the task has line breaks.
        translations: of texts that the sentence pairs have, for the last column of a table; None for no such
            column.
    """

    exemplars: Sequence[Shown]
    pairs: Sequence[SentencePair]
    labels: Sequence[tuple[str, str]]
    language: str
    source_language: str
    pairs_first: bool
    target_first: bool
    separator: str = "\n"
    translations: dict[str, str] | None = None


@functools.cache
def wording() -> dict[str, Any]:
    """The lines of wording.yaml."""
    file = resources.files("jaxlingua.eval.in_context") / "wording.yaml"
    return parse_yaml(file.read_text("utf-8"), file.name)


def lines(item: Shown, around: Around) -> str:
    """A line per exemplar and per alignment, and the separator between all.

    Example:
        >>> cat = Shown("1", "a cat", "a cat", (), ("meow",))
        >>> dog = Shown("2", "a dog", "a dog", (), ("woof",))
        >>> print(lines(dog, Around([cat], [], [], "Thai", "English", False, True)))
        a cat => meow
        a dog =>
    """
    words = wording()
    sentence = words["target_first" if around.target_first else "source_first"]
    aligned = [
        fill(sentence, {"language": around.language, "target": pair.target, "source": pair.source})
        for pair in around.pairs
    ] + label_lines(around)
    solved = [
        fill(words["exemplar"], {"text": one.text, "answer": one.answers[0]}) for one in around.exemplars
    ]
    parts = [*aligned, *solved] if around.pairs_first else [*solved, *aligned]
    parts.append(fill(words["open"], {"text": item.text}))
    return around.separator.join(parts)


def table(item: Shown, around: Around) -> str:
    """A Markdown table, whose last row ends where the item's answer goes; lines on labels stand above it.

    The last column is the same text in source_language where the sentence pairs have it.

    Example:
        >>> cat = Shown("1", "a | b", "a | b", (), ("meow",))
        >>> dog = Shown("2", "a dog", "a dog", (), ("woof",))
        >>> print(table(dog, Around([cat], [], [], "Thai", "English", False, True)))
        | Text | Answer |
        | --- | --- |
        | a \\| b | meow |
        | a dog |
    """
    columns = wording()["columns"]
    head = [columns["text"], columns["label" if item.choices else "answer"]]
    has_same = around.translations is not None
    if has_same:
        head.append(fill(columns["same"], {"language": around.source_language}))
    solved = [
        [one.text, one.answers[0], *([around.translations.get(same_text(one.query), "")] if has_same else [])]
        for one in around.exemplars
    ]
    aligned = [[pair.target, "", pair.source] for pair in around.pairs]
    rows = [*aligned, *solved] if around.pairs_first else [*solved, *aligned]
    shown = [_row(head), _row(["---"] * len(head)), *map(_row, rows), _row([item.text])]
    above = label_lines(around)
    return "\n".join([*above, "", *shown] if above else shown)


def label_lines(around: Around) -> list[str]:
    """Of label alignment, what each label means."""
    return [
        fill(wording()["label"], {"language": around.language, "source": source, "target": target})
        for source, target in around.labels
    ]


def cell(text: str) -> str:
    """A text as it stands in a cell: neither bars nor line breaks."""
    return "<br>".join(text.replace("|", "\\|").splitlines())


def uncelled(text: str, *, is_open: bool) -> str:
    """The text of a cell that a model has written; where the cell is open, up to the bar that ends it.

    Example:
        >>> uncelled(r" a \\| b<br>c | d", is_open=True)
        ' a | b\\nc '
    """
    said = _BAR.split(text)[0] if is_open else text
    return said.replace("\\|", "|").replace("<br>", "\n")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


FORMATS = {"line": lines, "table": table}
