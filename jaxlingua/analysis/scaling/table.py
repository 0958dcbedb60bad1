"""The table of scores, one a line, and the points of one metric of one task in it."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxlingua.analysis.scaling.fit import Points
from jaxlingua.data.readers import cut
from jaxlingua.errors import ConfigError, DataError, nearest
from jaxlingua.languages import check_language

NEEDED = ("language", "pairs", "seed", "task", "metric", "value")
# In the name of a metric of which a lower value is the better one.
LOWER_IS_BETTER = re.compile(
    r"loss|bits_per|perplexity|error|entropy|metricx|off_target|"
    r"(?<![a-z])(ter|wer|cer|brier|nll|ppl|mae|mse|rmse)(?![a-z])"
)
LEAST_SIZES = 2  # of a language
MOST_PAIRS = 10**15  # that a table or a command line may name


@dataclass(frozen=True)
class Row:
    """A score of the table. `task` has * where the language's own code stood."""

    line: int
    language: str
    pairs: int
    seed: str
    task: str
    metric: str
    value: float
    similarity: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of one metric of one task, those without any pair apart, which no law is fitted to."""

    metric: str
    task: str
    is_higher_better: bool | None  # None where neither is better
    is_similarity_measured: bool
    seeds: int
    points: Points
    base: tuple[tuple[str, float], ...]  # language and score at 0 pairs


def is_higher_better(metric: str) -> bool | None:
    """Whether a higher value of the metric is the better one; None where neither is.

    A metric of jaxlingua.eval is what the evaluation says of it; of others the name tells.

    Example:
        >>> [is_higher_better(name) for name in ("chrf++", "comet", "held_out_loss", "off_target", "length")]
        [True, True, False, False, None]
    """
    from jaxlingua.eval.metrics.registry import METRICS  # imports jax
    from jaxlingua.eval.report.models import better_high

    known = better_high(metric)
    if known is not None or metric.casefold() in METRICS:
        return known
    return not LOWER_IS_BETTER.search(metric.casefold())


def read_table(path: str) -> list[Row]:
    """Every score of a CSV file with a header.

    Raises: DataError with the line of what is wrong: a column that is missing, a value that is no number, a
        language that is none, a score that stands there twice.
    """
    rows: list[Row] = []
    seen: dict[tuple[str, int, str, str, str], int] = {}
    for where, line, cells in _lines(path, NEEDED):
        try:
            check_language(cells["language"], where)
        except ConfigError as error:
            raise DataError(str(error)) from None
        for name in ("seed", "task", "metric"):
            if not cells[name]:
                raise DataError(f"{where}: {name} is empty; every score needs one; fill it in")
        pairs = _number(cells, "pairs", where)
        if not 0 <= pairs <= MOST_PAIRS or pairs != int(pairs):
            raise DataError(
                f"{where}: pairs '{cut(cells['pairs'])}' given; whole numbers from 0 to 10^15 are allowed; "
                f"mend the line"
            )
        similarity = _similarity(cells, where) if cells.get("similarity") else None
        row = Row(
            line,
            cells["language"],
            int(pairs),
            cells["seed"],
            cells["task"].replace(cells["language"], "*"),
            cells["metric"],
            _number(cells, "value", where),
            similarity,
        )
        key = (row.language, row.pairs, row.seed, row.task, row.metric)
        if key in seen:
            raise DataError(
                f"{where}: the same language, pairs, seed, task and metric as line {seen[key]}; a score may "
                f"stand there once; take one of them out"
            )
        seen[key] = line
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: a header and no score; a score a line is needed; see --help")
    return rows


def read_similarity(path: str) -> dict[str, float]:
    """Similarity of each language, from a CSV file with the columns language and similarity.

    Raises: DataError with the line of what is wrong.
    """
    found: dict[str, float] = {}
    for where, _, cells in _lines(path, ("language", "similarity")):
        if cells["language"] in found:
            raise DataError(f"{where}: {cells['language']} given twice; take one of them out")
        found[cells["language"]] = _similarity(cells, where)
    return found


def select(
    rows: list[Row],
    path: str,
    metric: str = "",
    task: str = "",
    similarity: Mapping[str, float] | None = None,
) -> Scores:
    """The scores of one metric of one task.

    Args:
        metric, task: needed only where the table has several.
        similarity: of each language, in place of the table's.

    Raises: ConfigError for a metric or task that the table has not, or has beside others and none was named;
        DataError for scores that no law can be fitted to, or a similarity that is missing or changes.
    """
    task = _chosen("task", task, list(dict.fromkeys(row.task for row in rows)), rows)
    rows = [row for row in rows if row.task == task]
    metric = _chosen("metric", metric, list(dict.fromkeys(row.metric for row in rows)), rows)
    rows = [row for row in rows if row.metric == metric]
    fitted = [row for row in rows if row.pairs > 0]
    languages = tuple(dict.fromkeys(row.language for row in rows))
    for code in languages:
        sizes = sorted({row.pairs for row in fitted if row.language == code})
        if len(sizes) < LEAST_SIZES:
            told = f"scores at {sizes[0]:,} pairs alone" if sizes else "no score at more than 0 pairs"
            raise DataError(
                f"{path}: {code} has {told} ({metric}, {task}); {LEAST_SIZES} sizes or more are needed; add "
                f"scores, or leave the language out"
            )
    factors = _similarities(rows, languages, path, similarity)
    points = Points(
        languages,
        np.array([factors[code] for code in languages]) if factors else np.ones(len(languages)),
        np.array([languages.index(row.language) for row in fitted]),
        np.array([row.pairs for row in fitted], float),
        np.array([row.value for row in fitted]),
    )
    if (points.score == points.means()).all():
        raise DataError(
            f"{path}: the scores of each language are all equal ({metric}, {task}); scores that differ are "
            f"needed; see whether the runs learned anything"
        )
    base = tuple((row.language, row.value) for row in rows if row.pairs == 0)
    seeds = len({row.seed for row in fitted})
    return Scores(metric, task, is_higher_better(metric), bool(factors), seeds, points, base)


def _similarities(
    rows: list[Row], languages: tuple[str, ...], path: str, given: Mapping[str, float] | None
) -> dict[str, float]:
    """Similarity of each language; none where the table has none and no file was given."""
    if given is not None:
        if missing := [code for code in languages if code not in given]:
            raise DataError(
                f"--similarity: no similarity of {missing[0]}, which the table has scores of; one a language "
                f"is needed; add a line"
            )
        return {code: given[code] for code in languages}
    if all(row.similarity is None for row in rows):
        return {}
    found: dict[str, float] = {}
    for row in rows:
        if row.similarity is None:
            raise DataError(
                f"{path}:{row.line}: {row.language} has no similarity, and other lines have one; all or none "
                f"is allowed; fill it in"
            )
        if found.setdefault(row.language, row.similarity) != row.similarity:
            raise DataError(
                f"{path}:{row.line}: similarity {row.similarity:g} of {row.language}, which was "
                f"{found[row.language]:g} above; one a language is allowed; mend the line"
            )
    return found


def _chosen(what: str, given: str, known: list[str], rows: list[Row]) -> str:
    if given:
        as_pattern = {given} | {given.replace(row.language, "*") for row in rows if what == "task"}
        if found := [name for name in known if name in as_pattern]:
            return found[0]
        raise ConfigError(f"--{what}: '{given}' given; {nearest(given, known)}; name one that the table has")
    if len(known) > 1:
        raise ConfigError(
            f"--{what}: not given, and the table has several: {', '.join(known)}; a law is of one; name it"
        )
    return known[0]


def _lines(path: str, needed: tuple[str, ...]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Where a line stands, its number, and its cells by column. Raises: DataError for what is not CSV."""
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise DataError(f"{path}: empty; a CSV file with the columns {', '.join(needed)} is needed")
            if missing := [name for name in needed if name not in header]:
                raise DataError(
                    f"{path}: no column '{missing[0]}' in the header ({', '.join(header[:8])[:80]}); the "
                    f"columns {', '.join(needed)} are needed, with commas between; mend the header"
                )
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}: {len(cells)} cells, and the header has {len(header)}; as many are needed; "
                        f"mend the line"
                    )
                named = zip(header, (cell.strip() for cell in cells), strict=True)
                yield where, reader.line_num, dict(named)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error}); mend the line") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _number(cells: Mapping[str, str], name: str, where: str) -> float:
    try:
        number = float(cells[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} '{cells[name]}' given; a finite number is needed; mend the line")
    return number


def _similarity(cells: Mapping[str, str], where: str) -> float:
    found = _number(cells, "similarity", where)
    if found <= 0:
        raise DataError(
            f"{where}: similarity {found:g} of {cells['language']}; numbers above 0 are allowed; mend it"
        )
    return found
