"""Text of any origin as it may stand in LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "-": r"{-}",
    "−": r"$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "…": r"\dots{}",
    "×": r"$\times$",
    "≠": r"$\neq$",
    "[": r"{[}",
    "]": r"{]}",
    "*": r"{*}",
    ",": r"{,}",
}


def latex(text: Any) -> str:
    r"""Text as LaTeX shows it with the packages that `document` names; other scripts by code points.

    Example:
        >>> latex("a_b & 50 %\n\\input{x}"), latex("−1.5 你")
        ('a\\_b \\& 50 \\% \\textbackslash{}input\\{x\\}', '$-$1.5 {[}U+4F60{]}')
    """
    return "".join(_latex_of(char) for char in " ".join(str(text).split()))


def _latex_of(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    if " " <= char <= "~" or ("À" <= char <= "ÿ" and char not in "×÷"):
        return char
    return f"{{[}}U+{ord(char):04X}{{]}}"


def table(
    title: str,
    label: str,
    head: Sequence[str],
    body: Iterable[Sequence[str] | str],
    *,
    align: str,
    is_long: bool = False,
) -> str:
    r"""A table with booktabs. Cells are LaTeX already; a row that is text is a heading over all columns."""
    lines = [" & ".join(head) + r" \\", r"\midrule"]
    for row in body:
        if isinstance(row, str):
            lines.append(rf"\addlinespace \multicolumn{{{len(head)}}}{{l}}{{\itshape {row}}} \\")
        else:
            lines.append(" & ".join(row) + r" \\")
    caption = rf"\caption{{{title}}}\label{{{label}}}"
    if is_long:
        top = [
            rf"\begin{{longtable}}{{@{{}}{align}@{{}}}}",
            rf"{caption}\\",
            r"\toprule",
            *lines[:2],
            r"\endhead",
        ]
        end = [r"\bottomrule", r"\end{longtable}"]
        return "\n".join([r"{\footnotesize", *top, *lines[2:], *end, "}"])
    top = [r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}", caption]
    top += [rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}", r"\toprule"]
    return "\n".join([*top, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def document(tables: Iterable[str], comment: str) -> str:
    """Tables as a document of their own; each may be taken out and put into another one."""
    head = [
        *(f"% {line}" for line in comment.split("\n")),
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{textcomp,booktabs,longtable}",
        r"\usepackage[a4paper,landscape,margin=1.5cm]{geometry}",
        r"\begin{document}",
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(tables) + "\n\n" + r"\end{document}" + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """A line per row and a heading; what is not there is empty, numbers are as JSON has them."""
    page = io.StringIO()
    writer = csv.DictWriter(page, names, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: _plain(row.get(name)) for name in names} for row in rows)
    return page.getvalue()


def _plain(value: Any) -> Any:
    return "" if value is None else repr(value) if isinstance(value, float) else value


def markdown(text: Any) -> str:
    r"""Text as a cell of a Markdown table, where nothing in it is markup.

    Example:
        >>> print(markdown("-1.5 *"), markdown("# a"))
        \-1.5 \* \# a
    """
    from jaxlingua.eval.card_text import cell

    return re.sub(r"^(\s*)([#+-])", r"\1\\\2", cell(text))
