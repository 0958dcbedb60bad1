"""What responses tells: responses.json and responses.md."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis import intervals
from jaxlingua.analysis.alignment.measures import Interval, interval, resamples
from jaxlingua.analysis.intervals import newcombe, newcombe_paired
from jaxlingua.analysis.responses.agreement import agreements_of
from jaxlingua.analysis.responses.measures import MEASURES, Share, languages_of, ratios_of
from jaxlingua.analysis.responses.read import Evaluations
from jaxlingua.analysis.responses.texts import UNTOLD
from jaxlingua.eval.report.escape import markdown
from jaxlingua.eval.report.files import replace
from jaxlingua.identify import identifier_version

TARGETS = "targets"  # in the place of an evaluation: what the identifier makes of right answers
SHOWN_LANGUAGES = 8  # of the table, before the rest is one column
NOTES = (
    "Languages are told by the identifier; the rows of targets show how often it errs. Answers with few "
    "letters are too short, those of which it is not sure are counted apart.",
    "Words are letters and digits between spaces, or characters where a script has no spaces.",
    "Copied: the prompt includes the frame, and an extracted answer stands in its context; the targets' "
    "share is what a right answer copies.",
    "Agreement: labels as they are, numbers by value, other answers where the targets of both languages are "
    "the same, such as years and names. Kappa is Cohen's: what is beyond chance; it is not defined (–) where "
    "both have one and the same label throughout.",
    "Intervals: 95 %, bootstrap over items. That of a share of 0 or 1 is Wilson's, that of a change of a "
    "share of items, and between shares of 0 and 1, Newcombe's.",
)
METHOD = (
    "bootstrap over items; Wilson's for a share of 0 or 1; Newcombe's for a change of a share of items, and "
    "between shares of 0 and 1"
)


def content_of(evaluations: Evaluations, samples: int, seed: int) -> dict[str, Any]:
    """All that is told, as responses.json has it."""
    agreement, reasons = _agreement(evaluations, samples, seed)
    return {
        "evaluations": list(evaluations),
        "changes_against": next(iter(evaluations)),
        "interval": {"method": METHOD, "samples": samples, "seed": seed},
        "identifier": identifier_version(),
        "languages": _languages(evaluations),
        "measures": _measures(evaluations, samples, seed),
        "agreement": agreement,
        "agreement_note": " ".join(reasons if agreement or reasons else [_why_no_agreement(evaluations)]),
    }


def _languages(evaluations: Evaluations) -> list[dict[str, Any]]:
    """Answers by language, for each evaluation, language of the question and language asked."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    targets: dict[tuple[str, str, str], Counter[str]] = {}
    for evaluation, of in evaluations.items():
        for answers in of.values():
            told, of_targets = languages_of(answers)
            if told:
                place = (answers.asked_in, answers.language)
                found.setdefault((evaluation, *place), Counter()).update(told)
                targets.setdefault((answers.key, *place), of_targets)
    for (_, *place), counts in targets.items():
        found.setdefault((TARGETS, *place), Counter()).update(counts)
    return [
        {
            "evaluation": evaluation,
            "question_language": asked_in,
            "asked_language": language,
            "answers": counts.total(),
            "counts": dict(counts.most_common()),
            "shares": {name: count / counts.total() for name, count in counts.most_common()},
        }
        for (evaluation, asked_in, language), counts in found.items()
        if counts
    ]


class _Drawn:
    """Values of resamples by what they are of, to tell changes against the first evaluation."""

    def __init__(self, first: str, samples: int, seed: int):
        self.first, self.samples, self.seed = first, samples, seed
        self.weights: dict[int, Float[np.ndarray, "draws items"]] = {}
        self.before: dict[Any, tuple[tuple[str, ...], Float[np.ndarray, " draws"], Share | None]] = {}

    def weights_of(self, items: int) -> Float[np.ndarray, "draws items"]:
        if items not in self.weights:
            self.weights[items] = resamples(items, self.samples, self.seed)
        return self.weights[items]

    def told(
        self,
        evaluation: str,
        name: Any,
        ids: tuple[str, ...],
        draws: Float[np.ndarray, " draws"],
        share: Share | None,
    ) -> dict[str, Any]:
        """Value and interval, and the change where the first evaluation asked the same items.

        Args:
            share: what `draws` are a share of; None of what is no share.
        """
        items = None if share is None else int(np.count_nonzero(share[1]))
        row: dict[str, Any] = interval(draws, items)._asdict()
        if evaluation == self.first:
            self.before[name] = (ids, draws, share)
        elif name in self.before and self.before[name][0] == ids:
            change = _change(draws, share, *self.before[name][1:])
            row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
        return row


def _change(
    draws: Float[np.ndarray, " draws"],
    share: Share | None,
    first_draws: Float[np.ndarray, " draws"],
    first: Share | None,
) -> Interval:
    """Of a share of items the interval of pairs; resamples tell none where no item, or every one, changes."""
    value, before = float(draws[0]), float(first_draws[0])
    if share is None or first is None or not np.isfinite([value, before]).all():
        return interval(draws - first_draws)
    if counts := _paired(share, first):
        return Interval(value - before, *newcombe_paired(*counts))
    if value in (0, 1) and before in (0, 1):
        items, items_before = (int(np.count_nonzero(below)) for _, below in (share, first))
        pair = intervals.Share(value * items, items), intervals.Share(before * items_before, items_before)
        return Interval(value - before, *newcombe(*pair))
    return interval(draws - first_draws)


def _paired(share: Share, first: Share) -> tuple[int, int, int, int] | None:
    """Items that count in both, here alone, in the first alone, in neither; None where shares are no such."""
    (here, below), (there, below_first) = share, first
    if not np.array_equal(below, below_first) or not np.isin([here, there, below], (0, 1)).all():
        return None
    both, alone, first_alone = here @ there, here @ (below - there), (below - here) @ there
    return int(both), int(alone), int(first_alone), int((below - here) @ (below - there))


def _measures(evaluations: Evaluations, samples: int, seed: int) -> list[dict[str, Any]]:
    drawn, rows = _Drawn(next(iter(evaluations)), samples, seed), []
    for evaluation, of in evaluations.items():
        for key, answers in of.items():
            for ratio in ratios_of(answers):
                draws = ratio.draws(drawn.weights_of(len(ratio.ids)))
                rows.append(
                    {"evaluation": evaluation, "task": key, "measure": ratio.measure}
                    | {"items": len(ratio.ids), "of_targets": ratio.of_targets}
                    | drawn.told(evaluation, (key, ratio.measure), ratio.ids, draws, ratio.share)
                )
    return rows


def _agreement(evaluations: Evaluations, samples: int, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row per pair of languages and measure, and why others have none."""
    drawn, rows = _Drawn(next(iter(evaluations)), samples, seed), []
    why: dict[str, None] = {}
    for evaluation, of in evaluations.items():
        agreements, reasons = agreements_of(of)
        why |= dict.fromkeys(reasons)
        for one in agreements:
            weights = drawn.weights_of(len(one.ids))
            told, share = {"agreement": one.draws(weights)}, {"agreement": one.share}
            if one.labels is not None:
                told["kappa"] = one.kappa_draws(weights)
            for measure, draws in told.items():
                rows.append(
                    {"evaluation": evaluation, "tasks": list(one.keys), "measure": measure}
                    | {"items": len(one.ids), "left_out": one.left_out}
                    | drawn.told(evaluation, (one.keys, measure), one.ids, draws, share.get(measure))
                )
    return rows, list(why)


def _why_no_agreement(evaluations: Evaluations) -> str:
    """Why there is nothing that could be compared."""
    languages = {answers.language for of in evaluations.values() for answers in of.values()}
    if len(languages) < 2:
        return f"Agreement is not defined: all answers are in one language, {', '.join(languages)}."
    return "Agreement is not defined: no task of questions, choices or numbers was asked in two languages."


def write_report(folder: Path, content: Mapping[str, Any]) -> None:
    """responses.json and responses.md, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    replace(
        folder / "responses.json", json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    )
    replace(folder / "responses.md", markdown_of(content))


def markdown_of(content: Mapping[str, Any]) -> str:
    """The tables of responses.md."""
    lines = ["# Responses", "", f"Evaluations: {', '.join(map(markdown, content['evaluations']))}.", ""]
    if len(content["evaluations"]) > 1:
        first = markdown(content["changes_against"])
        lines += [f"Changes are against {first}, and told where it was asked the same items.", ""]
    lines += ["## Language of the answers", "", *_table(*_language_table(content["languages"]))]
    for measure, about in MEASURES.items():
        if rows := [row for row in content["measures"] if row["measure"] == measure]:
            lines += [f"## {measure}", "", f"{about[0].upper()}{about[1:]}.", ""]
            lines += _table(*_by_evaluation(rows, content["evaluations"], "task"))
    lines += ["## Agreement across languages", ""]
    if content["agreement"]:
        rows = [
            {**row, "what": f"{' and '.join(row['tasks'])}: {row['measure']}, {items_of(row)}"}
            for row in content["agreement"]
        ]
        lines += _table(*_by_evaluation(rows, content["evaluations"], "what"))
    if content["agreement_note"]:
        lines += [markdown(content["agreement_note"]), ""]
    lines += [f"- {note}" for note in NOTES]
    return "\n".join(lines) + "\n"


def items_of(row: Mapping[str, Any]) -> str:
    """How many items a row of agreement is about, such as "2 of 50 items" where others are left out."""
    of = f" of {row['items'] + row['left_out']:,}" if row["left_out"] else ""
    return f"{row['items']:,}{of} items"


def _language_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row["counts"])
    languages = [name for name, _ in total.most_common() if name not in UNTOLD]
    shown, others = languages[:SHOWN_LANGUAGES], languages[SHOWN_LANGUAGES:]
    columns = {name: [name] for name in shown} | ({"other": others} if others else {})
    columns |= {name: [name] for name in UNTOLD if name in total}
    body = []
    for row in sorted(rows, key=lambda row: (row["question_language"], row["asked_language"])):
        counts = [sum(row["counts"].get(name, 0) for name in names) for names in columns.values()]
        cells = [f"{count} ({100 * count / row['answers']:.0f} %)" if count else "" for count in counts]
        body.append([row["question_language"], row["asked_language"], row["evaluation"], *cells])
    return ["question", "asked for", "answers of", *columns], body


def _by_evaluation(
    rows: Sequence[Mapping[str, Any]], evaluations: Sequence[str], name: str
) -> tuple[list[str], list[list[str]]]:
    """A line per task, a column per evaluation, and what the targets have."""
    has_targets = any(row.get("of_targets") is not None for row in rows)
    body = []
    for what in dict.fromkeys(row[name] for row in rows):
        of = {row["evaluation"]: row for row in rows if row[name] == what}
        targets = [_number(next(iter(of.values()))["of_targets"])] if has_targets else []
        body.append([what, *(_cell(of[each]) if each in of else "" for each in evaluations), *targets])
    return [name.replace("what", "tasks"), *evaluations, *([TARGETS] if has_targets else [])], body


def _cell(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    text = _number(row["value"])
    if row["low"] is not None:
        text += f" ({_number(row['low'])} to {_number(row['high'])})"
    if row.get("change") is not None:
        text += f", change {_number(row['change'], '+')}"
        if row["change_low"] is not None:
            text += f" ({_number(row['change_low'], '+')} to {_number(row['change_high'], '+')})"
    return text


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}".replace("-", "−")


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(markdown, head))} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(map(markdown, row))} |" for row in body), ""]
