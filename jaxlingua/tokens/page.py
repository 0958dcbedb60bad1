"""The page of the data: what the console tells, in one file without scripts or anything from outside."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jaxlingua.languages import find_language
from jaxlingua.tokens.describe import ShownDocument, parts, shortened, visible
from jaxlingua.tokens.fertility import FERTILITY_CHARACTERS, FERTILITY_TEXTS
from jaxlingua.tokens.summary import language_name, percent

COLORS = 8  # that the page has names for, --c0 …
SHARES = ("share of documents", "share of target tokens", "byte fallback", "unknown", "share")
_DRAWN_SHARES = ("share of documents", "share of target tokens", "byte fallback", "share")  # with a bar below
_PERCENT = (*SHARES, "share of texts", "share of entry", "share of other")


def render_page(facts: Mapping[str, Any], name: str) -> str:
    """HTML of `facts.describe_data`.

    Args:
        name: the configuration's, for the title.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlingua.tokens", "pages"),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "figure": figure,
        "percent": percent,
        "language": language_name,
        "html_language": _html_language,
        "visible": visible,
        "lines": _lines,
        "bars": _bars,
        "pieces": _pieces,
        "tokens": lambda document: sum(piece.tokens for piece in document.pieces),
        "learned": lambda document: sum(piece.tokens for piece in document.pieces if piece.learned),
    }
    languages = {row["language"]: place % COLORS for place, row in enumerate(facts["fertility"])}
    view = {
        **facts,
        "name": name,
        "stages": [_stage(stage) for stage in facts["stages"]],
        "fertility": [row | {"color": languages[row["language"]]} for row in facts["fertility"]],
        "examples": _examples(facts["sources"]),
        "faults": [
            {"source": source["name"], **row} for source in facts["sources"] for row in source["faults"]
        ],
        "shares": _PERCENT,
        "drawn_shares": _DRAWN_SHARES,
        "fertility_texts": FERTILITY_TEXTS,
        "fertility_characters": FERTILITY_CHARACTERS,
    }
    return environment.get_template("data.html").render(**view)


def figure(value: float | int, key: str = "") -> str:
    """A number as people read it; `key` tells what it is.

    >>> figure(1234567), figure(0.123, "byte fallback"), figure(1.5, "passes"), figure(0.123456)
    ('1,234,567', '12.3 %', '1.50', '0.123')
    """
    if key in _PERCENT:
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}" if key == "passes" or value >= 100 else f"{value:.3f}"


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """With a color for each entry, the same in tables, rows and documents."""
    entries = dict.fromkeys(row["entry"] for row in stage["mixture"])
    colors = {entry: place % COLORS for place, entry in enumerate(entries)}

    def colored(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "color": colors[row["entry"]]} for row in rows]

    draws = [{**entry, "frequencies": _with_color(entry, colors)} for entry in stage["draws"]]
    return {
        **stage,
        "colors": colors,
        "mixture": colored(stage["mixture"]),
        "lengths": colored(stage["lengths"]),
        "draws": draws,
    }


def _with_color(entry: Mapping[str, Any], colors: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{**row, "color": colors[entry["entry"]]} for row in entry["frequencies"]]


def _examples(sources: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    rows = []
    for source in sources:
        for reason, texts in source["skipped examples"].items():
            rows += [{"source": source["name"], "why": reason, "text": text} for text in texts]
        texts = source["repeated examples"]
        rows += [{"source": source["name"], "why": "repeats an earlier one", "text": text} for text in texts]
    return rows


def _bars(counts: Sequence[int]) -> Markup:
    """A histogram as a picture; what is not empty is seen, however little it is."""
    most = max(max(counts), 1)
    width = 100 / len(counts)
    rectangles = "".join(
        f'<rect x="{place * width:.2f}" y="{20 - height:.2f}" width="{width - 1:.2f}" height="{height:.2f}">'
        f"<title>{count:,}</title></rect>"
        for place, count in enumerate(counts)
        if (height := count and max(1.0, 20 * count / most))
    )
    numbers = " ".join(f"{count:,}" for count in counts)
    return Markup(
        f'<svg class="bars" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" '
        f'aria-label="{numbers}">{rectangles}</svg>'
    )


def _pieces(document: ShownDocument) -> Markup:
    """A document piece by piece; several tokens that make one character are told by their number."""
    shown = []
    for learned, pieces in parts(document):
        name = "l" if learned else "g"
        shown.append("<bdi>" if learned else "")
        for piece in pieces:
            if piece.control and piece.tokens:
                shown.append(f'<i class="{name} k">⟨{escape(piece.control)}⟩</i>')
            elif piece.control:
                shown.append(f"<u>⟨{escape(piece.control)}⟩</u>")
            else:
                count = f"<sup>{piece.tokens}</sup>" if piece.tokens > 1 else ""
                shown.append(f'<i class="{name}">{_lines(shortened(piece.text))}{count}</i>')
        shown.append("</bdi>" if learned else "")
    return Markup("".join(shown))


def _lines(text: str) -> Markup:
    """Text with its line breaks, each with a sign for it, and signs for other control characters."""
    return escape(visible(text).replace("⏎", "⏎\n"))


def _html_language(code: str) -> str:
    """A language as `lang` names it, so that browsers choose the glyphs of its script."""
    known = find_language(code)
    return (known.cldr if known and known.cldr else code).replace("_", "-")
