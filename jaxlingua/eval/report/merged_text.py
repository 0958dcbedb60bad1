"""A merged table as Markdown, CSV, LaTeX, HTML and JSON."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping

import jinja2

from jaxlingua.eval.report import words
from jaxlingua.eval.report.escape import csv_text, document, latex, markdown, table
from jaxlingua.eval.report.merge import Merged, Row, Table
from jaxlingua.eval.report.words import one_digit
from jaxlingua.eval.tasks.item import FIRST_PROMPT

TITLE = (
    "Mean ± standard deviation over (s) runs that differ in the seed and (p) prompts; in brackets the 95 % "
    "bootstrap interval of a single score."
)
NAMES = (
    *("task", "language", "metric", "prompts", "model", "value", "seeds", "sd_seeds", "prompt_count"),
    *("sd_prompts", "low", "high", "items", "signature", "differs"),
)


def as_json(merged: Table) -> str:
    """All of it, numbers in full."""
    return json.dumps(dataclasses.asdict(merged), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_csv(merged: Table) -> str:
    """A line per row and model, numbers in full."""
    lines = []
    for row in merged.rows:
        for model in merged.models:
            if model in row.cells:
                cell = dataclasses.asdict(row.cells[model])
                told = {name: getattr(row, name) for name in ("task", "language", "metric", "items")}
                told |= {"signature": row.signature, "differs": row.differs, "model": model}
                count = cell.pop("prompts")
                lines.append(told | cell | {"prompts": " ".join(row.prompts), "prompt_count": count})
    return csv_text(lines, NAMES)


def as_markdown(merged: Table) -> str:
    """A table for pull requests, with the signatures of metrics below it."""
    notes = _notes(merged)
    head = ["task", "language", "metric", "items", *merged.models]
    lines = [_md_line(map(markdown, head)), _md_line(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for row in merged.rows:
        cells = [markdown(_text(row.cells[model])) if model in row.cells else "" for model in merged.models]
        metric = f"{markdown(row.metric)} <sup>{_marks(row, notes)}</sup>"
        lines.append(_md_line([markdown(_name(row)), row.language, metric, f"{row.items:,}", *cells]))
    told = [f"{markdown(name)}: {markdown(', '.join(runs))}" for name, runs in merged.runs.items()]
    below = [f"{number}. `{text.replace('`', chr(39))}`" for text, number in notes.items()]
    return "\n".join([*lines, "", TITLE, "", *(f"- {line}" for line in told), "", *below]) + "\n"


def as_latex(merged: Table) -> str:
    """A document of one long table with booktabs."""
    notes = _notes(merged)
    body = []
    for row in merged.rows:
        cells = [latex(_text(row.cells[model])) if model in row.cells else "" for model in merged.models]
        metric = rf"{latex(row.metric)}\textsuperscript{{{_marks(row, notes)}}}"
        body.append([latex(_name(row)), metric, f"{row.items:,}", *cells])
    head = ["task", "metric", "items", *(latex(model) for model in merged.models)]
    align = "llr" + "r" * len(merged.models)
    parts = [table(latex(TITLE), "tab:merged", head, body, align=align, is_long=True)]
    parts.append(
        "\n".join(rf"\noindent\textsuperscript{{{n}}} {latex(text)}\par" for text, n in notes.items())
    )
    return document(parts, "Written by python -m jaxlingua.eval table.")


def as_html(merged: Table) -> str:
    """A page that stands alone."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlingua.eval", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"language": words.language_name, "breakable": words.breakable}
    notes = _notes(merged)
    return environment.get_template("table.html").render(
        table=merged,
        title=TITLE,
        notes=notes,
        text=_text,
        name=_name,
        marks=lambda row: _marks(row, notes),
    )


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "tex": as_latex,
    "html": as_html,
    "json": as_json,
}


def _text(cell: Merged) -> str:
    """A cell in words.

    Example:
        >>> _text(Merged(61.25, 3, 0.42, 1, None, None, None))
        '61.2 ± 0.4 (3 s)'
        >>> _text(Merged(61.2, 1, None, 1, None, 60.0, 62.4))
        '61.2 [60.0, 62.4]'
        >>> _text(Merged(-3.25, 1, None, 1, None, None, None))
        '−3.2'
    """
    told = one_digit(cell.value).replace("-", "−")
    if cell.sd_seeds is not None:
        told += f" ± {one_digit(cell.sd_seeds)} ({cell.seeds} s)"
    if cell.sd_prompts is not None:
        told += f" ± {one_digit(cell.sd_prompts)} ({cell.prompts} p)"
    if cell.low is not None and cell.high is not None:
        told += f" [{one_digit(cell.low)}, {one_digit(cell.high)}]"
    return told


def _name(row: Row) -> str:
    is_plain = len(row.prompts) != 1 or row.prompts[0] == FIRST_PROMPT
    return row.task if is_plain else f"{row.task} {row.prompts[0]}"


def _notes(merged: Table) -> dict[str, int]:
    """What stands below the table → its number: signatures of metrics, and what sets rows apart."""
    texts = [text for row in merged.rows for text in _notes_of(row)]
    return {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}


def _notes_of(row: Row) -> list[str]:
    """The metric's own part of a signature, which does not depend on the items."""
    told = [row.signature.partition("|task:")[0]]
    return told + ([f"not measured as the row above: {row.differs}"] if row.differs else [])


def _marks(row: Row, notes: Mapping[str, int]) -> str:
    return ",".join(str(notes[text]) for text in _notes_of(row))


def _md_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
