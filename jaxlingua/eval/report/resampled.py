"""Answers of several models to the same items: their scores under the same resamples and exchanges.

What an item is worth is made again from the predictions in a run folder, so that a report can be written at
any time and by itself.
"""

import contextlib
import dataclasses
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu

from jaxlingua.eval.metrics.classes import class_metrics
from jaxlingua.eval.metrics.measured import Measured
from jaxlingua.eval.metrics.translation import SENTENCEPIECE, translation_metrics
from jaxlingua.eval.report.files import read_lines
from jaxlingua.eval.report.models import prompt_of
from jaxlingua.eval.tasks.item import FIRST_PROMPT

_CELLS = 1 << 21  # numbers of a block of resamples: 16 MiB
_WANTED = {"id", "prediction", "targets"}
_SAME = 1e-3  # scores and items are written with four digits


@dataclass(frozen=True, eq=False)
class Answered:
    """What the answers of one model to the items of one task are worth."""

    ids: tuple[str, ...]
    measured: Measured


def answered_in(folder: Path, score: Mapping[str, Any]) -> Answered | None:
    """The items behind a score, from the predictions in a run folder.

    None where there are no predictions, the metric cannot be told from them, or they are not those of the
    score, which their sum has to give.

    Raises: DataError naming a damaged line.
    Cost: a millisecond per translation, for chrF++, once: what was counted is kept in a hidden file beside
    the predictions. Of other metrics each line tells what its item is worth.
    """
    prompt = prompt_of(score)
    key = score["task"] if prompt == FIRST_PROMPT else f"{score['task']}@{prompt}"
    path = folder / "evals" / f"{score['stage']}-{score['step']}" / f"{key}.jsonl"
    lines = read_lines(path)
    if not lines or len(lines) < score["items"] or any(not line.keys() >= _WANTED for line in lines):
        return None
    measured = _measured(score, lines, path)
    if measured is None or abs(measured.value - score["value"]) > _SAME:
        return None
    return Answered(tuple(str(line["id"]) for line in lines), measured)


def _measured(score: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], path: Path) -> Measured | None:
    metric, signature = score["metric"], score["signature"]
    predictions, targets = ([line[name] for line in lines] for name in ("prediction", "targets"))
    if metric in ("bleu", "chrf++") and all(targets):
        tokenizer = _part(signature, "tok") if metric == "bleu" else "none"
        if tokenizer in ("", *SENTENCEPIECE):  # whose model would be downloaded
            return None

        def count(texts: Sequence[str], them: Sequence[Sequence[str]]) -> Measured:
            found = translation_metrics(texts, them, score["language"], tokenizer)
            return next(one for one in found if one.metric == metric)

        cache = path.with_name(f".{path.stem}.{metric}.npz")
        of = hashlib.sha256(f"{tokenizer} {sacrebleu.__version__} ".encode() + path.read_bytes()).hexdigest()
        statistics = _kept(cache, of)
        if statistics is not None:
            return dataclasses.replace(count([""], [["one"]]), statistics=statistics)
        measured = count(predictions, targets)
        _keep(cache, of, measured.statistics)
        return measured
    if metric in ("macro_f1", "weighted_f1") and all(targets):
        labels = sorted({*predictions, *(them[0] for them in targets)})
        return next(one for one in class_metrics(predictions, targets, labels) if one.metric == metric)
    values = [line.get(metric) for line in lines]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    is_told = [metric != "off_target" or not line.get("undecided") for line in lines]
    statistics = np.array(
        [[value if told else 0.0, float(told)] for value, told in zip(values, is_told, strict=True)]
    )
    if not statistics[:, 1].any():
        return None
    return Measured(
        metric,
        statistics,
        lambda sums: float(sums[0] / sums[1]),
        signature,
        is_share=True,
        is_testable=metric != "off_target",
    )


def _kept(cache: Path, of: str) -> np.ndarray | None:
    """What was counted in the predictions that have this hash; None where it is not there or damaged."""
    try:
        with np.load(cache) as found:
            return found["statistics"] if str(found["of"]) == of else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(cache: Path, of: str, statistics: np.ndarray) -> None:
    """The whole file or none; none where the folder cannot be written to."""
    content = io.BytesIO()
    np.savez_compressed(content, of=np.array(of), statistics=statistics)
    partial = cache.with_name(f"{cache.name}.tmp")
    with contextlib.suppress(OSError):
        partial.write_bytes(content.getvalue())
        partial.replace(cache)


def drawing_of(signature: str) -> tuple[int, int]:
    """Samples and seed that a score's interval was made with.

    Example:
        >>> drawing_of("metric:f1|interval:95%,bootstrap2000,seed7"), drawing_of("metric:f1")
        ((2000, 7), (1000, 0))
    """
    found = re.search(r"bootstrap(\d+),seed(\d+)", signature)
    return (int(found[1]), int(found[2])) if found else (1000, 0)


def resampled(measured: Mapping[Hashable, Measured], samples: int, seed: int) -> dict[Hashable, np.ndarray]:
    """The values of each metric over resampled items.

    All that have the same number of items meet the same resamples: the models that are compared on a task,
    and the languages of a parallel set, where an item is the same sentence in each of them. The resamples are
    those of `interval` and `difference`, so that a difference of two values is in the interval that an
    evaluation told.
    """
    values = {}
    for items, keys in _by_items(measured).items():
        rng = np.random.default_rng([seed, items])
        found: dict[Hashable, list[np.ndarray]] = {key: [] for key in keys}
        together = np.concatenate([measured[key].statistics for key in keys], axis=1).astype(np.float64)
        for rows in _blocks(samples, items):
            drawn = rng.integers(items, size=(rows, items)) + items * np.arange(rows)[:, None]
            times_drawn = np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)
            sums = times_drawn.astype(np.float64) @ together  # samples, statistics of all
            for key, own in zip(keys, _parted(sums, [measured[key] for key in keys]), strict=True):
                found[key].append(values_of(measured[key], own))
        values |= {key: np.concatenate(parts) for key, parts in found.items()}
    return values


def exchange_p_values(
    pairs: Mapping[Hashable, Sequence[tuple[Measured, Measured]]], trials: int, seed: int
) -> dict[Hashable, float]:
    """How often two models that are alike would differ at least as much as the two of each pair.

    Their answers to an item change places or not, and the whole metric is computed again. Of a task that was
    asked in several prompts, whose means are compared, the answers to an item in all prompts move together.

    Args:
        pairs: the same items in the same order on both sides, and in all prompts.
    Paper: approximate randomization, as in `significance.difference`.
    """
    found = {}
    for items, keys in _by_items({key: them[0][0] for key, them in pairs.items()}).items():
        rng = np.random.default_rng([seed, items])
        gains = {key: [base.statistics - one.statistics for one, base in pairs[key]] for key in keys}
        together = np.concatenate([gain for key in keys for gain in gains[key]], axis=1).astype(np.float64)
        as_large = dict.fromkeys(keys, 0)
        for rows in _blocks(trials, items):
            bits = np.frombuffer(rng.bytes(rows * math.ceil(items / 8)), np.uint8).reshape(rows, -1)
            moved = np.unpackbits(bits, axis=1, count=items).astype(np.float64) @ together
            parts = _parted(moved, [one for key in keys for one, _ in pairs[key]])
            for key in keys:
                delta, shuffled = 0.0, np.zeros(rows)
                for (one, base), own in zip(pairs[key], parts, strict=False):
                    delta += one.value - base.value
                    shuffled += values_of(one, one.statistics.sum(axis=0) + own)
                    shuffled -= values_of(base, base.statistics.sum(axis=0) - own)
                as_large[key] += int(np.count_nonzero(np.abs(shuffled) >= abs(delta) - 1e-9))
        found |= {key: (count + 1) / (trials + 1) for key, count in as_large.items()}
    return found


def values_of(measured: Measured, sums: np.ndarray) -> np.ndarray:
    """`of_sums` of every row of sums; without a loop for means and for chrF++."""
    if measured.is_share and sums.shape[1] == 2:
        worth, weight = sums.T
        return np.where(weight > 0, worth / np.maximum(weight, 1e-300), measured.value)
    if measured.metric == "chrf++":
        return _chrf(sums)
    return np.array([measured.of_sums(row) for row in sums])


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF with β = 2 from n-grams of the answer, of the target, and of both, for each order.

    Same as: sacrebleu.metrics.CHRF, where orders that either text is too short for do not count.
    """
    of_answer, of_target, of_both = sums.reshape(len(sums), -1, 3).transpose(2, 0, 1)  # samples, orders
    counts = (of_answer > 0) & (of_target > 0)
    orders = np.maximum(counts.sum(axis=1), 1)
    precision = np.where(counts, of_both / np.maximum(of_answer, 1), 0).sum(axis=1) / orders
    recall = np.where(counts, of_both / np.maximum(of_target, 1), 0).sum(axis=1) / orders
    weighed = 4 * precision + recall
    return np.where(weighed > 0, 500 * precision * recall / np.where(weighed > 0, weighed, 1), 0.0)


def _parted(sums: np.ndarray, measured: Sequence[Measured]) -> Iterator[np.ndarray]:
    """The columns of each, from those of all."""
    start = 0
    for one in measured:
        width = one.statistics.shape[1]
        yield sums[:, start : start + width]
        start += width


def _by_items(measured: Mapping[Hashable, Measured]) -> dict[int, list[Hashable]]:
    found: dict[int, list[Hashable]] = {}
    for key, one in measured.items():
        found.setdefault(len(one.statistics), []).append(key)
    return found


def _blocks(samples: int, items: int) -> Iterator[int]:
    """Numbers of resamples that are drawn at once; together they are `samples`."""
    most = max(1, _CELLS // items)
    for start in range(0, samples, most):
        yield min(most, samples - start)


def _part(signature: str, key: str) -> str:
    return next((part[len(key) + 1 :] for part in signature.split("|") if part.startswith(f"{key}:")), "")
