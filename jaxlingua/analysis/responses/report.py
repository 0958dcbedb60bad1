"""What responses tells: responses.json and responses.md."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.alignment.measures import interval, resamples
from jaxlingua.analysis.responses.agreement import agreements_of
from jaxlingua.analysis.responses.measures import MEASURES, languages_of, ratios_of
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
    "the same, such as years and names. Kappa is Cohen's: what is beyond chance.",
    "Intervals: 95 %, bootstrap over items, Wilson's for a share of 0 or 1; changes are against the first "
    "evaluation, on the same items.",
)


def content_of(evaluations: Evaluations, samples: int, seed: int) -> dict[str, Any]:
    """All that is told, as responses.json has it."""
    return {
        "evaluations": list(evaluations),
        "interval": {
            "method": "bootstrap over items, Wilson's for a share of 0 or 1",
            "samples": samples,
            "seed": seed,
        },
        "identifier": identifier_version(),
        "languages": _languages(evaluations),
        "measures": _measures(evaluations, samples, seed),
        "agreement": _agreement(evaluations, samples, seed),
        "agreement_note": _why_no_agreement(evaluations),
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

    def __init__(self, samples: int, seed: int):
        self.samples, self.seed = samples, seed
        self.weights: dict[int, Float[np.ndarray, "draws items"]] = {}
        self.first: dict[Any, tuple[tuple[str, ...], Float[np.ndarray, " draws"]]] = {}

    def weights_of(self, items: int) -> Float[np.ndarray, "draws items"]:
        if items not in self.weights:
            self.weights[items] = resamples(items, self.samples, self.seed)
        return self.weights[items]

    def told(
        self, name: Any, ids: tuple[str, ...], draws: Float[np.ndarray, " draws"], items: int | None
    ) -> dict[str, Any]:
        """Value and interval, and the change where the first evaluation that has it asked the same items.

        Args:
            items: of a share, how many have a part in it; else None.
        """
        row: dict[str, Any] = interval(draws, items)._asdict()
        if name not in self.first:
            self.first[name] = (ids, draws)
        elif self.first[name][0] == ids:
            change = interval(draws - self.first[name][1])
            row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
        return row


def _measures(evaluations: Evaluations, samples: int, seed: int) -> list[dict[str, Any]]:
    drawn, rows = _Drawn(samples, seed), []
    for evaluation, of in evaluations.items():
        for key, answers in of.items():
            for ratio in ratios_of(answers):
                draws = ratio.draws(drawn.weights_of(len(ratio.ids)))
                rows.append(
                    {"evaluation": evaluation, "task": key, "measure": ratio.measure}
                    | {"items": len(ratio.ids), "of_targets": ratio.of_targets}
                    | drawn.told((key, ratio.measure), ratio.ids, draws, ratio.items)
                )
    return rows


def _agreement(evaluations: Evaluations, samples: int, seed: int) -> list[dict[str, Any]]:
    drawn, rows = _Drawn(samples, seed), []
    for evaluation, of in evaluations.items():
        for one in agreements_of(of):
            weights = drawn.weights_of(len(one.ids))
            told, share = {"agreement": one.draws(weights)}, {"agreement": len(one.ids)}
            if one.labels is not None:
                told["kappa"] = one.kappa_draws(weights)
            for measure, draws in told.items():
                rows.append(
                    {"evaluation": evaluation, "tasks": list(one.keys), "measure": measure}
                    | {"items": len(one.ids), "left_out": one.left_out}
                    | drawn.told((one.keys, measure), one.ids, draws, share.get(measure))
                )
    return rows


def _why_no_agreement(evaluations: Evaluations) -> str:
    """Why nothing is told of agreement; empty where something is."""
    if any(True for of in evaluations.values() for _ in agreements_of(of)):
        return ""
    languages = {answers.language for of in evaluations.values() for answers in of.values()}
    if len(languages) < 2:
        return f"Agreement is not defined: all answers are in one language, {', '.join(languages)}."
    return (
        "Agreement is not defined: no question, choice or number was asked in two languages under the same "
        "id, with targets that are the same in both."
    )


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
    lines += ["## Language of the answers", "", *_table(*_language_table(content["languages"]))]
    for measure, about in MEASURES.items():
        if rows := [row for row in content["measures"] if row["measure"] == measure]:
            lines += [f"## {measure}", "", f"{about[0].upper()}{about[1:]}.", ""]
            lines += _table(*_by_evaluation(rows, content["evaluations"], "task"))
    lines += ["## Agreement across languages", ""]
    if content["agreement_note"]:
        lines += [content["agreement_note"], ""]
    else:
        rows = [
            {**row, "what": f"{' and '.join(row['tasks'])}: {row['measure']}, {row['items']} items"}
            for row in content["agreement"]
        ]
        lines += _table(*_by_evaluation(rows, content["evaluations"], "what"))
    lines += [f"- {note}" for note in NOTES]
    return "\n".join(lines) + "\n"


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
