"""The scores of runs as a tidy table: a line for each score."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.analysis.scaling.similarity import unigram_similarity
from jaxlingua.analysis.sweep.cells import Cell
from jaxlingua.config import MixtureEntry

COLUMNS = (
    *("language", "pairs", "seed", "task", "metric", "value"),
    *("low", "high", "items", "similarity", "run"),
)
# What is measured on held-out documents: the metric's name here, the names in metrics.jsonl begin with it.
HELD_OUT = {"held_out_loss": "loss", "bits_per_byte": "bits_per_byte"}


def rows_of(run: Path, cell: Cell) -> list[dict[str, Any]]:
    """The scores of the run's last stage, and in the first run of a language those of the base, with 0 pairs.

    A task is named without the cell's language, which is `*`, so that languages can be compared.
    """
    report = json.loads((run / "report.json").read_text("utf-8"))
    rows = []
    *earlier, last = [stage.name for stage in cell.config.stages]
    # What each score is of: the base, which is the end of an earlier stage where there is one, or the last.
    pairs_of = {("tuned", last): cell.pairs, ("tuned", earlier[-1]) if earlier else ("base", "base"): 0}
    for score in report["scores"]:
        pairs = pairs_of.get((score["model"], score["stage"]))
        if score["task"] not in cell.config.eval.tasks and not score["task"].startswith("harness:"):
            continue  # the run that this one branches from was asked it
        if pairs or (pairs == 0 and cell.is_first):
            given = {name: score[name] for name in ("metric", "value", "low", "high", "items")}
            rows.append(_row(cell, pairs, score["task"], run, **given))
    found = {cell.pairs: _held_out(run, last)}
    if cell.is_first and earlier:
        of_base = _held_out(run, earlier[-1])
        found[0] = {
            name: of_base[name] for name in found[cell.pairs].keys() & of_base if _is_same(cell, name)
        }
    for pairs in sorted(found):
        for name, value in sorted(found[pairs].items()):
            kind, _, entry = name.partition("/")
            rows.append(_row(cell, pairs, entry, run, metric=HELD_OUT[kind], value=value))
    return rows


def _is_same(cell: Cell, name: str) -> bool:
    """Whether a measure is of the same source and task in the last stage and in the one before."""
    entry = name.split("/")[1]
    before, last = (stage.mixture[entry] for stage in cell.config.stages[-2:])
    sources = {entry if one.source == "auto" else one.source for one in (before, last)}
    return len(sources) == 1 and before.task == last.task


def _row(cell: Cell, pairs: int, task: str, run: Path, **given: Any) -> dict[str, Any]:
    named = {"language": cell.language, "pairs": pairs, "seed": cell.seed}
    return {**named, "task": task.replace(cell.language, "*"), **given, "run": str(run)}


def _held_out(run: Path, stage: str) -> Mapping[str, float]:
    """The last of each measure of held-out documents in a stage, by entry and language.

    What the run that this one branches from measured in its own stages is left out: it knows no pairs.
    """
    found: dict[str, float] = {}
    for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
        values = json.loads(line)
        found |= {
            name: value
            for name, value in values.items()
            if values.get("stage") == stage and name.partition("/")[0] in HELD_OUT and "/" in name
        }
    return found


def similarity_of(run: Path, cell: Cell) -> float | None:
    """How similar a run's language is to that which its pairs have on their other side: `unigram_similarity`.

    Measured on the pairs that the run learned, with its tokenizer. None where it learned no plain pairs.
    It compares languages only on text of one kind and number: captions of one language beside short
    sentences of another differ by their kind too.

    Cost: a tokenization of the pairs.
    """
    from jaxlingua.tokens.tokenizer import tokenizer_of_folder

    own: list[str] = []
    other: list[str] = []
    for file in sorted((run / "replay").glob(f"{cell.config.stages[-1].name}.*.jsonl")):
        entry = cell.config.stages[-1].mixture[file.name.removesuffix(".jsonl").partition(".")[2]]
        if not _is_of(entry, cell.language):
            continue
        sides = {code for direction in entry.directions() for code in direction} - {cell.language}
        for line in file.read_text("utf-8").splitlines():
            texts = json.loads(line)["texts"]
            own.append(texts[cell.language])
            other.extend(texts[code] for code in sorted(sides))
    if not own:
        return None
    tokenizer = tokenizer_of_folder(str(run / "tokenizer"))
    ids = ([encoding.ids.tolist() for encoding in tokenizer.encode_batch(side)] for side in (own, other))
    return float(f"{unigram_similarity(*ids):.4g}")


def sources_of(cell: Cell) -> list[str]:
    """Names of the sources that a run's pairs are of."""
    entries = cell.config.stages[-1].mixture.items()
    of = (name if one.source == "auto" else one.source for name, one in entries if _is_of(one, cell.language))
    return sorted(set(of))


def _is_of(entry: MixtureEntry, language: str) -> bool:
    """Whether an entry translates from or into a language."""
    return any(language in direction for direction in entry.directions())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV with a header; what is not there is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row.get(name, "") for name in COLUMNS} for row in rows)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text.getvalue(), "utf-8", newline="")
    os.replace(partial, path)
