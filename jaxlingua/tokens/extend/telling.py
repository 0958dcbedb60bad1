"""What the command that extends a tokenizer tells: of the text that it reads, and of what it has made."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.identify import scripts_of

_BEGIN = {
    "mean": "begin as the mean of all old ones",
    "pieces": "begin as the mean of those of their old pieces",
    "distilled": "distilled",
}
_MAIN, _FEW = 0.2, 0.1  # shares of letters, of texts
_COLUMNS = ("tokens per word", "tokens per byte", "byte fallback")


def read_line(facts: Mapping[str, Any]) -> str:
    """What a file holds, by `TextFile.facts`."""
    empty = f", {facts['empty texts']:,} empty ones left out" if facts["empty texts"] else ""
    scripts = ", ".join(f"{share:.0%} {name}" for name, share in list(facts["scripts"].items())[:3])
    language = f", seems to be {facts['language']}" if facts["language"] else ""
    return (
        f"{facts['file']}: {facts['texts']:,} texts{empty}, {facts['characters']:,} characters, letters: "
        f"{scripts or 'none'}{language}"
    )


def kept_warning(read: Sequence[Mapping[str, Any]], old_texts: Sequence[str]) -> str:
    """What is said where a few old texts that are to be kept quote the script of the new text; "" elsewhere.

    One word of a script holds pairs of bytes with which all of its letters begin, so that no piece of these
    can be made: 6 English texts of 37,029 with words of Hindi cost nearly all (benchmarks/RESULTS.md).
    """
    new = {script for facts in read for script, share in facts["scripts"].items() if share >= _MAIN}
    quoting: Counter[str] = Counter()
    for text in old_texts:
        quoting.update(new & scripts_of(text).keys() if not text.isascii() else new & {"Latn"})
    few = {script: count for script, count in quoting.items() if count < _FEW * len(old_texts)}
    told = [
        f"{count:,} of {len(old_texts):,} old texts hold letters of {each}" for each, count in few.items()
    ]
    return f"{', '.join(told)}; with --keep-old they forbid most pieces of it: take them out" if told else ""


def summary(facts: Mapping[str, Any], output: Path) -> list[str]:
    """What was made, and what to put into a training configuration."""
    pieces, changes, rows = facts["pieces"], facts["old text"], facts["rows"]
    lines = ["", *_table(facts), ""]
    lines.append(
        f"pieces: {pieces['learned']:,} learned of {pieces['asked']:,}, from id {facts['first_id']:,} on"
    )
    if pieces["learned"] < pieces["asked"]:
        also = " and change no old text" if changes["kept"] else ""
        lines[-1] += f"; the text has no more that stand there twice{also}"
    if inside := pieces["inside others only"]:
        lines[-1] += f"; {inside:,} stand in the text only inside longer ones, and are never read there"
    if left_out := pieces["words left out"]:
        lines.append(f"the {left_out:,} rarest words of the text were too many to learn from")
    lines.append(
        f"old text ({changes['from']}): {changes['changed_texts']:,} of {changes['texts']:,} texts changed, "
        f"{changes['changed_tokens']:,} of {changes['tokens_before']:,} tokens"
    )
    if changes["examples"]:
        first = changes["examples"][0]
        lines[-1] += (
            f"; first '{_one_line(first['text'])}': {' '.join(first['before'])} → {' '.join(first['after'])}"
        )
    if rows:
        lines += _rows_lines(rows)
    lines.append(f"{output}: written; extension.json there has all of this")
    if rows:
        arrays = ["embed/embedding", *["head/kernel"] * (not rows["tied"])]
        frozen = ["layers/*", "final_norm/*", *(f"{array}[0:{facts['first_id']}]" for array in arrays)]
        lines += [
            "for a training configuration, whose first stage trains new rows only:",
            f"  model: {{init: huggingface, path: {json.dumps(str(output), ensure_ascii=False)}}}",
            f"  stages[0]: {{frozen: {json.dumps(frozen)}}}",
        ]
    return lines


def _rows_lines(rows: Mapping[str, Any]) -> list[str]:
    lines = [f"rows: {rows['before']:,} → {rows['after']:,}, new ones {_BEGIN[rows['method']]}"]
    if "distilled" not in rows:
        return lines
    how = rows["distilled"]
    steps = f"{how['steps']:,} steps of a rate up to {how['learning_rate']:.2g}"
    lines.append(f"distilled: {how['snippets']:,} snippets, {steps}")
    if "held_out_after" in how:
        apart = f"{how['held_out_before']:.4g} → {how['held_out_after']:.4g}"
        lines.append(f"mean squared error of hidden states on held-out text: {apart}")
    if unseen := how["pieces in no snippet"]:
        lines.append(f"{unseen:,} pieces stand in no snippet; their rows are means of their old pieces")
    if not rows["tied"]:
        lines.append("new rows of the head are means of their old pieces")
    return lines


def _table(facts: Mapping[str, Any]) -> list[str]:
    """Fertility of each file before and after, in columns."""
    held_out = {read["file"]: read["held out"] for read in facts["read"]}
    rows = [("file", "held-out texts", *_COLUMNS)]
    for name, both in facts["fertility"].items():
        changes = (f"{both['before'][column]:.3f} → {both['after'][column]:.3f}" for column in _COLUMNS)
        rows.append((name, f"{held_out[name]:,}" if held_out[name] else "none; learned ones", *changes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
