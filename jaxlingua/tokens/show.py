"""What the model will see, on a console: a summary, then tables of it all, and documents.

Learned tokens are green; where there is no color they stand between 「 and 」. Each │ ends a token, so that a
character made of three has three of them behind it. A newline is shown as ⏎. Text that runs from
right to left is given in its logical order, which most terminals turn around.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlingua.tokens.describe import Piece, ShownDocument, parts, shortened, visible
from jaxlingua.tokens.draws import DRAWS
from jaxlingua.tokens.fertility import FERTILITY_CHARACTERS, FERTILITY_TEXTS
from jaxlingua.tokens.summary import percent

LEARNED = "green"
BARS = " ▁▂▃▄▅▆▇█"
ROW_CELLS = 96  # of the picture of a row
COLORS = ("blue", "yellow", "magenta", "cyan", "red", "white")
LANGUAGES = 5  # of a source, that are named


def show(console: Console, facts: Mapping[str, Any]) -> None:
    """All of `facts.describe_data`."""
    show_summary(console, facts)
    _show_sources(console, facts)
    _show_tokenizer(console, facts)
    for stage in facts["stages"]:
        _show_stage(console, stage)


def show_summary(console: Console, facts: Mapping[str, Any]) -> None:
    """What there is in a few lines, and what stands out."""
    _print_title(console, "Summary")
    for line in facts["summary"]:
        console.print(f"  {line}", markup=False)
    for line in facts["warnings"]:
        console.print(f"  ! {visible(line)}", style="yellow", markup=False)
    if not facts["warnings"]:
        console.print("  nothing stands out")


def document_text(document: ShownDocument, *, marks: bool) -> Text:
    """A document in one line; long parts lose their middle, which is said.

    Args:
        marks: whether learned parts are set between 「 and 」.
    """
    shown = Text()
    for learned, pieces in parts(document):
        shown.append("「" if marks and learned else "")
        for piece in pieces:
            _append(shown, piece, LEARNED if learned else "")
        shown.append("」" if marks and learned else "")
    return shown


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line; what is not empty is seen, however little it is.

    >>> bars([0, 1, 50, 100])
    ' ▁▄█'
    """
    most = max(max(counts), 1)
    return "".join(BARS[-(-8 * count // most)] for count in counts)


def _show_sources(console: Console, facts: Mapping[str, Any]) -> None:
    """What was read of each source and what was not, and what is there more than once."""
    rows = []
    for source in facts["sources"]:
        rest = len(source["languages"]) - LANGUAGES
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in source["skipped"].items())
        rows.append(
            {
                "source": source["name"],
                "languages": " ".join(source["languages"][:LANGUAGES]) + (f" +{rest}" if rest > 0 else ""),
                "to train on": source["train"],
                "held out": source["held_out"],
                "repeated": source["repeated"],
                "skipped": skipped or "none",
            }
        )
    _print_table(console, "Records of each source", rows)
    for source in facts["sources"]:
        for reason, texts in source["skipped examples"].items():
            _print_examples(console, f"{source['name']}, {reason}", texts)
        _print_examples(console, f"{source['name']}, repeated", source["repeated examples"])
    rows = [
        {
            "source": source["name"],
            **row,
            "share of texts": percent(row["share of texts"]),
            "example": shortened(row["example"], 40),
        }
        for source in facts["sources"]
        for row in source["faults"]
    ]
    _print_table(console, "Text that is not what its language says, of the texts looked at", rows)
    console.print(f"\n{facts['leaks']['told']}", markup=False)
    for leak in facts["leaks"]["examples"]:
        where = f"{leak['source']} (record {leak['index']}) is in {leak['evaluation_source']}"
        _print_examples(console, where, [leak["text"]])
    rows = [row | {key: percent(row[key]) for key in row if "share" in key} for row in facts["shared"]]
    _print_table(
        console,
        "Text learned in several entries",
        [row | {"example": visible(shortened(row["example"], 40))} for row in rows],
    )


def _show_tokenizer(console: Console, facts: Mapping[str, Any]) -> None:
    """The tokenizer, and how many tokens it needs for each language."""
    told = facts["tokenizer"]
    console.print(
        f"\ntokenizer: {told['what']}, {told['pieces']:,} pieces; documents begin "
        f"{'with' if told['begins with BOS'] else 'without'} BOS",
        markup=False,
    )
    rows = [
        {
            "language": row["language"],
            "texts": row["texts"],
            "words": row["words"],
            "characters": row["characters"],
            "bytes": row["bytes"],
            "tokens": row["tokens"],
            "per word": f"{row['tokens per word']:.3f}",
            "per character": f"{row['tokens per character']:.3f}",
            "per byte": f"{row['tokens per byte']:.3f}",
            "byte fallback": percent(row["byte fallback"]),
            "unknown": percent(row["unknown"]),
        }
        for row in facts["fertility"]
    ]
    most = f"{FERTILITY_TEXTS:,} texts a language, {FERTILITY_CHARACTERS:,} characters each"
    _print_table(console, f"Fertility, on at most {most}", rows)


def _show_stage(console: Console, told: Mapping[str, Any]) -> None:
    """Steps and realised mixture of a stage, how long its documents are, and some of them."""
    console.print(
        f"\nstage {told['name']}: {told['steps']:,} steps of {told['batch_rows']:,} rows of "
        f"{told['row_length_tokens']:,} tokens, {told['epochs']:g} epochs, {percent(told['use'])} of "
        f"positions used, {told['documents per row']:.2f} documents in a row",
        style="bold",
        markup=False,
    )
    how = "; ≈ is estimated from its first window" if told["estimated"] else ""
    rows = [_mixture_row(row, told["estimated"]) for row in told["mixture"]]
    _print_table(console, f"Mixture, over all its steps{how}", rows)
    _print_table(console, "Examples left out", told["left out"])
    _print_table(console, "Replay, by stratum and language", told["replay"])
    lengths = [
        {key: value for key, value in row.items() if key != "histogram"}
        | {f"0 to {told['row_length_tokens'] + 1:,}": bars(row["histogram"])}
        for row in told["lengths"]
    ]
    _print_table(console, "Tokens of a document, BOS and EOS included", lengths)
    _show_rows(console, told)
    has_color = console.color_system is not None and not console.no_color
    learned = "green" if has_color else "between 「 and 」"
    rest = told["groups"] - len(told["documents"])
    more = f" ({rest:,} more are not shown)" if rest > 0 else ""
    _print_title(
        console, f"First document of each entry and language{more}; learned tokens {learned}, │ ends a token"
    )
    for document in told["documents"]:
        console.print(_heading(document), style="dim", markup=False)
        console.print(document_text(document, marks=not has_color), soft_wrap=True)
    _show_draws(console, told, marks=not has_color)


def _show_rows(console: Console, told: Mapping[str, Any]) -> None:
    """The first rows as bars: what is learned of each document is dark."""
    entries = list(dict.fromkeys(row["entry"] for row in told["mixture"]))
    colors = {entry: COLORS[place % len(COLORS)] for place, entry in enumerate(entries)}
    legend = Text("\nFirst rows: █ learned, ▒ given, · empty; ", "bold")
    for entry in entries:
        legend.append(f"{entry} ", colors[entry])
    console.print(legend)
    cells = min(ROW_CELLS, told["row_length_tokens"])
    for row in told["rows"]:
        line, done, begin = Text(f"{row['row']:>3} "), 0, 0
        for segment in row["segments"]:
            done += segment["positions"]
            end = max(begin, round(cells * done / told["row_length_tokens"]))
            learned = min(end - begin, -(-(end - begin) * segment["learned"] // segment["positions"]))
            line.append("▒" * (end - begin - learned) + "█" * learned, colors[segment["entry"]])
            begin = end
        console.print(line.append("·" * (cells - begin)), soft_wrap=True)


def _show_draws(console: Console, told: Mapping[str, Any], *, marks: bool) -> None:
    """Entries that are drawn anew: how often each objective comes, and several draws of some examples."""
    for entry in told["draws"]:
        title = f"Drawn for {entry['entry']}, in {entry['draws']:,} draws of {entry['slots']:,} examples"
        _print_table(console, title, [row | {"share": percent(row["share"])} for row in entry["frequencies"]])
        _print_title(console, f"{DRAWS} draws of the same examples of {entry['entry']}")
        for sample in entry["samples"]:
            for number, draw in enumerate(sample["draws"], 1):
                heading = f"record {sample['record']}, draw {number}: {draw['objective']}, {draw['language']}"
                console.print(heading, style="dim", markup=False)
                line = Text()
                for learned, text in draw["parts"]:
                    text = visible(text)
                    line.append(f"「{text}」" if marks and learned else text, LEARNED if learned else "")
                console.print(line, soft_wrap=True)


def _append(shown: Text, piece: Piece, style: str) -> None:
    if piece.control:
        shown.append(f"⟨{piece.control}⟩", style if piece.tokens else "magenta")
    else:
        shown.append(visible(shortened(piece.text)), style)
    shown.append("│" * piece.tokens, "dim")


def _heading(document: ShownDocument) -> str:
    tokens = sum(piece.tokens for piece in document.pieces)
    learned = sum(piece.tokens for piece in document.pieces if piece.learned)
    return (
        f"row {document.row}, segment {document.segment}: {document.entry}, {document.language}, "
        f"{tokens:,} tokens, {learned:,} learned"
    )


def _mixture_row(told: Mapping[str, Any], estimated: Sequence[str]) -> dict[str, Any]:
    """A row with heads of two lines; those of estimates begin with ≈."""
    cells = {
        "entry": ("entry", told["entry"]),
        "language": ("language", told["language"]),
        "documents": ("documents", told["documents"]),
        "passes": ("passes", f"{told['passes']:.2f}"),
        "tokens seen": ("tokens\nseen", told["tokens seen"]),
        "target tokens seen": ("targets\nseen", told["target tokens seen"]),
        "share of documents": ("share of\ndocuments", percent(told["share of documents"])),
        "share of target tokens": ("share of\ntargets", percent(told["share of target tokens"])),
        "left out": ("left\nout", told["left out"].replace("nothing", "none")),
        "cut": ("cut", told["cut"]),
        "tokens cut": ("tokens\ncut", told["tokens cut"]),
    }
    return {("≈ " if key in estimated else "") + head: cell for key, (head, cell) in cells.items()}


def _print_title(console: Console, title: str) -> None:
    console.print(f"\n{title}", style="bold", markup=False)


def _print_examples(console: Console, where: str, texts: Sequence[str]) -> None:
    for text in texts:
        console.print(f"  {where}: {visible(text)}", style="dim", markup=False, soft_wrap=True)


def _print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of `rows`, which have the same keys, numbers at the right; nothing if there is none."""
    if not rows:
        return
    _print_title(console, title)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for key, value in rows[0].items():
        is_number = isinstance(value, int) or re.fullmatch(r"(< )?[\d.]+( %)?", value)
        table.add_column(key, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console.print(table)


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    for value in row.values():
        yield f"{value:,}" if isinstance(value, int) else visible(value)
