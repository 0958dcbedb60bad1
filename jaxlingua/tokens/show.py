"""What the model will see, on a console: tables of sources, mixtures and lengths, and documents.

Learned tokens are green; where there is no color they stand between 「 and 」. Each │ ends a token, so that a
character made of three has three of them behind it. A newline is shown as ⏎.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlingua.data.leaks import Leaks
from jaxlingua.data.records import RecordSource
from jaxlingua.tokens.describe import (
    FERTILITY_TEXTS,
    Piece,
    ShownDocument,
    describe_fertility,
    describe_lengths,
    describe_source,
    describe_stage,
    first_documents,
    visible,
)
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage

SAMPLE_DOCUMENTS = 8
SHOWN_PIECES = 60  # at each end of a longer part that is learned, or is not
LEARNED = "green"
BARS = " ▁▂▃▄▅▆▇█"


def show_sources(console: Console, sources: Mapping[str, RecordSource], leaks: Leaks) -> None:
    """What was read of each source and what was not, and what training and evaluation have in common."""
    rows = []
    for source in sources.values():
        told = describe_source(source)
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in told["skipped"].items())
        rows.append(
            {
                "source": told["name"],
                "languages": " ".join(told["languages"]),
                "to train on": told["train"],
                "held out": told["held_out"],
                "skipped": skipped or "none",
            }
        )
    _print_table(console, "Records of each source", rows)
    console.print(f"\n{leaks.describe()}", markup=False)


def show_tokenizer(console: Console, what: str, tokenizer: Tokenizer, stages: Sequence[Stage]) -> None:
    """The tokenizer, and how many tokens it needs for each language."""
    console.print(
        f"\ntokenizer: {what}, {tokenizer.vocab_size:,} pieces; documents begin "
        f"{'without' if tokenizer.bos_id is None else 'with'} BOS, each answer ends with EOS"
    )
    rows = describe_fertility(stages, tokenizer)
    for row in rows:
        for key in ("tokens per character", "tokens per byte"):
            row[key] = f"{row[key]:.3f}"
    _print_table(console, f"Fertility, on at most {FERTILITY_TEXTS:,} answers a language", rows)


def show_stage(console: Console, stage: Stage, tokenizer: Tokenizer) -> None:
    """Steps and realised mixture of a stage, how long its documents are, and the first of them."""
    told = describe_stage(stage)
    console.print(
        f"\nstage {told['name']}: {told['steps']:,} steps of {told['batch_rows']:,} rows of "
        f"{told['row_length_tokens']:,} tokens, {told['epochs']:g} epochs, "
        f"{_percent(told['use'])} of positions used",
        style="bold",
    )
    _print_table(console, "Mixture, over all its steps", [_mixture_row(row) for row in told["mixture"]])
    lengths = describe_lengths(stage)
    for row in lengths:
        row[f"0 to {told['row_length_tokens'] + 1:,}"] = bars(row.pop("histogram"))
    _print_table(console, "Tokens of a document, BOS and EOS included", lengths)
    has_color = console.color_system is not None and not console.no_color
    learned = "green" if has_color else "between 「 and 」"
    _print_title(console, f"First documents of the first rows; learned tokens {learned}, │ ends a token")
    for document in first_documents(stage, tokenizer, SAMPLE_DOCUMENTS):
        console.print(_heading(document), style="dim", markup=False)
        console.print(document_text(document, marks=not has_color), soft_wrap=True)


def document_text(document: ShownDocument, *, marks: bool) -> Text:
    """A document in one line; long parts lose their middle, which is said.

    Args:
        marks: whether learned parts are set between 「 and 」.
    """
    shown = Text()
    for learned, part in groupby(document.pieces, key=lambda piece: piece.learned):
        pieces = list(part)
        style = LEARNED if learned else ""
        shown.append("「" if marks and learned else "")
        if len(pieces) > 2 * SHOWN_PIECES:
            middle = sum(piece.tokens for piece in pieces[SHOWN_PIECES:-SHOWN_PIECES])
            _append(shown, pieces[:SHOWN_PIECES], style)
            shown.append(f"⟨{middle:,} tokens⟩", "magenta")
            pieces = pieces[-SHOWN_PIECES:]
        _append(shown, pieces, style)
        shown.append("」" if marks and learned else "")
    return shown


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line; what is not empty is seen, however little it is.

    >>> bars([0, 1, 50, 100])
    ' ▁▄█'
    """
    most = max(max(counts), 1)
    return "".join(BARS[-(-8 * count // most)] for count in counts)


def _append(shown: Text, pieces: Sequence[Piece], style: str) -> None:
    for piece in pieces:
        shown.append(f"⟨{piece.control}⟩" if piece.control else visible(piece.text), style)
        shown.append("│" * piece.tokens, "dim")


def _heading(document: ShownDocument) -> str:
    tokens = sum(piece.tokens for piece in document.pieces)
    learned = sum(piece.tokens for piece in document.pieces if piece.learned)
    return (
        f"row {document.row}, segment {document.segment}: {document.entry}, {document.language}, "
        f"{tokens:,} tokens, {learned:,} learned"
    )


def _mixture_row(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "entry": told["entry"],
        "language": told["language"],
        "documents": told["documents"],
        "passes": f"{told['passes']:.2f}",
        "share of\ndocuments": _percent(told["share of documents"]),
        "share of\ntargets": _percent(told["share of target tokens"]),
        "left\nout": told["left out"].replace("nothing", "none"),
        "cut": told["cut"],
        "tokens\ncut": told["tokens cut"],
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _print_title(console: Console, title: str) -> None:
    console.print(f"\n{title}", style="bold", markup=False)


def _print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of `rows`, which have the same keys; numbers stand at the right."""
    _print_title(console, title)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for key, value in rows[0].items():
        is_number = isinstance(value, int) or re.fullmatch(r"[\d.]+( %)?", value)
        table.add_column(key, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        cells = [f"{value:,}" if isinstance(value, int) else value for value in row.values()]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
